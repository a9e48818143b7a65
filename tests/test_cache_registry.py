"""The command line with a real registry as its cache: empty runners, poison, silence, secrets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.build.compress import describe
from pesto_repro.cli.cache import VARIABLE
from pesto_repro.digest import Digest
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry.cache import EMPTY, Claim, entry, tag
from pesto_repro.registry.client import Registries
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.validate import validate
from tests.e2e import REPOSITORY, build, run
from tests.judges import judge
from tests.registries import CANARY, LiveRegistry
from tests.registry_proxy import Fault
from tests.small_project import Small, make_small
from tests.test_cache_shared import OTHER_BYTES, Heard

pytestmark = pytest.mark.judge
COMPRESSOR = describe("gzip")
STEPS, TEAM = "team/steps", "team/small"


@pytest.fixture(scope="session")
def made_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked and built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("cached"), runtime_wheel)
    small.build()
    return small


@dataclass
class Runner:
    """A machine with an empty home and an empty store, that has the project and nothing that it is made of."""

    home: Path
    project: Path

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def env(self) -> dict[str, str]:
        nothing = self.home / "no-wheels"
        nothing.mkdir(exist_ok=True)
        return {"HOME": str(self.home), "UV_FIND_LINKS": str(nothing), "UV_NO_INDEX": "1", "XDG_RUNTIME_DIR": ""}

    def build(self, *arguments: str | Path, env: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
        """What ``build --json`` printed, and what it said on stderr."""
        command = ["build", self.project, "--store", self.store, "--json", *arguments]
        done = run(*command, env=self.env | (env or {}), cwd=self.home)
        return json.loads(done.stdout), done.stderr


@pytest.fixture
def runner(made_once: Small, tmp_path: Path) -> Runner:
    """An empty runner."""
    home = tmp_path / "runner"
    home.mkdir()
    return Runner(home, Path(shutil.copytree(made_once.root, home / "small")))


@pytest.fixture
def small(made_once: Small, tmp_path: Path) -> Small:
    """A copy of the small project, locked and built: the machine that fills caches."""
    shutil.copytree(made_once.root.parent, tmp_path / "filler")
    return Small(tmp_path / "filler/small", tmp_path / "filler/store", tmp_path / "filler/wheels")


@pytest.fixture
def warm(small: Small, plain_registry: LiveRegistry, keys: Path) -> LiveRegistry:
    """A registry whose cache has every step of the small project, signed."""
    small.build("--cache", cache(plain_registry), "--cache-write", "--cache-sign", keys / "cache.pem")
    plain_registry.forget()
    return plain_registry


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the pair of keys that the README's commands make."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for arguments in ("genpkey -algorithm ed25519 -out cache.pem", "pkey -in cache.pem -pubout -out cache.pub.pem"):
        subprocess.run([judge("openssl"), *arguments.split()], cwd=folder, check=True)
    (folder / "cache.pem").chmod(0o600)
    return folder


def cache(registry: LiveRegistry) -> str:
    return f"{registry.host}/{STEPS}"


def received(registry: LiveRegistry) -> int:
    """The bytes that the registry gave away since it was last told to forget."""
    return sum(each.received for each in registry.requests())


def layers(built: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["diff_id"], each["digest"]) for platform in built["platforms"] for each in platform["layers"]]


def all_of(built: dict[str, Any], key: str) -> set[Any]:
    return {each[key] for platform in built["platforms"] for each in platform["layers"]}


def skopeo(*arguments: str | Path) -> bytes:
    return subprocess.run([judge("skopeo"), *arguments], check=True, capture_output=True).stdout


# -- empty runners -----------------------------------------------------------------------------------------------------


def test_an_empty_runner_pushes_what_nobody_sends(runner: Runner, warm: LiveRegistry, made_once: Small) -> None:
    """Nothing is made, nothing is fetched, no layer comes down or goes up: each is mounted from the cache."""
    target = f"{warm.host}/{TEAM}:1.0"
    built, said = runner.build("--cache", cache(warm), "--push", target)
    assert (made_once.build()["digest"], {True}) == (built["digest"], all_of(built, "cached"))
    assert {cache(warm)} == all_of(built, "origin")
    expected = {digest for _, digest in layers(built)}
    assert (expected, []) == (set(built["pushed"][0]["mounted"]), built["pushed"][0]["refused_mounts"])
    gets = [each.path for each in warm.requests() if each.method == "GET" and "/blobs/" in each.path]
    assert [] == gets
    assert received(warm) < 100_000
    assert "warning" not in said


def test_what_was_mounted_is_a_whole_image(runner: Runner, warm: LiveRegistry, tmp_path: Path) -> None:
    """skopeo copies it from the registry, and it holds against the image-spec."""
    built, _ = runner.build("--cache", cache(warm), "--push", f"{warm.host}/{TEAM}:1.0")
    source = f"docker://{warm.host}/{TEAM}:1.0"
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", source)
    assert built["digest"] == str(Digest.of(manifest))
    skopeo("copy", "-q", "--src-tls-verify=false", source, f"oci:{tmp_path / 'copied'}")
    validate(tmp_path / "copied")


def test_an_empty_runner_writes_the_same_archive(runner: Runner, warm: LiveRegistry, made_once: Small) -> None:
    """For an archive the layers come down, and afterwards no network is needed to write it again."""
    output = runner.home / "small.oci.tar"
    built, said = runner.build("--cache", cache(warm), "-o", output)
    assert ({True}, True) == (all_of(built, "cached"), "from the cache" in said)
    assert made_once.output.read_bytes() == output.read_bytes()
    output.unlink()
    runner.build("--cache", cache(warm), "-o", output, "--offline")
    assert made_once.output.read_bytes() == output.read_bytes()


def test_a_push_elsewhere_sends_what_comes_from_the_cache(
    runner: Runner, warm: LiveRegistry, htpasswd_registry: LiveRegistry, made_once: Small
) -> None:
    """Nothing can be mounted there, so the layers are brought, verified and sent; still nothing is made."""
    auth = {"REGISTRY_AUTH_FILE": str(htpasswd_registry.auth_file(runner.home / "auth.json"))}
    target = f"{htpasswd_registry.host}/{TEAM}:1.0"
    built, _ = runner.build("--cache", cache(warm), "--push", target, env=auth)
    assert (made_once.build()["digest"], {True}) == (built["digest"], all_of(built, "cached"))
    assert {digest for _, digest in layers(built)} <= set(built["pushed"][0]["uploaded"])


def test_a_refused_mount_is_no_failure(runner: Runner, warm: LiveRegistry, made_once: Small) -> None:
    """The registry would rather be sent the bytes: they come from the cache, and the refusal is visible."""
    location = {"Location": f"http://{warm.host}/v2/{TEAM}/blobs/uploads/none"}
    warm.spoil(Fault("POST", r".*mount=.*", times=10_000, status=202, headers=location))
    built, said = runner.build("--cache", cache(warm), "--push", f"{warm.host}/{TEAM}:1.0")
    assert made_once.build()["digest"] == built["digest"]
    assert {True} == all_of(built, "cached")
    assert {digest for _, digest in layers(built)} <= set(built["pushed"][0]["uploaded"])
    assert "could not be mounted" in said


@pytest.mark.network
@pytest.mark.slow
def test_the_templates_image_on_an_empty_runner(
    locked_template: Path, warm_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """Under 2 MB come down for an image of more than a hundred, and no step is run."""
    ref = cache(plain_registry)
    made = build(locked_template, "--cache", ref, "--cache-write", store=warm_store, output=tmp_path / "made.tar")
    plain_registry.forget()
    runner = Runner(tmp_path / "home", locked_template)
    runner.home.mkdir()
    built, _ = runner.build("--cache", ref, "--push", f"{plain_registry.host}/{TEAM}:1.0")
    assert (made["digest"], {True}) == (built["digest"], all_of(built, "cached"))
    assert received(plain_registry) < 2_000_000 < (tmp_path / "made.tar").stat().st_size / 25
    assert [] == [each for each in plain_registry.requests() if each.method == "GET" and "/blobs/" in each.path]
    assert not list((runner.store / "blobs").glob("sha256/*"))


# -- chosen otherwise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["environment", "pyproject.toml"])
def test_a_cache_need_not_be_said_each_time(runner: Runner, warm: LiveRegistry, keys: Path, how: str) -> None:
    """The environment or the team's pyproject.toml names it, the latter with its key."""
    env = {VARIABLE: cache(warm)} if how == "environment" else {}
    if how == "pyproject.toml":
        shutil.copy(keys / "cache.pub.pem", runner.home)
        table = f'[tool.pesto-repro.cache]\nref = "{cache(warm)}"\nkey = "cache.pub.pem"\n'
        (runner.home / "pyproject.toml").write_text(table)
    built, _ = runner.build("--push", f"{warm.host}/{TEAM}:1.0", env=env)
    assert {cache(warm)} == all_of(built, "origin")


