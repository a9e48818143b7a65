"""Others that do the same work: what a user would do instead. Who is not on this machine is left out, and named.

* buildah (upstream's Dockerfile), and with the best Dockerfile that an expert would write: ``uv``, a warm cache, the
  algorithm last, so that a changed line makes one small layer. Both end with an archive, as ours does.
* uv: ``uv pip install`` of our own lock's wheels into a new folder, its cache warm, then ``tar`` and ``pigz``. It does
  not do the Debian packages, nor an image: only the larger part of the work.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from measure import Contestant, Done, execute, link, say, write
from projects import SUITE, Kind, Ours, edit
from uv import find_uv_bin

from pesto_repro.fetch.debian import mirrors
from tests import upstream

HERE = Path(__file__).resolve().parent
BASE = "localhost/bench-base"
# As Python's own images are: pip may install where it stands, and may be upgraded, as Debian's own may not.
BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar.gz /
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && pip install --ignore-installed pip
"""
NO_REQUIREMENTS = "RUN echo 'pip requirements: the template has none'\n"
REQUIREMENTS = "COPY requirements.txt /opt/tmp/requirements.txt\nRUN pip install -r /opt/tmp/requirements.txt\n"
API = "pesto/cli/resources/doc/api_geo_process_v1.0.yaml"
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout", "find-links")
PYTHON = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_40"]


def present(program: str) -> bool:
    """Whether *program* is on this machine."""
    return shutil.which(program, path=_path()) is not None


def _path() -> str:
    """Debian keeps some programs where only root looks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class Buildah:
    """``buildah bud`` and ``buildah push``; *prepared* keeps the base, the caches and buildah's storage."""

    def __init__(self, name: str, dockerfile: Path, ours: Ours) -> None:
        self.name, self._ours = name, ours
        self._prepared = ours.prepared
        self._storage = ours.prepared / "containers" / f"{ours.kind.name}{dockerfile.suffix}" / "root"
        """Of its own: a layer that another build made is not to be found."""
        self._folder = ours.folder / f"buildah{dockerfile.suffix}"
        self._context, self.archive = self._folder / "context", self._folder / "theirs.oci.tar"
        self._folder.mkdir()
        self._tag = f"localhost/{ours.kind.name}{dockerfile.suffix}:1.0.0"
        self._project = _context(self._context, ours)
        self._dockerfile = _adapted(dockerfile, ours.kind, self._folder)
        self._volumes = list(_volumes(ours, self._folder))
        self._import_base()
        once(self._storage.with_name("warmed"), lambda: void(self.build()))

    def forget(self) -> None:
        """Keep the base and the caches, forget every layer."""
        if self._tag.rpartition(":")[0] in self._buildah("images").stdout:
            self._buildah("rmi", "--force", self._tag)
        self._buildah("rmi", "--prune", "--force")

    def edit(self, comment: str) -> None:
        """Change one line of the algorithm's code."""
        edit(self._project, comment)

    def build(self, case: str = "") -> Done:
        """Build up to a finished archive; stop the benchmark if that was another *case* than meant ("": any)."""
        self.archive.unlink(missing_ok=True)  # buildah writes it anew in any case
        how = ["--layers", "--network", "host", *self._volumes, "--file", str(self._dockerfile)]
        built = self._bud(*how, "-t", self._tag, str(self._context))
        done = built.then(self._buildah("push", "--quiet", self._tag, f"oci-archive:{self.archive}:{self._tag}"))
        reused = built.stdout.count("--> Using cache")
        # The first step is FROM, for which there is nothing to run.
        made = len(re.findall(r"^STEP \d+/", built.stdout, re.MULTILINE)) - reused - 1
        holds = {"first": not reused, "unchanged": not made, "edited": made > 0 and reused > 0, "": True}
        if not holds[case]:
            sys.exit(f"error: {case} ({self.name}): {made} steps were made, {reused} were not")
        return done

    def _import_base(self) -> None:
        archive = self._prepared / f"{SUITE}.tar.gz"
        if not archive.exists():
            _make_base(archive)
        if BASE not in self._buildah("images").stdout:
            context = self._folder / "base"
            link(archive, context / "base.tar.gz")
            (context / "Dockerfile").write_text(BASE_DOCKERFILE)
            self._bud("--network", "host", *self._volumes, "-t", BASE, str(context))

    def _bud(self, *arguments: str) -> Done:
        return self._buildah("bud", "--isolation", "chroot", *arguments)

    def _buildah(self, verb: str, *arguments: str) -> Done:
        places = ["--root", str(self._storage), "--runroot", str(self._storage.with_name("run"))]
        temporary = self._prepared / "tmp"
        temporary.mkdir(exist_ok=True)
        return execute(["buildah", *places, verb, *arguments], self._folder, {"TMPDIR": str(temporary)})


