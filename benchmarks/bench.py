"""How fast is a build, beside the Dockerfile that upstream writes? ``make bench`` answers with a table.

Both build upstream's template project up to a finished archive, in turns, so that a busy machine slows both:

* ours: ``pesto-repro build``; wheels and Debian packages are in the store.
* theirs: ``buildah bud --layers`` (chroot isolation) on the Dockerfile beside this file, then ``buildah
  push`` to an OCI archive; the base is a local image and pip's cache is warm. Upstream builds without any
  cache by default: this is the best that its users can have.

Rules: what is timed is the wall clock of whole processes; what brings a case about (forgetting layers,
editing a line) is not timed; a round of all cases warms up and is thrown away; a case that did not do what
its name says (a "first build" that found a layer) stops the benchmark. Everything lies in one folder, and
buildah's own storage there too: nothing of the user's is touched.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pesto_repro.fetch.debian import mirrors
from tests import upstream

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
COMMAND = "make bench"
SUITE = "trixie"
BASE = "localhost/bench-base"
# As Python's own images are: pip may install where it stands, and may be upgraded, as Debian's own may not.
BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar.gz /
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && pip install --ignore-installed pip
"""
TAG = "localhost/algo-service:1.0.0.dev0"
MEMORY_TARGET = 200
TOOLS = ("buildah", "mmdebstrap")
API = "pesto/cli/resources/doc/api_geo_process_v1.0.yaml"
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout")


@dataclass(frozen=True, slots=True)
class Ran:
    """One build: seconds of wall clock, peak memory in bytes, how many steps were made and reused."""

    seconds: float
    peak: int
    made: int
    reused: int


class Contestant(Protocol):
    """One way to build the template project."""

    def forget(self) -> None:
        """Keep downloads, forget every layer."""

    def edit(self, comment: str) -> None:
        """Change one line of the algorithm's code."""

    def drop(self) -> None:
        """Remove the archive."""

    def build(self) -> Ran:
        """Build up to a finished archive."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table: what happened since the last build, and how many times faster we aim to be."""

    title: str
    target: int | None
    prepare: Callable[[Contestant, str], None]
    holds: Callable[[Ran], bool]


CASES = (
    Case("first build, downloads present", 8, lambda one, _: one.forget(), lambda ran: not ran.reused),
    Case("nothing changed", 20, lambda one, _: None, lambda ran: not ran.made),
    Case("nothing changed, archive removed", None, lambda one, _: one.drop(), lambda ran: not ran.made),
    Case(
        "one line of the algorithm changed",
        20,
        lambda one, comment: one.edit(comment),
        lambda ran: bool(ran.made and ran.reused),
    ),
)


class Ours:
    """pesto-repro, with a store of its own in *folder* that is filled with the downloads found in *warm*."""

    def __init__(self, wheel: Path, folder: Path, warm: Path) -> None:
        self._folder, self._warm = folder, warm
        self._store, self._archive = folder / "store", folder / "ours.oci.tar"
        self._project = upstream.render(wheel, folder)
        (self._project / "pesto/build/image.toml").write_text(f'[base]\ndebian = "{SUITE}"\n')
        self._command("lock", warm)
        self._command("build", warm, "-o", str(self._archive))
        steps = self._json(self._command("plan", warm, "--json"))["platforms"][0]["steps"]
        self._inputs = {digest for step in steps for digest in step["inputs"]}

    def forget(self) -> None:
        shutil.rmtree(self._store, ignore_errors=True)
        for digest in sorted(self._inputs):
            name = Path("blobs", *digest.split(":"))
            if (self._warm / name).exists():
                _link(self._warm / name, self._store / name)

    def edit(self, comment: str) -> None:
        _edit(self._project, comment)

    def drop(self) -> None:
        self._archive.unlink(missing_ok=True)

    def build(self) -> Ran:
        done = self._command("build", self._store, "-o", str(self._archive), "--json")
        layers = self._json(done)["platforms"][0]["layers"]
        reused = sum(layer["cached"] for layer in layers)
        return Ran(done.seconds, done.peak, len(layers) - reused, reused)

    def _command(self, verb: str, store: Path, *options: str) -> Done:
        command = [sys.executable, "-m", "pesto_repro", verb, str(self._project), *options]
        return execute([*command, "--store", str(store)], self._folder)

    def _json(self, done: Done) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(done.stdout)
        return found