def test_old_scripts_still_run(small: Small) -> None:
    """PESTO's cache policies mean nothing, and that is said."""
    done = run("build", small.root, "--store", small.store, "-c", "C1", "-o", small.output, env=small.env)
    assert "warning: -c/--cache C1 does nothing: what did not change is never built again\n" in done.stderr


def test_two_writers_at_once(runtime_wheel: Path, runner: Runner, plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """Two machines that make the same write the same, at the same time; a third finds it whole."""
    writers = [make_small(tmp_path / name, runtime_wheel) for name in ("one", "two")]
    ref = cache(plain_registry)
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pesto_repro", "build", each.root, "--store", each.store),
                *("-o", each.output, "--cache", ref, "--cache-write"),
            ],
            env={**os.environ, **each.env, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.PIPE,
        )
        for each in writers
    ]
    assert [b"", b""] == [
        b"\n".join(line for line in each.communicate()[1].splitlines() if b"warning" in line) for each in processes
    ]
    built, _ = runner.build("--cache", ref, "--push", f"{plain_registry.host}/{TEAM}:1.0")
    assert {ref} == all_of(built, "origin")


# -- poison ------------------------------------------------------------------------------------------------------------


def poison(registry: LiveRegistry, built: dict[str, Any], how: str) -> None:
    """Replace the entry of the first step by a lie, as anyone may who can push."""
    victim, other = built["platforms"][0]["layers"][:2]
    repository = Registries(registry.access(), Heard()).repository(RemoteReference.parse(cache(registry)))
    layer = Descriptor.of(MediaType.LAYER_GZIP, OTHER_BYTES)
    repository.push_blob(layer, lambda: BytesIO(OTHER_BYTES))
    diff_id = victim["diff_id"]
    if how != "other bytes":
        layer = Descriptor(MediaType.LAYER_GZIP, Digest.parse(other["digest"]), other["size"])
    if how == "another step":
        diff_id = other["diff_id"]
    claim = Claim(Digest.parse(victim["step"]), COMPRESSOR, Digest.parse(diff_id), layer)
    repository.push_manifest(tag(claim.step, COMPRESSOR), entry(claim))


