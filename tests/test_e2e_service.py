"""From a project to a service that answers: what podman runs is judged by upstream's own ServiceTester."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import add_settings, build, example, lock_and_build, update_json
from tests.engine import loaded, named_for_itself, running

pytestmark = [pytest.mark.network, pytest.mark.judge, pytest.mark.slow]

SAME = {"NoDifference": True}
TESTER = Path(__file__).with_name("upstream_tester.py")
UID = "65532"

Serve = Callable[..., dict[str, Any]]


@pytest.fixture
def serve(tester: Path, warm_store: Path, tmp_path: Path) -> Serve:
    """``serve(project, *arguments)``: lock, build, load, run; what upstream says, and what is so inside."""

    def served(project: Path, *arguments: str) -> dict[str, Any]:
        archive = tmp_path / "image.tar"
        chosen = named_for_itself(project)
        made = lock_and_build(chosen, *arguments, store=warm_store, output=archive)
        resources = project / "pesto/tests/resources"
        with loaded(archive) as name, running(name, [resources]) as container:
            assert f"localhost/{made['reference']}" == name
            environment = {"PATH": os.defpath, "PYTHONPATH": str(tester), "HOME": str(tmp_path)}
            with tempfile.TemporaryDirectory() as empty:
                command = (sys.executable, "-S", TESTER, resources)
                said = container.beside(*command, env=environment, cwd=Path(empty))
            inside = container.execute("python", "-c", INSIDE)
        archive.unlink()
        return {"said": json.loads(said), **json.loads(inside)}

    return served


INSIDE = """
import json, os, sys
from pesto.common.pesto import Pesto
from pesto.version import PESTO_VERSION
with open("/proc/1/status") as status:
    uid = next(line.split()[1] for line in status if line.startswith("Uid:"))
with open("/proc/1/cmdline") as command:
    words = command.read().split(chr(0))
print(json.dumps({"uid": uid, "prefix": sys.prefix, "profile": Pesto.get_profile(), "command": words[1],
    "environment": dict(os.environ)}))
"""


@pytest.mark.parametrize("debian", ["trixie", "bookworm"])
def test_upstream_s_template_serves_as_upstream_expects(template: Path, serve: Serve, debian: str) -> None:
    """With nothing but an image.toml added it runs, not as root, and upstream finds no difference."""
    add_settings(template, f'[base]\ndebian = "{debian}"\n')
    found = serve(template)
    assert {"describe": SAME, "test_1": SAME, "test_2": SAME} == found["said"]
    assert UID == found["uid"]
    assert "/opt/venv" == found["prefix"]
    assert "/opt/venv/bin/processing" == found["command"]
    assert "" == found["profile"]


def test_upstream_s_template_is_stateful_when_its_profile_says_so(template: Path, serve: Serve) -> None:
    """Its profile changes two values of the description, and that is what the service tells."""
    found = serve(template, "-p", "stateful")
    profile = json.loads((template / "pesto/api/description.stateful.json").read_text())
    before = json.loads((template / "pesto/api/description.json").read_text())
    assert {"asynchronous", "description"} == set(profile)
    changed = {key: {"actual": value, "expected": before[key]} for key, value in profile.items()}
    assert {"describe": {"KeysNotEqual": changed}, "test_1": SAME, "test_2": SAME} == found["said"]
    assert "stateful" == found["profile"]
    assert UID == found["uid"]


GREETINGS = {
    "p1 p2": (
        "[P1] Good evening, world! [P2]",
        "[P1] Good evening, Ada and Grace! Good evening, Ada and Grace! [P2]",
    ),
    "p2 p1": (
        "[P1] Good morning, world! [P2]",
        "[P1] Good morning, Ada and Grace! Good morning, Ada and Grace! [P2]",
    ),
}


def unequal(**pairs: tuple[Any, Any]) -> dict[str, Any]:
    """Upstream's words for values that are not the expected ones: key=(actual, expected)."""
    return {"KeysNotEqual": {key: {"actual": a, "expected": b} for key, (a, b) in pairs.items()}}


def test_the_hello_service_serves_as_its_own_tests_say(tmp_path: Path, serve: Serve) -> None:
    """What `init` makes passes the tests that it comes with."""
    found = serve(example("hello-service", tmp_path))
    assert {"describe": SAME, "test_1": SAME, "test_2": SAME} == found["said"]
    assert UID == found["uid"]
    assert "" == found["profile"]


@pytest.mark.parametrize("profiles", GREETINGS)
def test_the_hello_service_greets_as_its_profiles_say(tmp_path: Path, serve: Serve, profiles: str) -> None:
    """The later profile wins in the configuration; Pesto.get_profile() names both."""
    found = serve(example("hello-service", tmp_path), "-p", *profiles.split())
    joined = profiles.replace(" ", "-")
    first, second = GREETINGS[profiles]
    twice = "Hello, Ada and Grace! Hello, Ada and Grace!"
    expected = {
        "describe": SAME,
        "test_1": unequal(greeting=(first, "Hello, world!"), profile=(joined, "default")),
        "test_2": unequal(greeting=(second, twice), profile=(joined, "default")),
    }
    assert expected == found["said"]
    assert joined == found["profile"]


def test_the_hello_service_answers_with_jobs_when_stateful(tmp_path: Path, serve: Serve) -> None:
    """The results of its jobs are those expected, but for the profile that it tells of."""
    found = serve(example("hello-service", tmp_path), "-p", "stateful")
    assert {"asynchronous", "description"} == set(found["said"]["describe"].pop("KeysNotEqual"))
    told = unequal(profile=("stateful", "default"))
    assert {"describe": {}, "test_1": told, "test_2": told} == found["said"]


