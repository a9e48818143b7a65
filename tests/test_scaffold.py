"""``init``: the project it makes, the names it takes, what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pesto_repro.errors import PestoError
from pesto_repro.scaffold import PLACEHOLDER, TEMPLATE, create

EXAMPLE = Path(__file__).parent.parent / "examples/hello-service"


def content(root: Path) -> dict[str, bytes]:
    """Every file below *root*, by its path."""
    found = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def document(root: Path, name: str, *profiles: str) -> dict[str, object]:
    """A document of the project, updated at its root by each profile."""
    files = [root / f"{name}.json", *(root / f"{name}.{profile}.json" for profile in profiles)]
    merged: dict[str, object] = {}
    for file in files:
        merged |= json.loads(file.read_text(encoding="utf-8"))
    return merged


def test_the_example_is_what_init_makes(tmp_path: Path) -> None:
    """examples/hello-service is exactly the project that init makes under that name."""
    create(tmp_path / "hello-service")
    assert content(EXAMPLE) == content(tmp_path / "hello-service")


def test_it_says_which_files_it_wrote(tmp_path: Path) -> None:
    """The answer is every file of the project, sorted, and nothing else is left behind."""
    target = tmp_path / "deep/er/hello"
    written = create(target)
    assert sorted(written) == written
    assert {target / name for name in content(target)} == set(written)
    tops = {"algorithm", "pesto", ".dockerignore", "README.md", "requirements.txt", "setup.py"}
    assert tops == {path.name for path in target.iterdir()}


def test_the_project_has_every_file_of_pesto_s_layout(tmp_path: Path) -> None:
    """Nothing that PESTO reads is missing."""
    create(tmp_path / "x")
    api = "config config_schema description input_schema output_schema user_definitions version".split()
    expected = {
        *(f"pesto/api/{name}.json" for name in api),
        "pesto/api/config.p1.json",
        "pesto/api/config.p2.json",
        "pesto/api/description.stateful.json",
        "pesto/build/build.json",
        "pesto/build/image.toml",
        "pesto/build/requirements.json",
        "pesto/tests/resources/expected_describe.json",
        "algorithm/__init__.py",
        "algorithm/input_output.py",
        "algorithm/process.py",
        ".dockerignore",
    }
    assert set() == expected - content(tmp_path / "x").keys()


def test_the_name_is_the_folder_s_unless_given(tmp_path: Path) -> None:
    """The name stands wherever the template has its placeholder, and the placeholder nowhere."""
    create(tmp_path / "one")
    create(tmp_path / "two", "three.x")
    for target, name in (("one", "one"), ("two", "three.x")):
        assert name == document(tmp_path / target, "pesto/build/build")["name"]
        assert name == document(tmp_path / target, "pesto/api/description")["name"]
        assert [] == [path for path, data in content(tmp_path / target).items() if PLACEHOLDER in data]


def test_the_folder_one_is_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``init .`` takes the name of the current folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    create(Path())
    assert "here" == document(here, "pesto/build/build")["name"]


@pytest.mark.parametrize("profiles", [(), ("p1",), ("p2",), ("p1", "p2"), ("p2", "p1"), ("stateful",)])
def test_every_profile_s_configuration_fits_its_schema(profiles: tuple[str, ...]) -> None:
    """The service could start with each combination of profiles."""
    known = [p for p in profiles if (EXAMPLE / f"pesto/api/config.{p}.json").exists()]
    config = document(EXAMPLE, "pesto/api/config", *known)
    jsonschema.validate(config, document(EXAMPLE, "pesto/api/config_schema"))


def test_the_profiles_are_those_of_the_documentation() -> None:
    """p1 then p2 keeps what only the base or p1 has, and takes from p2 what both have."""
    assert {
        "greeting": "Good evening",
        "mark": "!",
        "prefix": "[P1]",
        "suffix": "[P2]",
    } == document(EXAMPLE, "pesto/api/config", "p1", "p2")


@pytest.mark.parametrize("name", ["Upper", "a b", "-a", "a-", "a..b", "", "ü", "a/b", "..", "x" * 256])
def test_a_name_that_no_image_may_have_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written, and the message says which names are good."""
    with pytest.raises(PestoError) as caught:
        create(tmp_path / "target", name)
    assert (
        f'"{name}" cannot be the name of a service: lower-case letters and digits, separated by single ".", '
        '"_", "__" or dashes'
    ) == caught.value.message
    assert "say another one with --name, for example --name my-service" == caught.value.hint
    assert not (tmp_path / "target").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    """A project is never written over what is there."""
    target = tmp_path / "full"
    target.mkdir()
    (target / "README.md").write_text("mine")
    with pytest.raises(PestoError) as caught:
        create(target)
    assert f"{target} is not empty" == caught.value.message
    assert "name a folder that is empty or does not exist yet" == caught.value.hint
    assert {"README.md": b"mine"} == content(target)


def test_a_target_that_cannot_be_a_folder(tmp_path: Path) -> None:
    """The operating system's reason is passed on."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PestoError) as caught:
        create(tmp_path / "file")
    assert f"cannot write the project to {tmp_path / 'file'}: File exists" == caught.value.message


def test_the_template_is_a_project_that_python_can_read() -> None:
    """Installers compile every module they find, so the template's are Python as they stand."""
    for path in TEMPLATE.rglob("*.py"):
        compile(path.read_bytes(), path, "exec")
