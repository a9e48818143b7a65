"""Real Debian bases: resolved, downloaded, made into layers, unpacked, judged by Debian's own programs."""

from __future__ import annotations

import json
import os
import platform
import posixpath
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from pesto_repro.build import debian_system, debs
from pesto_repro.build.ldcache import MACHINES
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.errors import ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors, mirrors, urls
from pesto_repro.lock.model import DebianPackage
from pesto_repro.plan import Pinned, Step
from pesto_repro.progress import Reporter
from pesto_repro.resolve.debian import ROOTS, Base, resolve
from pesto_repro.store import Store
from tests.debian_archive import inputs
from tests.judges import judge

pytestmark = pytest.mark.network
NATIVE = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs what it made for amd64")
HELLO = """
import bz2, ctypes, ctypes.util, curses, encodings.idna, hashlib, json, lzma, pwd, readline
import sqlite3, ssl, uuid, venv, zoneinfo
print(json.dumps({
    "certificates": ssl.create_default_context().cert_store_stats()["x509_ca"],
    "library": ctypes.util.find_library("sqlite3"),
    "loaded": bool(ctypes.CDLL("libsqlite3.so.0")),
    "home": pwd.getpwuid(65532).pw_dir,
    "zone": zoneinfo.ZoneInfo("Europe/Paris").key,
}))
"""


@dataclass(frozen=True)
class Unpacked:
    """A base and the root that its layers make."""

    base: Base
    root: Path


Unpack = Callable[[str, str], Unpacked]


@pytest.fixture(scope="module")
def where() -> Mirrors:
    """The mirrors that this machine's ordinary configuration names."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    texts = [each.read_text() for each in files if each.is_file()]
    return mirrors(None, os.environ.get("PESTO_REPRO_DEBIAN_MIRROR"), texts)


@pytest.fixture(scope="module")
def fetcher(test_cache: Path) -> Fetcher:
    return Fetcher(Store(test_cache / "debian"), Reporter())


@pytest.fixture(scope="module")
def unpack(where: Mirrors, fetcher: Fetcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpack]:
    """Makes each base once."""
    made: dict[tuple[str, str], Unpacked] = {}

    def once(suite: str, architecture: str) -> Unpacked:
        if (suite, architecture) not in made:
            folder = tmp_path_factory.mktemp(f"{suite}-{architecture}")
            made[suite, architecture] = _unpacked(suite, architecture, where, fetcher, folder)
        return made[suite, architecture]

    yield once
    for each in made.values():
        shutil.rmtree(each.root, ignore_errors=True)


def _unpacked(suite: str, architecture: str, where: Mirrors, fetcher: Fetcher, folder: Path) -> Unpacked:
    now = datetime.now(UTC)
    base = resolve(suite, (), (architecture,), mirrors=where, fetcher=fetcher, now=now)[architecture]
    fetcher.many(partial(_download, each, where, fetcher) for each in base.packages)
    pinned = tuple(Pinned(posixpath.basename(each.filename), each.digest, each.size) for each in base.packages)
    _layer(Step("debs", "debs", "debian", {}, pinned), fetcher.store, folder)
    _layer(
        Step("debian-system", "system", "debian", {"architecture": architecture}, pinned),
        fetcher.store,
        folder,
    )
    return Unpacked(base, folder)


def _download(package: DebianPackage, where: Mirrors, fetcher: Fetcher) -> None:
    fetcher.blob(package.digest, package.size, partial(urls, package, where), package.name)


def _layer(step: Step, store: Store, folder: Path) -> None:
    maker = {"debs": debs.entries, "debian-system": debian_system.entries}[step.kind]
    with inputs(store) as given_inputs, store.scratch() as stream:
        write_tar(arrange(maker(step, given_inputs)), stream)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            archive.extractall(folder, filter="fully_trusted")


def inside(root: Path, *command: str, user: int = 65532) -> str:
    """What *command* says, run in *root* as *user*, without a network."""
    isolation = ["--unshare-all", "--uid", str(user), "--gid", str(user), "--clearenv"]
    mounts = ["--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    done = subprocess.run([judge("bwrap"), *mounts, *isolation, *command], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


@NATIVE
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_bases_python_works(unpack: Unpack, suite: str) -> None:
    """As a user who is not root; certificates, libraries, accounts and time zones are found."""
    made = unpack(suite, "amd64")
    assert set(ROOTS) <= {each.name for each in made.base.packages}
    python = made.base.python
    assert f"Python {python.version}\n" == inside(made.root, python.executable, "--version")
    found = json.loads(inside(made.root, "/usr/bin/python3", "-c", HELLO))
    assert found.pop("certificates") > 100
    assert {
        "library": "libsqlite3.so.0",
        "loaded": True,
        "home": "/home/nonroot",
        "zone": "Europe/Paris",
    } == found
    loader = inside(made.root, "/lib64/ld-linux-x86-64.so.2", "--version")
    assert python.libc == f"glibc {loader.splitlines()[0].rpartition(' ')[2].rstrip('.')}"


@NATIVE
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_loaders_cache_is_what_ldconfig_makes(unpack: Unpack, suite: str) -> None:
    """The same libraries in the same order, said by the base's own ldconfig."""
    root = unpack(suite, "amd64").root

    def listed(path: str, *before: str) -> list[str]:
        command = " && ".join([*before, f"/sbin/ldconfig -p -C {path}"])
        return [line for line in inside(root, *_shell(command), user=0).splitlines() if "=>" in line]

    ours = listed("/etc/ld.so.cache")
    assert len(ours) > 40
    assert listed("/tmp/real", "/sbin/ldconfig -X -C /tmp/real") == ours