class Theirs:
    """``buildah bud`` and ``buildah push``; *prepared* keeps the base, pip's cache and buildah's storage."""

    def __init__(self, wheel: Path, folder: Path, prepared: Path) -> None:
        self._folder, self._archive = folder, folder / "theirs.oci.tar"
        self._context = folder / "context"
        self._storage = ["--root", str(prepared / "containers"), "--runroot", str(prepared / "containers-run")]
        self._volumes = list(_volumes(folder, prepared / "pip"))
        self._project = _context(wheel, self._context)
        self._import_base(prepared)

    def forget(self) -> None:
        if TAG.rpartition(":")[0] in self._buildah("images").stdout:
            self._buildah("rmi", "--force", TAG)
        self._buildah("rmi", "--prune", "--force")

    def edit(self, comment: str) -> None:
        _edit(self._project, comment)

    def drop(self) -> None:
        self._archive.unlink(missing_ok=True)

    def build(self) -> Ran:
        self.drop()  # buildah writes it anew in any case; a file that is there could only be in its way
        how = ["--layers", "--network", "host", *self._volumes, "--file", str(HERE / "Dockerfile")]
        build = self._bud(*how, "-t", TAG, str(self._context))
        push = self._buildah("push", "--quiet", TAG, f"oci-archive:{self._archive}:{TAG}")
        reused = build.stdout.count("--> Using cache")
        # The first step is FROM, for which there is nothing to run.
        made = len(re.findall(r"^STEP \d+/", build.stdout, re.MULTILINE)) - reused - 1
        return Ran(build.seconds + push.seconds, max(build.peak, push.peak), made, reused)

    def _import_base(self, prepared: Path) -> None:
        archive = prepared / f"{SUITE}.tar.gz"
        if not archive.exists():
            _make_base(archive, self._folder)
        if BASE not in self._buildah("images").stdout:
            context = self._folder / "base"
            _link(archive, context / "base.tar.gz")
            (context / "Dockerfile").write_text(BASE_DOCKERFILE)
            self._bud("--network", "host", *self._volumes, "-t", BASE, str(context))

    def _bud(self, *arguments: str) -> Done:
        return self._buildah("bud", "--isolation", "chroot", *arguments)

    def _buildah(self, verb: str, *arguments: str) -> Done:
        return execute(["buildah", *self._storage, verb, *arguments], self._folder)


@dataclass(frozen=True, slots=True)
class Done:
    """A process that ended well."""

    seconds: float
    peak: int
    stdout: str


def execute(command: Sequence[str], folder: Path) -> Done:
    """Run *command* in *folder*; its wall clock, the peak memory of its processes, what it printed."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            said = stdout.read() + stderr.read()
            sys.exit(f"error: {' '.join(command)} ended with {process.returncode}:\n{said}")
        return Done(seconds, usage.ru_maxrss * 1024, stdout.read())


def compare(contestants: Sequence[Contestant], runs: int) -> list[list[list[Ran]]]:
    """By case, then by contestant: *runs* builds, after one round that is thrown away."""
    found: list[list[list[Ran]]] = [[[] for _ in contestants] for _ in CASES]
    for number in range(runs + 1):
        for case, row in zip(CASES, found, strict=True):
            for contestant, ran in zip(contestants, row, strict=True):
                build = _build(case, contestant, f"round {number}")
                who = type(contestant).__name__.lower()
                print(f"round {number}: {case.title}: {who} {build.seconds:.2f} s", file=sys.stderr)
                if number:
                    ran.append(build)
    return found


def _build(case: Case, contestant: Contestant, comment: str) -> Ran:
    case.prepare(contestant, comment)
    ran = contestant.build()
    if not case.holds(ran):
        who = type(contestant).__name__
        sys.exit(f"error: {case.title} ({who}): {ran.made} steps were made, {ran.reused} were not")
    return ran


def report(found: Sequence[Sequence[Sequence[Ran]]], runs: int) -> str:
    """The results as Markdown."""
    rows = [_row(case, *row) for case, row in zip(CASES, found, strict=True)]
    peak = max(ran.peak for ours, _ in found for ran in ours) / 1e6
    lines = [
        "| | ours, s | theirs, s | times faster | aim | |",
        "|---|--:|--:|--:|--:|---|",
        *rows,
        "",
        f"Our peak memory: {peak:.0f} MB; aim: under {MEMORY_TARGET} MB, {_verdict(peak < MEMORY_TARGET)}.",
        "",
        f"Median of {runs} builds each, in turns, after one to warm up. {_machine()}",
    ]
    return "\n".join(lines) + "\n"


def _row(case: Case, ours: Sequence[Ran], theirs: Sequence[Ran]) -> str:
    we, they = (statistics.median(ran.seconds for ran in each) for each in (ours, theirs))
    aim, verdict = (str(case.target), _verdict(they / we >= case.target)) if case.target else ("", "")
    return f"| {case.title} | {we:.2f} | {they:.2f} | {they / we:.1f} | {aim} | {verdict} |"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _machine() -> str:
    buildah = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True).stdout
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, "
        f"{' '.join(buildah.split()[:3])}, {datetime.now(UTC):%Y-%m-%d}."
    )


def document(table: str) -> str:
    """RESULTS.md: the table, how it was made, and what it compares."""
    return f"""# The benchmark's last run

