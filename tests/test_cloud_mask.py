"""examples/cloud-mask: what was committed is what its scripts make, and its parts fit together."""

from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples/cloud-mask"


def script(name: str) -> ModuleType:
    """The example's script *name*, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("which", ["full", "fast"])
def test_the_models_are_those_that_the_script_makes(which: str) -> None:
    """The archives' bytes depend on no machine and no compressor."""
    made = script("make_models")
    committed = EXAMPLE / f"models/{which}.tar.gz"
    assert made.archive({"full": made.FULL, "fast": made.FAST}[which]) == committed.read_bytes()


@pytest.mark.parametrize("which", ["full", "fast"])
def test_the_models_are_ordinary_archives(which: str) -> None:
    """The hand-made gzip envelope is one that others read."""
    with tarfile.open(EXAMPLE / f"models/{which}.tar.gz", "r:gz") as archive:
        member = archive.extractfile("model.json")
        assert member is not None
        assert which == json.load(member)["name"]


@pytest.mark.parametrize("name", ["requirements", "requirements.fast"])
def test_each_model_asked_for_is_there(name: str) -> None:
    """Every resource of requirements.json is a file of the example."""
    declared = json.loads((EXAMPLE / f"pesto/build/{name}.json").read_text())["requirements"]
    assert [] == [
        key for key, entry in declared.items() if not (EXAMPLE / entry["from"].removeprefix("file://")).is_file()
    ]


def test_the_configuration_fits_its_schema() -> None:
    """The service can start."""
    api = EXAMPLE / "pesto/api"
    schema = json.loads((api / "config_schema.json").read_text())
    jsonschema.validate(json.loads((api / "config.json").read_text()), schema)