def _shell(command: str) -> list[str]:
    """The base has no shell; its Python runs the commands one after the other."""
    code = f"import subprocess; [subprocess.check_call(each.split()) for each in {command.split(' && ')!r}]"
    return ["/usr/bin/python3", "-c", code]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_certificates_are_as_update_ca_certificates_leaves_them(unpack: Unpack, suite: str, tmp_path: Path) -> None:
    """The package's own script and openssl's rehash make the same bundle and the same links."""
    root, certificates = unpack(suite, "amd64").root, tmp_path / "certs"
    judge("openssl")
    certificates.mkdir()
    script = [
        "sh",
        str(root / "usr/sbin/update-ca-certificates"),
        "--certsconf",
        str(root / "etc/ca-certificates.conf"),
    ]
    sources = root / "usr/share/ca-certificates"
    options = ["--certsdir", str(sources), "--localcertsdir", "/nonexistent", "--hooksdir", "/nonexistent"]
    subprocess.run([*script, *options, "--etccertsdir", str(certificates)], check=True, capture_output=True)
    ours = root / "etc/ssl/certs"
    bundle = "ca-certificates.crt"
    assert (certificates / bundle).read_bytes() == (ours / bundle).read_bytes()

    def links(folder: Path) -> dict[str, str]:
        return {
            each.name: str(each.readlink()).removeprefix(str(root)) for each in folder.iterdir() if each.is_symlink()
        }

    assert links(certificates) == links(ours)


@pytest.mark.parametrize(("suite", "architecture"), [("trixie", "amd64"), ("trixie", "arm64")])
def test_every_program_is_for_the_architecture(unpack: Unpack, suite: str, architecture: str) -> None:
    """Whatever machine made it."""
    files = (path for path in unpack(suite, architecture).root.rglob("*") if path.is_file() and not path.is_symlink())
    heads = [head for path in files if (head := _head(path)).startswith(b"\x7fELF")]
    assert len(heads) > 100
    assert {MACHINES[architecture]} == {int.from_bytes(head[18:20], "little") for head in heads}


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(20)


def test_the_python_for_arm64_runs(unpack: Unpack) -> None:
    """Emulated: its libraries fit each other."""
    made = unpack("trixie", "arm64")
    executable = str(made.root) + made.base.python.executable
    code = "import ctypes, lzma, platform, sqlite3, ssl, zoneinfo; print(platform.machine())"
    command = [judge("qemu-aarch64"), "-L", str(made.root), executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "aarch64\n" == done.stdout


def test_an_unsatisfiable_pair_is_explained(where: Mirrors, fetcher: Fetcher) -> None:
    """Two mail servers exclude each other."""
    with pytest.raises(ResolveError) as caught:
        resolve("trixie", ("exim4", "postfix"), ("amd64",), mirrors=where, fetcher=fetcher, now=datetime.now(UTC))
    lines = caught.value.message.splitlines()
    assert "Debian trixie for amd64 has no answer:" == lines[0]
    assert "  postfix: postfix is asked for" == lines[-1]
