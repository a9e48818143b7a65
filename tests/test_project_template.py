"""Upstream's own template project, read unchanged; its documents are as upstream's code makes them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.project import config_json, list_files, read_project, service_json, version_json

pytestmark = pytest.mark.network

# Upstream's loader imports its image converter and a shim for Python 2, neither of which loading needs.
_UPSTREAM = """
import json, logging, sys, types
wheel, root, *profiles = sys.argv[1:]
sys.path.insert(0, wheel)
try:
    import six
except ImportError:
    six = types.ModuleType("six")
    six.iteritems = lambda mapping: iter(mapping.items())
converter = types.ModuleType("pesto.ws.features.converter.image.image")
converter.Image = object
sys.modules |= {"six": six, converter.__name__: converter}
from pesto.cli.core.build_config import BuildConfig
from pesto.cli.core.config_loader import ConfigLoader
build = BuildConfig.from_path(root + "/pesto/build/build.json", profiles)
configs = ConfigLoader.load(build)
names = {"service", "version", "config", "requirements"}
texts = {f.name: json.dumps(c, indent=4, sort_keys=True) for f, c in configs.items() if f.name in names}
print(json.dumps({**texts, "image": build.docker_image_name}))
"""


@pytest.fixture(scope="module")
def unpacked(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's wheel as a folder to import from."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(runtime_wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def definitions(unpacked: Path) -> dict[str, Any]:
    """The native definitions."""
    text = (unpacked / "pesto/cli/resources/schema/definitions.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def _upstream(unpacked: Path, root: Path, profiles: tuple[str, ...]) -> dict[str, str]:
    command = [sys.executable, "-c", _UPSTREAM, str(unpacked), str(root), *profiles]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("profiles", [(), ("stateful",), ("gpu",), ("cpu",), ("gpu", "stateful")])
def test_documents_are_those_of_upstream(
    profiles: tuple[str, ...], template_project: Path, unpacked: Path, definitions: dict[str, Any]
) -> None:
    """service, version and config as upstream's ConfigLoader gives them, and the same reference."""
    project = read_project(template_project, profiles, "deep")
    theirs = _upstream(unpacked, template_project, profiles)
    packaging = json.loads(theirs["version"])["__packaging"]
    assert theirs["service"] == service_json(project.documents, definitions)
    assert theirs["version"] == version_json(project.documents, packaging)
    assert theirs["config"] == config_json(project.documents)
    assert theirs["image"] == str(project.reference)
    assert json.loads(theirs["requirements"])["dockerBaseImage"] == project.docker_base_image


def test_the_template_with_its_profiles(template_project: Path) -> None:
    """It is read unchanged, warned of nothing but the profile that its own Makefile names and it has not."""
    plain, stateful, gpu = (read_project(template_project, each) for each in [(), ("stateful",), ("gpu",)])
    assert ((), (), ()) == (plain.warnings, stateful.warnings, gpu.warnings)
    assert (False, True) == tuple(each.documents["description"]["asynchronous"] for each in (plain, stateful))
    assert plain.docker_base_image == stateful.docker_base_image != gpu.docker_base_image
    assert ("algo-service", ()) == (plain.name, plain.requires)
    expected = 'no file belongs to the profile "cpu": the project has gpu, stateful; did you mean "gpu"?'
    assert (expected,) == read_project(template_project, ("cpu",)).warnings


def test_setup_py_of_the_template_reads_requirements_txt(template_project: Path) -> None:
    """The template's idiom is understood, not only its empty file."""
    (template_project / "requirements.txt").write_text("numpy>=2\n")
    project = read_project(template_project)
    assert (("numpy>=2",), ()) == (project.requires, project.warnings)


def test_files_of_the_template(template_project: Path) -> None:
    """The algorithm and its tests travel; the documents of pesto/api and pesto/build do not."""
    paths = [file.path for file in list_files(read_project(template_project))]
    assert {"setup.py", "algorithm/process.py", "pesto/tests/README.md"} < set(paths)
    assert [] == [path for path in paths if path.startswith(("pesto/api/", "pesto/build/"))]
