"""One joint resolution through uv: against a private index that the test starts, and against the real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, MismatchError, OfflineError, PestoError, ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.index import Index, Indexes
from pesto_repro.lock.model import BroughtPackage, Interpreter, PythonPackage, Source
from pesto_repro.progress import Reporter
from pesto_repro.resolve.failures import BROUGHT_HINT, NO_WHEEL_HINT, NoWheels
from pesto_repro.resolve.python import resolve
from pesto_repro.resolve.request import LocalWheel, Request
from pesto_repro.resolve.wheel_tags import image_tags, python_platform
from pesto_repro.store import Store
from tests.python_index import CANARY, PrivateIndex, digest_of_file, make_wheel, serving, simple_wheel

PYTHON = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")


class Recorder(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warn(self, message: str, hint: str | None = None) -> None:
        self.told.append(message)

    def info(self, message: str) -> None:
        self.told.append(message)

    def debug(self, message: str) -> None:
        self.told.append(message)


class World:
    """A private index with some packages, a store, and a uv that knows nothing of this machine's indexes."""

    def __init__(self, root: Path, server: PrivateIndex) -> None:
        self.root, self.server, self.folder = root, server, server.folder
        self.reporter = Recorder()
        self.indexes = Indexes((Index("default", server.url_with_password),))
        self.environment = {"PATH": os.defpath, "HOME": str(root), "UV_CACHE_DIR": f"{root}/cache"}
        self.environment["UV_HTTP_RETRIES"] = "0"
        self.fetcher = Fetcher(Store(root / "store"), self.reporter)

    def request(self, *requires: str) -> Request:
        return Request(requires, (), "rt==1.0", "full", PYTHON, "linux/amd64")

    def resolve(self, request: Request) -> tuple[PythonPackage, ...]:
        return resolve(request, self.indexes, self.environment, self.fetcher.pin, self.reporter)

    def failure(self, request: Request) -> PestoError:
        with pytest.raises(PestoError) as caught:
            self.resolve(request)
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    wheels = tmp_path / "wheels"
    simple_wheel(wheels, "rt", "1.0", "b")
    for version in ("1.0", "1.1", "2.0"):
        simple_wheel(wheels, "b", version)
    simple_wheel(wheels, "old", "1.0", "b<2")
    simple_wheel(wheels, "new", "1.0", "b>=2")
    (wheels / "sources-1.0.tar.gz").write_bytes(b"never read")
    with serving(wheels, CANARY) as server:
        yield World(tmp_path, server)


def versions(resolution: tuple[PythonPackage, ...]) -> dict[str, str]:
    return {each.name: each.version for each in resolution}


def test_a_private_index_resolves_and_its_password_stays_there(world: World) -> None:
    """Digest and size are those of the wheels; the canary is in no result, message, log or file."""
    found = world.resolve(world.request("old"))
    assert {"rt": "1.0", "b": "1.1", "old": "1.0"} == versions(found)
    for package in found:
        path = world.folder / package.wheel.name
        assert (digest_of_file(path), path.stat().st_size) == (package.wheel.digest, package.wheel.size)
        assert "default" == package.index
    shown = [
        repr(found),
        *world.reporter.told,
        repr(world.indexes),
        str(world.failure(world.request("old", "new"))),
    ]
    left = [path.read_bytes() for path in world.root.rglob("*") if path.is_file()]
    for secret in (CANARY, CANARY.replace("/", "%2F")):
        assert [] == [text for text in shown if secret in text]
        assert [] == [data for data in left if secret.encode() in data]


def test_a_conflict_fails_with_the_chain_of_reasons(world: World) -> None:
    """uv's words, without colours, paths and uv's own headings."""
    failure = world.failure(world.request("old", "new"))
    assert isinstance(failure, ResolveError)
    assert (
        "the requirements for Python 3.13 on linux/amd64 cannot be met together:\n"
        "  Because all versions of old depend on b<2 and all versions of new depend on b>=2, we can "
        "conclude that all versions of new and all versions of old are incompatible.\n"
        "  And because you require old and new, we can conclude that your requirements are unsatisfiable."
    ) == failure.message


def test_constraints_constrain(world: World) -> None:
    """They are no requirements: nothing is added by them."""
    found = world.resolve(replace(world.request(), constraints=("b==1.0", "old==1.0")))
    assert {"rt": "1.0", "b": "1.0"} == versions(found)


