"""``dockerBaseImage`` -> digests and facts: from the config where it says enough, else from the layers, read once."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pesto_repro.build.base import Bases, LayoutSource, layout_source
from pesto_repro.build.entry import Entry, data, symlink
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, MismatchError, PestoError, ResolveError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import BaseImage, Interpreter
from pesto_repro.oci import Base, Descriptor, Layer, MediaType, Platform, Recipe, assemble, assemble_index
from pesto_repro.progress import Reporter
from pesto_repro.registry.content import LayoutContent
from pesto_repro.resolve.base_image import Asked, Found, resolve, site_folders
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from pesto_repro.validate import validate
from tests.base_images import HISTORY, Made, archive, look_alike, made, package
from tests.test_lock import platform, sealed

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
SITE = "usr/local/lib/python3.11/dist-packages"


@dataclass
class Counted:
    """The content of an archive; *opened* are the blobs that were read as streams."""

    content: LayoutContent
    opened: list[Digest] = field(default_factory=list)

    def document(self, descriptor: Descriptor) -> bytes:
        return self.content.document(descriptor)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        self.opened.append(descriptor.digest)
        return self.content.open(descriptor)


@dataclass
class Twin:
    """A source in an archive that counts."""

    content: Counted

    def root(self, digest: Digest | None = None) -> Descriptor:
        return self.content.content.root()

    def current(self) -> Digest | None:
        return self.root().digest


class Bench:
    """A base image in an archive, made in a moment, and the store of whoever locks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made, self.store = folder, Store(folder / "made"), Store(folder / "store")
        self.number = 0

    def source(self, *platforms: Made) -> Twin:
        self.number += 1
        return Twin(Counted(LayoutContent.at(archive(self.folder / f"{self.number}.tar", self.made, *platforms))))

    def base(self, *layers: Sequence[Entry], **how: Any) -> Twin:
        return self.source(made(self.made, *layers, **how))

    def resolve(self, source: Twin, wanted: Platform = AMD64, old: Found | None = None, **how: Any) -> Found:
        asked = Asked("team/base:1", wanted, **how)
        return resolve(asked, source.root(), source, self.store, Reporter(), old)

    def failure(self, source: Twin, wanted: Platform = AMD64, **how: Any) -> PestoError:
        with pytest.raises(PestoError) as caught:
            self.resolve(source, wanted, **how)
        return caught.value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_the_layers_say(bench: Bench) -> None:
    """The interpreter, the C library, the links of the root, packages; all pinned as the registry has it."""
    source = bench.base(look_alike(), [*package(SITE, "torch", "2.9.0+cu128"), *package(SITE, "My_Pkg", "1.0")])
    found = bench.resolve(source)
    assert (
        Interpreter(version="3.11.2", executable="/usr/bin/python3.11", libc="glibc 2.36", prefix="/usr", abi="cp311")
        == found.python
    )
    assert {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"} == found.base.links
    assert [("my-pkg", "1.0"), ("torch", "2.9.0+cu128")] == [(each.name, each.version) for each in found.base.packages]
    assert (None, str(source.root().digest)) == (found.base.index, found.base.manifest)
    assert "2025-06-01T01:02:03Z" == found.base.created
    assert 2 == len(found.base.layers) == len(source.content.opened)


def test_a_layer_is_read_once_on_a_machine(bench: Bench) -> None:
    """Another image with the same layers, or the same one again, costs its documents only."""
    first, other = bench.base(look_alike()), bench.base(look_alike(), Labels={"a": "b"})
    found = bench.resolve(first)
    assert found.python == bench.resolve(other, packages=True).python
    assert [] == other.content.opened


def test_an_official_image_is_not_read(bench: Bench) -> None:
    """Its config says version, place and Debian: nothing of its layers is needed."""
    env = ["PATH=/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.14"]
    source = bench.base([data("usr/bin/anything", b"")], history=[HISTORY], Env=env)
    found = bench.resolve(source)
    assert (
        Interpreter(
            version="3.11.14",
            executable="/usr/local/bin/python3.11",
            libc="glibc 2.36",
            prefix="/usr/local",
            abi="cp311",
        )
        == found.python
    )
    assert ({"bin", "lib", "lib64", "sbin", "var/lock", "var/run"}, ()) == (set(found.base.links), found.base.packages)
    assert [] == source.content.opened


@pytest.mark.parametrize(
    ("history", "env"),
    [
        ("RUN something", ["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.14"]),
        (HISTORY, ["PATH=/opt/conda/bin:/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.14"]),
        (HISTORY, ["PATH=/usr/local/bin:/usr/bin"]),
        (HISTORY, ["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11"]),
    ],
)
def test_what_the_config_does_not_say_is_read(bench: Bench, history: str, env: list[str]) -> None:
    """Half a word is none: the layers decide."""
    source = bench.base(look_alike(), history=[history], Env=env)
    assert "3.11.2" == bench.resolve(source).python.version
    assert 1 == len(source.content.opened)


def test_wanted_packages_have_the_layers_read(bench: Bench) -> None:
    """No config says what is installed."""
    env = ["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.2"]
    source = bench.base(look_alike(), package(SITE, "torch", "2.9.0"), history=[HISTORY, "RUN pip"], Env=env)
    assert () == bench.resolve(source).base.packages
    assert ["torch"] == [each.name for each in bench.resolve(source, packages=True).base.packages]


def test_a_python_of_another_place(bench: Bench) -> None:
    """Conda's, first on the PATH: its own prefix, its own packages; the C library is the system's."""
    conda = [
        data("opt/conda/bin/python3.12", b"/lib64/ld-linux-x86-64.so.2\0 3.12.4\0", executable=True),
        symlink("opt/conda/bin/python3", "python3.12"),
        symlink("opt/conda/bin/python", "python3.12"),
        *package("opt/conda/lib/python3.12/site-packages", "torch", "2.3.1"),
        *package("opt/conda/pkgs/x/lib/python3.12/site-packages", "never", "1.0"),
    ]
    source = bench.base(look_alike(), conda, Env=["PATH=/opt/conda/bin:/usr/bin"])
    found = bench.resolve(source)
    assert ("3.12.4", "/opt/conda/bin/python3.12", "/opt/conda") == (
        found.python.version,
        found.python.executable,
        found.python.prefix,
    )
    assert ["torch"] == [each.name for each in found.base.packages]
    system = bench.resolve(source, python="3.11")
    assert "/usr/bin/python3.11" == system.python.executable


def test_a_python_in_a_virtual_environment_is_the_one_below_it(bench: Bench) -> None:
    """Ours is a virtual environment of its own, and of the real interpreter."""
    venv = [
        data("app/venv/pyvenv.cfg", b"home = /usr/bin\n"),
        symlink("app/venv/bin/python3", "/usr/bin/python3"),
    ]
    copied = [data("app/venv/bin/python3", b"3.11.2\0", executable=True)]
    for above in ([venv], [venv, copied]):
        source = bench.base(look_alike(), *above, Env=["PATH=/app/venv/bin:/usr/bin"])
        assert "/usr/bin/python3.11" == bench.resolve(source).python.executable


def test_the_shared_library_says_the_version(bench: Bench) -> None:
    """An official image's python3.11 is a stub; and what nobody says is left out."""
    stub = [
        data("usr/local/bin/python3.11", b"/lib64/ld-linux-x86-64.so.2\0", executable=True),
        symlink("usr/local/bin/python3", "python3.11"),
    ]
    library = [data("usr/local/lib/libpython3.11.so.1.0", b"\x003.11.13\0")]
    assert "3.11.13" == bench.resolve(bench.base(look_alike(), stub, library)).python.version
    assert "3.11" == bench.resolve(bench.base(look_alike(), stub)).python.version


def test_a_musl_base(bench: Bench) -> None:
    """Alpine: its loader is its C library."""
    entries = [
        data("usr/bin/python3.12", b"/lib/ld-musl-x86_64.so.1\x003.12.8\0", executable=True),
        symlink("usr/bin/python3", "python3.12"),
        data("lib/ld-musl-x86_64.so.1", b"musl libc (x86_64)\nVersion %s\n\x001.2.5\0"),
    ]
    assert "musl 1.2" == bench.resolve(bench.base(entries)).python.libc


@pytest.mark.parametrize(
    ("layers", "how", "message"),
    [
        (
            [[data("bin/sh", b"")]],
            {},
            "the base image team/base:1 has no Python 3 on its PATH "
            "(/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin)",
        ),
        (
            [look_alike()],
            {"python": "3.12"},
            "the base image team/base:1 has no Python 3.12 on its PATH "
            "(/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin)",
        ),
        (
            [look_alike(), [data("opt/venv/pyvenv.cfg", b"")]],
            {},
            "the base image team/base:1 has a virtual environment at /opt/venv, where the image's own goes",
        ),
        (
            [[each for each in look_alike() if "libc" not in each.path]],
            {},
            "the base image team/base:1 has no C library that is known: neither glibc nor musl",
        ),
        (
            [look_alike(), [data("usr/bin/python3.13t", b""), symlink("usr/bin/python3", "python3.13t")]],
            {},
            "the base image team/base:1 has /usr/bin/python3.13t, which is free-threaded",
        ),
    ],
)
def test_bases_that_cannot_be(bench: Bench, layers: list[list[Entry]], how: dict[str, Any], message: str) -> None:
    """One error that says what is missing."""
    error = bench.failure(bench.base(*layers), **how)
    assert message == error.message


# -- platforms ---------------------------------------------------------------------------------------------------------


def test_each_platform_has_its_manifest(bench: Bench) -> None:
    """arm64 is v8, whether that is said or not; the index is pinned too."""
    amd64 = made(bench.made, look_alike())
    arm64 = made(bench.made, look_alike("aarch64", version="3.11.9"), platform="linux/arm64/v8")
    source = bench.source(made(bench.made, look_alike(), platform="linux/arm/v7"), amd64, arm64)
    found = {each: bench.resolve(source, each) for each in (AMD64, ARM64)}
    assert {AMD64: "3.11.2", ARM64: "3.11.9"} == {each: it.python.version for each, it in found.items()}
    assert [str(source.root().digest)] * 2 == [each.base.index for each in found.values()]
    assert str(arm64.image().descriptor.digest) == found[ARM64].base.manifest


def test_a_platform_that_is_not_there(bench: Bench) -> None:
    """The error says which are; an amd64 of a newer level is not what is asked."""
    names = ("linux/amd64/v3", "linux/arm/v7")
    several = bench.source(*(made(bench.made, look_alike(), platform=each) for each in names))
    assert (
        "the base image team/base:1 is not there for linux/amd64, only for linux/amd64/v3, linux/arm/v7",
        "choose another base, or other platforms in [image] of image.toml",
    ) == ((error := bench.failure(several)).message, error.hint)
    one = bench.base(look_alike())
    assert "the base image team/base:1 is for linux/amd64, not for linux/arm64" == bench.failure(one, ARM64).message


def test_what_was_known_is_not_read_again(bench: Bench) -> None:
    """Where the name still leads to the same manifest, an upgrade asks for documents only."""
    source = bench.base(look_alike())
    before = bench.resolve(source)
    bench.store = Store(bench.folder / "empty")
    source.content.opened.clear()
    assert before == bench.resolve(source, old=before)
    assert [] == source.content.opened


# -- the image on it ---------------------------------------------------------------------------------------------------


def based(bench: Bench, config: dict[str, Any], history: tuple[str, ...] = ()) -> Base:
    """The base of one layer with this config, as the assembly gets it."""
    it = made(bench.made, [data("etc/a", b"")])
    document = {"architecture": "amd64", "os": "linux", "variant": "v1", "config": config}
    return Base(it.layers, document | ({"history": [{"created_by": each} for each in history]} if history else {}))


RECIPE = Recipe(
    AMD64, "2026-01-01T00:00:00Z", "65532:65532", ("A=b",), ("processing",), ("8080/tcp",), {"a": "ours", "c": "ours"}
)


def test_what_a_base_hands_on(bench: Bench) -> None:
    """As a Dockerfile's FROM: ports, volumes, labels, working directory; never its entry point, command or triggers."""
    config: dict[str, Any] = {
        "User": "root",
        "Env": ["A=a"],
        "Entrypoint": ["/bin/x"],
        "Cmd": ["y"],
        "ExposedPorts": {"9000/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "theirs", "b": "theirs"},
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN false"],
        "Shell": None,
    }
    found = json.loads(assemble(RECIPE, (), based(bench, config, ("RUN a",))).config)
    assert {
        "User": "65532:65532",
        "Env": ["A=b"],
        "Cmd": ["processing"],
        "ExposedPorts": {"8080/tcp": {}, "9000/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "ours", "b": "theirs", "c": "ours"},
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
    } == found["config"]
    assert ("v1", [{"created_by": "RUN a"}]) == (found["variant"], found["history"])


@pytest.mark.parametrize("history", [(), ("RUN a", "RUN b", "RUN c")])
def test_a_base_whose_history_does_not_fit(bench: Bench, history: tuple[str, ...]) -> None:
    """config.md: history is optional; in ours each layer has its entry."""
    assert ({"comment": "a layer of the base"},) == based(bench, {}, history).history


def test_layers_that_cannot_be_copied(bench: Bench) -> None:
    """Some are not to be distributed: their bytes are not where the image is."""
    it = made(bench.made, look_alike())
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = it.layers[0]
    it = replace(it, layers=(replace(layer, descriptor=replace(layer.descriptor, media_type=foreign)),))
    expected = f"team/base:1 has a layer of the type {foreign}, which cannot be copied"
    assert expected == bench.failure(bench.source(it)).message


def test_layers_are_brought_when_they_must_be_there(bench: Bench) -> None:
    """From where the base lies, verified; others are left to whoever makes them."""
    source = bench.base(look_alike())
    base = bench.resolve(source).base
    lock = sealed(platform().model_copy(update={"base": base}))
    bases = Bases(lock, bench.store, lambda original: source, Reporter())
    digest, other = Digest.parse(base.layers[0].digest), Digest.of(b"other")
    assert not bench.store.has(digest)
    assert frozenset([other]) == bases.bring({digest, other})
    assert bench.store.has(digest)
    image = bases.image(base)
    assert image is not None
    assert ("base", "team/base:1", "") == (image.layers[0].kind, image.layers[0].name, image.layers[0].step)
    assert bases.image(None) is None


def test_where_layers_may_be_mounted_from(bench: Bench) -> None:
    """The same registry, whichever way it is written; a layout is in none."""
    base = bench.resolve(bench.base(look_alike())).base
    digest = Digest.parse(base.layers[0].digest)

    def mountable(original: str, host: str) -> dict[Digest, str]:
        named = base.model_copy(update={"original": original})
        lock = sealed(platform().model_copy(update={"base": named}))
        return Bases(lock, bench.store, lambda _: pytest.fail("nobody is asked"), Reporter()).mountable(host)

    assert {digest: "team/base"} == mountable("localhost:5000/team/base:1", "localhost:5000")
    assert {} == mountable("localhost:5000/team/base:1", "localhost:5001")
    assert {} == mountable("oci:base", "localhost:5000")


def test_a_layout_that_is_another_one_now(bench: Bench) -> None:
    """What is pinned by digest is those bytes or an error."""
    archive(bench.folder / "base.tar", bench.made, made(bench.made, look_alike()))
    source = layout_source("oci-archive:base.tar", bench.folder)
    assert isinstance(source, LayoutSource)
    with pytest.raises(MismatchError) as caught:
        source.root(Digest.of(b"other"))
    message = f"{bench.folder}/base.tar is not what was locked: expected {Digest.of(b'other')}, "
    assert message + f"it has {source.current()}" == caught.value.message
    assert layout_source("python:3.11", bench.folder) is None
    with pytest.raises(FetchError):
        layout_source("oci:absent", bench.folder)


# -- the lock and the plan ---------------------------------------------------------------------------------------------


def test_a_lock_with_a_base_reads_back(bench: Bench) -> None:
    """Every fact is in the text; a lock without a base has no word of it."""
    found = bench.resolve(bench.base(look_alike(), package(SITE, "torch", "2.9.0")))
    lock = sealed(platform().model_copy(update={"base": found.base, "python": found.python}))
    text = lock_text.dumps(lock)
    assert lock == lock_text.loads(text, "x")
    assert '{ name = "torch", version = "2.9.0" }' in text
    plain = lock_text.dumps(sealed(platform()))
    assert [] == [word for word in ("platforms.base", "prefix", "abi", "system-packages") if word in plain]


def test_site_folders_of_debian_and_others() -> None:
    """Debian's own Python has its packages elsewhere."""
    other = Interpreter(version="3.11.2", executable="/usr/local/bin/python3.11", libc="x", prefix="/usr/local")
    places = [f"/usr/local/{name}/python3.11/site-packages" for name in ("lib", "lib64")]
    assert places == site_folders(other)


def test_an_image_on_a_foreign_base_is_valid(bench: Bench, tmp_path: Path) -> None:
    """Layers of others need not be as tidy as ours: names of owners, no order, whiteouts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("./z", "./a/.wh.b", "./a"):
            info = tarfile.TarInfo(name)
            info.uname = "ada"
            tar.addfile(info)
    digest = bench.store.put(buffer.getvalue())
    layer = Layer("base", "base", "", Descriptor(MediaType.LAYER, digest, len(buffer.getvalue())), digest)
    image = assemble_index([assemble(RECIPE, (), Base((layer,), {"history": [{"created_by": "RUN x"}]}))])
    write_archive(image, "a:1", tmp_path / "a.tar", bench.store)
    validate(tmp_path / "a.tar")


def test_no_base_in_the_lock_is_no_base() -> None:
    """The model's defaults are those of a Debian base."""
    assert platform().base is None
    assert BaseImage.model_fields["packages"].default == ()


def test_resolve_errors_are_resolve_errors(bench: Bench) -> None:
    """What the user can mend is not a failure of the network."""
    assert isinstance(bench.failure(bench.base([data("a", b"")])), ResolveError)