class Uv:
    """``uv pip install`` into a new folder, ``tar``, ``pigz``: one layer."""

    name = "uv, tar, pigz"

    def __init__(self, ours: Ours) -> None:
        self._ours, self._folder = ours, ours.folder / "uv"
        self._folder.mkdir()
        self._cache = ours.prepared / "uv-cache"
        self.layer = self._folder / "layer.tar.gz"
        once(ours.prepared / f"uv-cache-{ours.kind.name}.warmed", lambda: void(self.build()))

    def forget(self) -> None:
        """A folder that is there would not be written."""
        shutil.rmtree(self._folder / "venv", ignore_errors=True)
        self.layer.unlink(missing_ok=True)

    def build(self) -> Done:
        """The compressed layer."""
        wheels, requirements = self._ours.vendored
        install = f"""{find_uv_bin()} pip install --quiet --offline --no-index --no-deps --find-links {wheels} \\
            --cache-dir {self._cache} --target venv {" ".join(PYTHON)} -r {requirements}"""
        pack = f"tar -c --sort=name --mtime=@0 --owner=0 --group=0 venv | {compressor()} > {self.layer}"
        return execute(["sh", "-ec", f"{install}\n{pack}"], self._folder)


def once(marker: Path, work: Callable[[], None]) -> None:
    """Do *work* unless the prepared folder says that it was done: what runs once for a row shall find warm caches."""
    if not marker.exists():
        say("warming a peer's caches, once")
        work()
        marker.touch()


def void(_: object) -> None:
    """Nothing comes of it."""


def compressor() -> str:
    """The parallel gzip where there is one."""
    return "pigz" if present("pigz") else "gzip"


def contestants(peers: Sequence[Buildah], case: str) -> list[Contestant]:
    """The Dockerfiles' part of a row: *case* is "first", "unchanged" or "edited"."""

    def prepared(peer: Buildah, number: int) -> None:
        if case == "first":
            peer.forget()
        elif case == "edited":
            peer.edit(f"round {number}")

    def run(peer: Buildah, _: int) -> Done:
        return peer.build(case)

    return [Contestant(each.name, partial(run, each), partial(prepared, each)) for each in peers]


# -- what both build ---------------------------------------------------------------------------------------------------


def _adapted(dockerfile: Path, kind: Kind, folder: Path) -> Path:
    """Upstream's Dockerfile has two steps more where the project asks for packages."""
    text = dockerfile.read_text()
    target = folder / "Dockerfile"
    target.write_text(text.replace(NO_REQUIREMENTS, REQUIREMENTS) if kind.requires else text)
    return target


def _context(context: Path, ours: Ours) -> Path:
    """The folder that is handed to the builder; the algorithm in it."""
    wheel = upstream.download(ours.prepared)
    (context / "dist").mkdir(parents=True)
    project = upstream.render(wheel, context)
    api = project / "pesto/api"
    shutil.copy(api / "description.json", api / "service.json")  # bytes enough: nobody runs this image
    with zipfile.ZipFile(wheel) as archive:
        write(context / "pesto" / Path(API).name, archive.read(API))
    for name in ("key.pem", "cert.pem"):
        write(context / "requirements/ssl" / name, b"made by `pesto build`, and not timed here\n")
    _, locked = ours.vendored
    shutil.copy(locked, context / "locked.txt")
    # As users write them: our lock's versions would clash with the closure that upstream's runtime has here.
    (context / "requirements.txt").write_text("".join(f"{each}\n" for each in ours.kind.requires))
    return project


def _make_base(archive: Path) -> None:
    """Debian with Python and pip, as an archive."""
    partial = archive.with_name(f"partial-{archive.name}")
    say("making the base of the Dockerfiles, once")
    command = ["mmdebstrap", "--variant=minbase", "--include=python3,python3-pip,python3-venv,ca-certificates"]
    execute([*command, SUITE, partial, _mirror()], archive.parent)
    partial.replace(archive)


def _mirror() -> str:
    """Where this machine's own apt finds Debian."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *(folder / "sources.list.d").glob("*")]
    texts = [path.read_text() for path in files if path.suffix in (".list", ".sources") and path.is_file()]
    return mirrors(None, os.environ.get("PESTO_REPRO_DEBIAN_MIRROR"), texts).main[0]


def _volumes(ours: Ours, folder: Path) -> Iterator[str]:
    """What runs inside needs: caches that outlive a build, wheels, uv, this machine's configuration of pip."""
    settings = _pip_settings(folder)
    configuration = folder / "pip.conf"
    configuration.touch(mode=0o600)
    configuration.write_text("".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items())]))
    for name, place in (("pip-cache", "/root/.cache/pip"), ("uv-inside", "/root/.cache/uv")):
        (ours.prepared / name).mkdir(exist_ok=True)
        yield f"--volume={ours.prepared / name}:{place}"
    yield f"--volume={ours.vendored[0]}:/wheels:ro"
    yield f"--volume={find_uv_bin()}:/usr/local/bin/uv:ro"
    yield f"--volume={configuration}:/etc/pip.conf:ro"
    if "cert" in settings:
        yield f"--volume={settings['cert']}:{settings['cert']}:ro"


def _pip_settings(folder: Path) -> dict[str, str]:
    """Those of pip's settings on this machine that say where packages come from."""
    listed = execute([sys.executable, "-m", "pip", "config", "list"], folder).stdout
    found = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE))
    return {key: str(ast.literal_eval(found[key])) for key in PIP_SETTINGS if key in found}