def test_a_package_that_does_not_exist_is_named(world: World) -> None:
    """With a hint."""
    failure = world.failure(world.request("nowhere-to-be-found"))
    assert "nowhere-to-be-found cannot be found where packages are looked for" == failure.message.split(":")[0]
    assert "check the spelling, and the configured indexes" == failure.hint


def test_a_package_without_wheels_is_refused(world: World) -> None:
    """Building from source is not for now."""
    failure = world.failure(world.request("sources"))
    expected = "sources 1.0 has no wheel for Python 3.13 on linux/amd64 (only a source distribution)"
    assert (expected, NO_WHEEL_HINT) == (failure.message.partition(":\n")[0], failure.hint)


def test_a_wrong_password_and_an_index_that_is_down_are_told(world: World) -> None:
    """As failures to fetch: nothing was resolved."""
    world.server.password = "another"
    failure = world.failure(world.request())
    assert isinstance(failure, FetchError)
    assert (
        f"the index {world.server.url} could not be queried due to a lack of valid authentication "
        "credentials (401 Unauthorized)"
    ) == failure.message.replace("/simple could", "/simple/ could")
    world.indexes = Indexes((Index("default", f"http://bob:{CANARY.replace('/', '%2F')}@127.0.0.1:9/simple"),))
    failure = world.failure(world.request())
    assert isinstance(failure, FetchError)
    assert failure.message.startswith("the package index cannot be read: Failed to fetch: http://127.0.0.1:9/simple/")


def test_offline_is_told(world: World) -> None:
    """What uv has not in its cache cannot be resolved."""
    world.environment["UV_OFFLINE"] = "1"
    assert isinstance(world.failure(world.request()), OfflineError)


def test_pins_stay_until_an_upgrade_is_asked_for(world: World) -> None:
    """-U renews all, -P one; a pin that can no longer be is replaced."""
    kept = world.resolve(replace(world.request("old"), constraints=("b==1.0",)))
    again = replace(world.request("old"), keep=kept)
    assert kept == world.resolve(again)
    assert "1.1" == versions(world.resolve(replace(again, upgrade=True)))["b"]
    assert "1.1" == versions(world.resolve(replace(again, upgrade_packages=("b",))))["b"]
    assert "1.0" == versions(world.resolve(replace(again, upgrade_packages=("old",))))["b"]
    assert "2.0" == versions(world.resolve(replace(world.request("new"), keep=kept)))["b"]


def test_a_pinned_wheel_stays_when_a_better_one_appears(world: World) -> None:
    """Locking again must not follow a new build of the same version; -P does."""
    kept = world.resolve(world.request())
    simple_wheel(world.folder, "b", "2.0", tag="1-py3-none-any")
    world.environment["UV_CACHE_DIR"] += "2"
    request = replace(world.request(), keep=kept)
    assert kept == world.resolve(request)
    renewed = world.resolve(replace(request, upgrade_packages=("b",)))
    assert "b-2.0-1-py3-none-any.whl" == renewed[0].wheel.name


def test_a_wheel_that_was_built_here_was_replaced_by_nobody(world: World) -> None:
    """A folder of the project changes, and its version need not: there is nothing to warn of."""
    kept = world.resolve(world.request())
    source = Source(kind="directory", name="libs/b", sha256="1" * 64, size=1)
    path = make_wheel(world.folder, kept[0].wheel.name, {"b.py": b"new"})
    world.environment["UV_CACHE_DIR"] += "2"
    keep = (kept[0].model_copy(update={"source": source}), *kept[1:])
    found = world.resolve(replace(world.request(), keep=keep))[0]
    assert (digest_of_file(path), []) == (found.wheel.digest, world.reporter.told)


def test_a_wheel_that_was_replaced_is_told(world: World) -> None:
    """Same name, other bytes: the new pin is the truth, but somebody should look."""
    kept = world.resolve(world.request())
    path = make_wheel(world.folder, kept[0].wheel.name, {"b.py": b"evil"})
    world.environment["UV_CACHE_DIR"] += "2"
    found = world.resolve(replace(world.request(), keep=kept))[0]
    assert digest_of_file(path) == found.wheel.digest
    assert [
        f"{path.name} is not the file that was pinned: sha256:{kept[0].wheel.sha256}, now {digest_of_file(path)}"
    ] == world.reporter.told