def test_cloud_mask_serves_as_its_own_tests_say(tmp_path: Path, serve: Serve) -> None:
    """The masks are equal to the byte; the model was unpacked where the environment says."""
    found = serve(example("cloud-mask", tmp_path))
    assert {"describe": SAME, "test_1": SAME, "test_2": SAME} == found["said"]
    assert UID == found["uid"]
    assert "/opt/models/cloud-mask/model.json" == found["environment"]["CLOUD_MASK_MODEL"]
    assert "1" == found["environment"]["OMP_NUM_THREADS"]


def test_cloud_mask_s_profile_changes_the_model_and_the_packages(tmp_path: Path, serve: Serve) -> None:
    """Another archive, another package, other variables; the masks stay those expected."""
    found = serve(example("cloud-mask", tmp_path), "-p", "fast")
    described = found["said"].pop("describe")["KeysNotEqual"]
    assert {"description", "resources"} == set(described)
    assert unequal(cpu=(4, 1)) == described["resources"]
    told = unequal(model=("fast", "full"))
    assert {"test_1": told, "test_2": told} == found["said"]
    assert "4" == found["environment"]["NUMEXPR_MAX_THREADS"]
    assert "fast" == found["profile"]


# -- profiles, as PESTO's documentation tells of them --

CASCADE = {
    "": {"base": "default", "field_0": "default"},
    "p1": {"field_0": "profile P1", "field_1": "profile P1"},
    "p2": {"field_0": "profile P2", "field_2": "profile P2"},
}
MERGED = {
    "": CASCADE[""],
    "p1": {"base": "default", "field_0": "profile P1", "field_1": "profile P1"},
    "p1 p2": {
        "base": "default",
        "field_0": "profile P2",
        "field_1": "profile P1",
        "field_2": "profile P2",
    },
    "p2 p1": {
        "base": "default",
        "field_0": "profile P1",
        "field_1": "profile P1",
        "field_2": "profile P2",
    },
}


def documented(project: Path) -> Path:
    """Make *project*'s documents those of the documentation's examples."""
    api = project / "pesto/api"
    (api / "config_schema.json").write_text('{"type": "object"}')
    for name in ("config", "version"):
        for profile, values in CASCADE.items():
            (api / ".".join(filter(None, (name, profile, "json")))).write_text(json.dumps(values))
    update_json(api / "description.json", key="value", key2="value2")
    update_json(api / "description.p1.json", key="value3")
    return project


def configuration(layout: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The JSON documents in the /etc/pesto of the image in *layout*, as ``build`` reported it in *made*."""
    layers = made["platforms"][0]["layers"]
    digest = next(layer["digest"] for layer in layers if layer["kind"] == "documents")
    content = gzip.decompress((layout / "blobs" / digest.replace(":", "/")).read_bytes())
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as layer:
        for member in layer:
            path = Path(member.name)
            if path.match("etc/pesto/*.json"):
                stream = layer.extractfile(member)
                assert stream is not None
                found[path.stem] = json.load(stream)
    return found


def environment(layout: Path, made: dict[str, Any]) -> dict[str, str]:
    """The variables that the image in *layout* sets."""
    digest = made["platforms"][0]["config"]
    config = json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())
    return dict(each.split("=", 1) for each in config["config"]["Env"])


def test_profiles_merge_as_the_documentation_says(template: Path, warm_store: Path, tmp_path: Path) -> None:
    """Its examples, in both orders; each order is another image with another tag."""
    documented(template)
    digests = {}
    for profiles, expected in MERGED.items():
        words = ["-p", *profiles.split()] if profiles else []
        layout = tmp_path / "layout"
        made = lock_and_build(template, *words, store=warm_store, output=f"oci:{layout}")
        found = configuration(layout, made)
        assert {"config", "service", "version"} == set(found)
        assert expected == found["config"]
        assert found["version"].pop("__packaging")
        assert {"version": "1.0.0.dev0", **expected} == found["version"]
        assert ("value3" if "p1" in profiles else "value") == found["service"]["key"]
        assert "value2" == found["service"]["key2"]
        joined = profiles.replace(" ", "-")
        assert joined == environment(layout, made)["PESTO_PROFILE"]
        tag = "-".join(filter(None, ("1.0.0.dev0", joined)))
        assert f"algo-service:{tag}" == made["reference"]
        digests[profiles] = made["digest"]
        shutil.rmtree(layout)
    assert len(MERGED) == len(set(digests.values()))


def test_build_json_names_the_image_and_nothing_else(locked_template: Path, warm_store: Path, tmp_path: Path) -> None:
    """Another name, another version, another build file: other references, one digest, no new lock."""
    names = [("algo-service", "1.0.0.dev0"), ("other", "1.0.0.dev0"), ("algo-service", "2.0")]
    original = build(locked_template, store=warm_store, output=tmp_path / "image.tar")
    found = {original["reference"]: original["digest"]}
    for name, version in names[1:]:
        update_json(locked_template / "pesto/build/build.json", name=name, version=version)
        made = build(locked_template, store=warm_store, output=tmp_path / "image.tar")
        found[made["reference"]] = made["digest"]
    another = locked_template / "pesto/build/build.p2.json"
    update_json(another, name="chosen", version="3")
    made = build(another, store=warm_store, output=tmp_path / "image.tar")
    found[made["reference"]] = made["digest"]
    expected = [f"{name}:{version}" for name, version in names] + ["chosen:3"]
    assert dict.fromkeys(expected, original["digest"]) == found