Written by `{COMMAND} BENCH_ARGS=--write`; `make bench-deps` installs what it needs. Not to be edited.

{table}
Both sides build the template project of `processing-factory` {upstream.VERSION} on Debian {SUITE} up to a
finished OCI archive. Wall clock of whole processes.

* **First build**: ours starts with a store that holds the wheels and the Debian packages and nothing else
  (no layer, no record); theirs with the base image, which it never has to make, and with pip's cache warm,
  but no layer.
* **Nothing changed**: ours finds the archive that it wrote and leaves it; theirs builds from its layer cache
  and writes the archive again, as there is no other way. With the archive removed, ours writes it again too.
* **One line changed**: a comment at the end of `algorithm/process.py`, another one each time.
* Theirs does what the Dockerfile says and no more: what `pesto build` itself does before it calls Docker
  (start, validation, a new 4096-bit key) is not counted, and its layer cache is on, which `pesto build`
  turns off by default.
* The images are not the same: theirs has pip and the runtime's full closure, ours what the lock names.
"""


# -- what both build ---------------------------------------------------------------------------------------


def _edit(project: Path, comment: str) -> None:
    with (project / "algorithm/process.py").open("a") as code:
        code.write(f"# {comment}\n")


def _context(wheel: Path, context: Path) -> Path:
    """The folder that upstream hands to Docker, made in *context*; the algorithm in it."""
    (context / "dist").mkdir(parents=True)
    project = upstream.render(wheel, context)
    api = project / "pesto/api"
    shutil.copy(api / "description.json", api / "service.json")  # bytes enough: nobody runs this image
    with zipfile.ZipFile(wheel) as archive:
        _write(context / "pesto" / Path(API).name, archive.read(API))
    for name in ("key.pem", "cert.pem"):
        _write(context / "requirements/ssl" / name, b"made by `pesto build`, and not timed here\n")
    return project


def _make_base(archive: Path, folder: Path) -> None:
    """Debian with Python and pip, as an archive."""
    partial = archive.with_name(f"partial-{archive.name}")
    print(f"making the base {archive}: once, some minutes", file=sys.stderr)
    command = ["mmdebstrap", "--variant=minbase", "--include=python3,python3-pip,ca-certificates"]
    execute([*command, SUITE, str(partial), _mirror()], folder)
    partial.replace(archive)


def _mirror() -> str:
    """Where this machine's own apt finds Debian."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *(folder / "sources.list.d").glob("*")]
    texts = [path.read_text() for path in files if path.suffix in (".list", ".sources") and path.is_file()]
    return mirrors(None, os.environ.get("PESTO_REPRO_DEBIAN_MIRROR"), texts).main[0]


def _volumes(folder: Path, cache: Path) -> Iterator[str]:
    """What pip needs inside: its cache, and this machine's configuration and certificates."""
    cache.mkdir(parents=True, exist_ok=True)
    configuration = folder / "pip.conf"
    settings = _pip_settings(folder)
    configuration.touch(mode=0o600)
    lines = [f"{key} = {value}\n" for key, value in settings.items()]
    configuration.write_text("".join(["[global]\n", *lines]))
    yield f"--volume={cache}:/root/.cache/pip"
    yield f"--volume={configuration}:/etc/pip.conf:ro"
    if "cert" in settings:
        yield f"--volume={settings['cert']}:{settings['cert']}:ro"


def _pip_settings(folder: Path) -> dict[str, str]:
    """Those of pip's settings on this machine that say where packages come from."""
    listed = execute([sys.executable, "-m", "pip", "config", "list"], folder).stdout
    found = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE))
    return {key: str(ast.literal_eval(found[key])) for key in PIP_SETTINGS if key in found}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# -- the command line --------------------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    parser = argparse.ArgumentParser(description="Compare our speed with that of upstream's Dockerfile.")
    parser.add_argument("--runs", type=int, default=5, help="builds per case and side (default: 5)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    parser.add_argument(
        "--folder",
        type=Path,
        default=cache / "pesto-repro-bench",
        help="where downloads are kept for the next time (default: %(default)s)",
    )
    return parser.parse_args()


def _require_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        sys.exit(f"error: the benchmark needs {' and '.join(missing)}\nhint: run `make bench-deps`")


def main() -> None:
    """Run the benchmark; print the table."""
    arguments = _arguments()
    _require_tools()
    prepared: Path = arguments.folder.resolve()
    prepared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prepared) as scratch:
        wheel = upstream.download(prepared)
        ours, theirs = Path(scratch, "ours"), Path(scratch, "theirs")
        ours.mkdir()
        theirs.mkdir()
        contestants = (Ours(wheel, ours, prepared / "store"), Theirs(wheel, theirs, prepared))
        table = report(compare(contestants, arguments.runs), arguments.runs)
    print(table, end="")
    if arguments.write:
        RESULTS.write_text(document(table))


if __name__ == "__main__":
    main()