def test_an_index_without_hashes_is_measured(world: World) -> None:
    """The bytes are downloaded once: the store has them for the build."""
    world.server.hashes = False
    found = world.resolve(world.request())[0]
    assert digest_of_file(world.folder / found.wheel.name) == found.wheel.digest
    assert world.fetcher.store.has(found.wheel.digest)


def test_an_index_that_lists_other_bytes_than_it_sends_is_refused(world: World) -> None:
    """Both digests are named."""

    def download(url: str, label: str) -> tuple[Digest, int]:
        return Digest("f" * 64), 1

    with pytest.raises(MismatchError) as caught:
        resolve(world.request(), world.indexes, world.environment, download, world.reporter)
    listed = digest_of_file(world.folder / "b-2.0-py3-none-any.whl")
    expected = f"b-2.0-py3-none-any.whl is not what its index says: {listed} is listed, sha256:{'f' * 64} was sent"
    assert expected == caught.value.message


def test_each_package_knows_its_index(world: World, tmp_path: Path) -> None:
    """By name: of several indexes, the one that uv took it from; find-links have one name for all."""
    more, links = tmp_path / "more", tmp_path / "links"
    simple_wheel(more, "c", "1.0", "d")
    simple_wheel(links, "d", "1.0")
    with serving(more) as other:
        extra = Index("extra-1", other.url)
        world.indexes = Indexes((extra, *world.indexes.indexes), (links.as_uri(),))
        found = world.resolve(world.request("c"))
    expected = {"b": "default", "rt": "default", "c": "extra-1", "d": "find-links"}
    assert expected == {each.name: each.index for each in found}


def test_a_wheel_of_the_project_takes_part(world: World, tmp_path: Path) -> None:
    """Under its own name although its file is called after a digest; it has a key instead of an index."""
    path = simple_wheel(tmp_path, "mine", "3.0", "b<1.1")
    blob = path.rename(tmp_path / "blob")
    local = LocalWheel("lib", path.name, blob, digest_of_file(blob), blob.stat().st_size)
    found = {each.name: each for each in world.resolve(replace(world.request(), wheels=(local,)))}
    assert ("3.0", "lib", None) == (found["mine"].version, found["mine"].resource, found["mine"].index)
    assert (local.digest, local.size) == (found["mine"].wheel.digest, found["mine"].wheel.size)
    assert "1.0" == found["b"].version


def test_an_archive_of_the_project_that_is_no_wheel_is_refused(world: World) -> None:
    """It would have to be built."""
    local = LocalWheel("lib", "lib-1.0.tar.gz", Path("x"), Digest("0" * 64), 1)
    failure = world.failure(replace(world.request(), wheels=(local,)))
    assert 'requirement "lib": lib-1.0.tar.gz is not a wheel' == failure.message


def test_the_minimal_closure_is_known_by_version(world: World) -> None:
    """Another runtime has to say "full"."""
    failure = world.failure(replace(world.request(), closure="minimal"))
    assert "nobody knows the minimal closure of rt==1.0" == failure.message
    assert failure.hint is not None
    assert "processing-factory==1.7.2" in failure.hint


@pytest.mark.parametrize(
    ("libc", "expected"),
    [("glibc 2.41", "40"), ("glibc 2.36", "36"), ("glibc 2.30", "28"), ("glibc 2.17", "17")],
)
def test_uv_is_told_of_no_newer_libc_than_the_images(libc: str, expected: str) -> None:
    """The highest that uv knows and the image has."""
    assert f"aarch64-manylinux_2_{expected}" == python_platform("linux/arm64", libc)


@pytest.mark.parametrize(
    ("platform", "libc"),
    [("linux/amd64", "glibc 2.12"), ("linux/amd64", "musl 1.1"), ("linux/s390x", "glibc 2.36")],
)
def test_a_base_that_no_wheel_fits_is_told(platform: str, libc: str) -> None:
    """Rather than a resolution for something else."""
    with pytest.raises(ResolveError) as caught:
        python_platform(platform, libc)
    assert f"there are no wheels to look for on {platform} with {libc}" == caught.value.message