LIES = ("other bytes", "bytes of another step", "another step")


@pytest.mark.parametrize("how", LIES)
def test_poison_with_a_key(runner: Runner, warm: LiveRegistry, made_once: Small, keys: Path, how: str) -> None:
    """No mode looks at it: the step is made here, and the image is right. (Its inputs are the project's own.)"""
    right = made_once.build()
    poison(warm, right, how)
    arguments = ("--cache", cache(warm), "--cache-key", keys / "cache.pub.pem")
    ignored = f"warning: an entry of the cache {cache(warm)} ignored: it is not signed\n"
    for sink in (("--push", f"{warm.host}/{TEAM}:1.0"), ("-o", runner.home / "small.oci.tar")):
        shutil.rmtree(runner.store, ignore_errors=True)
        built, said = runner.build(*arguments, *sink)
        assert "unsigned" not in said
        assert (right["digest"], True) == (built["digest"], ignored in said)
    assert made_once.output.read_bytes() == (runner.home / "small.oci.tar").read_bytes()


@pytest.mark.parametrize("how", LIES[:2])
def test_poison_without_a_key_in_an_archive(runner: Runner, warm: LiveRegistry, made_once: Small, how: str) -> None:
    """The bytes come down, so it is found."""
    right = made_once.build()
    poison(warm, right, how)
    built, said = runner.build("--cache", cache(warm), "-o", runner.home / "small.oci.tar")
    assert right["digest"] == built["digest"]
    assert "its diff_id is sha256:" in said
    assert made_once.output.read_bytes() == (runner.home / "small.oci.tar").read_bytes()


@pytest.mark.parametrize("how", LIES)
def test_poison_without_a_key_where_nothing_is_seen(
    runner: Runner, warm: LiveRegistry, made_once: Small, how: str
) -> None:
    """What the README says is not claimed: a mounted layer is believed. The build says that it believes."""
    poison(warm, made_once.build(), how)
    built, said = runner.build("--cache", cache(warm), "--push", f"{warm.host}/{TEAM}:1.0")
    assert made_once.build()["digest"] != built["digest"]
    assert f"the cache {cache(warm)} is believed unsigned: no --cache-key was given\n" in said