def test_wheels_for_musl() -> None:
    """PEP 656: musllinux of the image's minor version and older ones, nothing of glibc's."""
    assert "aarch64-unknown-linux-musl" == python_platform("linux/arm64", "musl 1.2")
    python = PYTHON.model_copy(update={"libc": "musl 1.2"})
    tags = [str(each) for each in image_tags(python, "linux/amd64")]
    expected = ["cp313-cp313-musllinux_1_2_x86_64", "cp313-cp313-musllinux_1_1_x86_64", "cp313-cp313-linux_x86_64"]
    assert expected == tags[:3]
    assert [] == [each for each in tags if "manylinux" in each]


def test_packages_of_the_base_are_not_installed_again(world: World) -> None:
    """They are pinned, whether or not an index has them; the runtime is never the base's."""
    had = [BroughtPackage(name=name, version=version) for name, version in (("b", "1.0+cu1"), ("rt", "0.1"))]
    request = replace(world.request("old", "b>=1"), brought=tuple(had))
    assert {"rt": "1.0", "old": "1.0"} == versions(world.resolve(request))
    failure = world.failure(replace(world.request("new"), brought=tuple(had)))
    assert BROUGHT_HINT == failure.hint


@given(
    minor=st.integers(8, 15),
    libc=st.integers(17, 45),
    platform=st.sampled_from(["linux/amd64", "linux/arm64"]),
)
def test_tags_are_the_images(minor: int, libc: int, platform: str) -> None:
    """Never the host's; none twice; none of a newer libc, another Python's ABI or another CPU."""
    python = Interpreter(version=f"3.{minor}.1", executable="/p", libc=f"glibc 2.{libc}")
    tags = image_tags(python, platform)
    machine = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}[platform]
    assert len(set(tags)) == len(tags)
    assert f"cp3{minor}-cp3{minor}-manylinux_2_{libc}_{machine}" == str(tags[0])
    assert {"none", "abi3", f"cp3{minor}"} == {tag.abi for tag in tags}
    assert all(tag.platform == "any" or tag.platform.endswith(machine) for tag in tags)
    newest = max(int(tag.platform.split("_")[2]) for tag in tags if tag.platform.startswith("manylinux_2_"))
    assert libc == newest


def ordinary(root: Path) -> tuple[Indexes, dict[str, str]]:
    """This machine's own configuration, as the command line would read it."""
    from pesto_repro.cli.indexes import indexes_from_environment

    return indexes_from_environment(os.environ, Path.home(), root)


@pytest.mark.network
def test_two_platforms_get_their_own_wheels(tmp_path: Path) -> None:
    """The minimal closure on both: what is pure is the same, what is compiled is not."""
    indexes, environment = ordinary(tmp_path)
    fetcher = Fetcher(Store(tmp_path / "store"), Reporter())
    found = {}
    for platform in ("linux/amd64", "linux/arm64"):
        # A project that itself requires the runtime gets no more of it.
        request = Request(("processing-factory",), (), "processing-factory==1.7.2", "minimal", PYTHON, platform)
        resolution = resolve(request, indexes, environment, fetcher.pin, Reporter())
        found[platform] = {each.name: each.wheel.name for each in resolution}
        assert all(str(each.upload_time) > "2016-01-01T00:00:00Z" for each in resolution)
    amd64, arm64 = found["linux/amd64"], found["linux/arm64"]
    assert amd64.keys() == arm64.keys()
    assert amd64["numpy"].endswith("x86_64.whl")
    assert arm64["numpy"].endswith("aarch64.whl")
    assert amd64["fastapi"] == arm64["fastapi"] == "fastapi-0.83.0-py3-none-any.whl"
    assert amd64["pydantic"].startswith("pydantic-1.")
    assert not {"wget", "jsonify", "google-cloud-storage"} & amd64.keys()


@pytest.mark.network
def test_the_full_closure_names_its_source_distributions(tmp_path: Path) -> None:
    """Which are then built from source (:mod:`tests.test_python_sources`)."""
    indexes, environment = ordinary(tmp_path)
    request = Request((), (), "processing-factory==1.7.2", "full", PYTHON, "linux/amd64")
    fetcher = Fetcher(Store(tmp_path / "store"), Reporter())
    with pytest.raises(NoWheels) as caught:
        resolve(request, indexes, environment, fetcher.pin, Reporter())
    assert set(caught.value.names) <= {"wget", "jsonify"}
    assert " has no wheel for Python 3.13 on linux/amd64 (only a source distribution)" in caught.value.message
    assert NO_WHEEL_HINT == caught.value.hint