# -- dead, silent ------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_dead_cache(small: Small, kind: str, request: pytest.FixtureRequest) -> None:
    """One warning, one local build, the right image."""
    host = request.getfixturevalue(kind)
    expected = small.build()["digest"]
    shutil.rmtree(small.store)
    command: list[str | Path] = [
        "build",
        small.root,
        "--store",
        small.store,
        "-o",
        small.output,
        "--cache",
        f"{host}/{STEPS}",
    ]
    done = run(*command, "--cache-write", env=small.env)
    assert expected in done.stdout
    assert 1 == done.stderr.count("warning: ")
    assert f"warning: the cache {host}/{STEPS} is left alone: " in done.stderr


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET|HEAD", ".*/manifests/.*", times=10_000, silent=True),
        Fault("GET", ".*/manifests/.*", times=10_000, status=500),
        Fault("GET", ".*/manifests/.*", times=10_000, alter=lambda body: body.replace(b"step", b"stop")),
        Fault("GET", ".*/blobs/.*", times=10_000, silent=True),
        Fault("GET", ".*/blobs/.*", times=10_000, alter=lambda body: b"x" * len(body)),
        Fault("GET", ".*/blobs/.*", times=10_000, status=404),
        Fault("GET", ".*/blobs/.*", times=10_000, status=429, headers={"Retry-After": "3600"}),
    ],
)
def test_a_cache_that_fails_half_way(small: Small, warm: LiveRegistry, fault: Fault) -> None:
    """It costs a warning, never a failure and never another image."""
    expected = small.output.read_bytes()
    small.output.unlink()
    shutil.rmtree(small.store)
    warm.spoil(fault)
    small_build(small, "--cache", cache(warm))
    assert expected == small.output.read_bytes()


def small_build(small: Small, *arguments: str | Path) -> None:
    """Build; there must be one warning."""
    command = ["build", small.root, "--store", small.store, "-o", small.output, *arguments]
    done = run(*command, env=small.env)
    assert 1 == done.stderr.count("warning: "), done.stderr


def test_a_registry_that_takes_nothing(small: Small, plain_registry: LiveRegistry) -> None:
    """Writing fails, the build does not."""
    plain_registry.spoil(Fault("POST|PUT", ".*", times=10_000, status=403))
    expected = small.output.read_bytes()
    small_build(small, "--cache", cache(plain_registry), "--cache-write")
    assert expected == small.output.read_bytes()


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["htpasswd_registry", "token_registry"])
def test_a_password_is_seen_nowhere(
    small: Small, runner: Runner, keys: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Not in what is said at ``-vv``, the stores, the archive or the cache; nor is the private key."""
    registry: LiveRegistry = request.getfixturevalue(kind)
    auth = {"REGISTRY_AUTH_FILE": str(registry.auth_file(keys / "auth.json"))}
    key = ("--cache-sign", keys / "cache.pem", "--cache-key", keys / "cache.pub.pem")
    where = ("--cache", cache(registry), "-vv")
    filled = run(
        *("build", small.root, "--store", small.store, "-o", small.output, *where, "--cache-write", *key),
        env=small.env | auth,
    )
    built, said = runner.build(*where, *key[2:], "--push", f"{registry.host}/{TEAM}:1.0", env=auth)
    assert {cache(registry)} == all_of(built, "origin")
    talk = [filled.stdout, filled.stderr, json.dumps(built), said]
    folders = [small.root, small.store, runner.home, registry.folder]
    secrets = [CANARY, *secret_lines(keys / "auth.json", '"auth": "'), *secret_lines(keys / "cache.pem", "")]
    assert [] == [secret for secret in secrets for text in talk if secret in text]
    assert [] == [path for path in everything(folders) if any(each.encode() in path.read_bytes() for each in secrets)]
    assert "warning" not in said


def secret_lines(path: Path, before: str) -> Sequence[str]:
    """What must not be seen of a file: the words after *before*; of a PEM file the line between the dashes."""
    text = path.read_text()
    if before:
        return [text.partition(before)[2].partition('"')[0]]
    return [line for line in text.splitlines() if line and not line.startswith("-")]


def everything(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_the_cache_is_readable_by_others(warm: LiveRegistry) -> None:
    """skopeo lists the entries, and reads one as the artifact that it is."""
    source = f"docker://{cache(warm)}"
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", source))["Tags"]
    assert all(each.startswith("step-") for each in tags)
    found = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"{source}:{tags[0]}"))
    assert ("application/vnd.pesto-repro.step.v1", EMPTY.document()) == (found["artifactType"], found["config"])
