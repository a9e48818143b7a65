"""From a folder to a Project: all problems at once, profiles, the project's own files, the lock's place."""

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.errors import ProjectError
from pesto_repro.project import Project, list_files, lock_path, read_project

_API: dict[str, Any] = {
    "description": {
        "title": "t",
        "name": "algo",
        "version": "1.0",
        "description": "d",
        "family": "f",
        "organization": "o",
        "email": "e",
        "asynchronous": False,
        "resources": {"cpu": 4, "gpu": 0},
    },
    "input_schema": {"image": {"$ref": "#/definitions/Image"}, "required": ["image"]},
    "output_schema": {"text": {"type": "string"}},
    "config_schema": {"type": "object", "properties": {"zoom": {"maximum": 17}}},
    "config": {"zoom": 16},
    "version": {},
}
_FILES: dict[str, Any] = {
    **{f"pesto/api/{name}.json": document for name, document in _API.items()},
    "pesto/build/build.json": {"name": "algo-image", "version": "1.0.0"},
    "pesto/build/requirements.json": {
        "dockerBaseImage": "python:3.13",
        "environments": {},
        "requirements": {},
    },
    "requirements.txt": "numpy\n",
    "algorithm/process.py": "pass\n",
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a small project with the files given beside or instead of its own; None leaves one out."""

    def write(files: Mapping[str, Any] | None = None, folder: str = "project") -> Path:
        root = tmp_path / folder
        for name, content in {**_FILES, **(files or {})}.items():
            if content is not None:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else _text(content).encode())
        return root

    return write


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _message(action: Callable[[], object]) -> str:
    with pytest.raises(ProjectError) as caught:
        action()
    return str(caught.value)


def _paths(project: Project) -> list[str]:
    return [file.path for file in list_files(project)]


def test_a_small_project(make: Make) -> None:
    """Every value comes from its file, and nothing is warned of."""
    root = make()
    project = read_project(root)
    assert ("algo", "algo-image:1.0.0") == (project.name, str(project.reference))
    assert (root, (), "root", ()) == (project.root, project.profiles, project.merge, project.warnings)
    assert _API == project.documents
    assert ("python:3.13", ("numpy",)) == (project.docker_base_image, project.requires)
    assert ("linux/amd64",) == project.settings.image.platforms


def test_profiles_apply_in_order(make: Make) -> None:
    """To api documents, requirements.json and image.toml; the other order is another project."""
    root = make(
        {
            "pesto/api/config.p1.json": {"zoom": 1},
            "pesto/api/config.p2.json": {"zoom": 2},
            "pesto/build/requirements.p1.json": {"environments": {"A": "1"}},
            "pesto/build/image.p2.toml": '[base]\ndebian = "trixie"',
            "pesto/api/user_definitions.p1.json": {"Mine": {}},
        }
    )
    one, other = read_project(root, ("p1", "p2")), read_project(root, ["p2", "p1"])
    assert ({"zoom": 2}, {"zoom": 1}) == (one.documents["config"], other.documents["config"])
    assert ("1.0.0-p1-p2", "1.0.0-p2-p1") == (one.reference.tag, other.reference.tag)
    assert ({"A": "1"}, "trixie", {"Mine": {}}) == (
        one.environments,
        one.settings.base.debian,
        one.documents["user_definitions"],
    )
    assert () == one.warnings


def test_merge_policies(make: Make) -> None:
    """Root by default; deep by argument or image.toml, the argument first; where they differ is told."""
    profile = {"pesto/api/description.p1.json": {"resources": {"gpu": 1}}}
    root = make(profile)
    by_root, by_deep = read_project(root, ["p1"]), read_project(root, ["p1"], "deep")
    assert {"gpu": 1} == by_root.documents["description"]["resources"]
    assert {"cpu": 4, "gpu": 1} == by_deep.documents["description"]["resources"]
    told = "would give other values for pesto/api/description.json: resources.cpu"
    assert (f'profiles are merged by the policy "root"; "deep" {told}',) == by_root.warnings
    assert (f'profiles are merged by the policy "deep"; "root" {told}',) == by_deep.warnings
    deep = make({**profile, "pesto/build/image.toml": '[profiles]\nmerge = "deep"'}, "deep")
    assert ["deep", "root"] == [read_project(deep, ["p1"]).merge, read_project(deep, ["p1"], "root").merge]


def test_a_profile_that_touches_no_file(make: Make) -> None:
    """A warning with the profiles that there are, and a suggestion for a slip of the pen."""
    root = make({"pesto/api/config.gpu.json": {}, "pesto/build/image.stateful.toml": ""})
    assert ('no file belongs to the profile "xx": the project has gpu, stateful',) == read_project(
        root, ["xx"]
    ).warnings
    expected = 'no file belongs to the profile "statefull": the project has gpu, stateful; did you mean "stateful"?'
    assert (expected,) == read_project(root, ["gpu", "statefull"]).warnings
    none = make(folder="none")
    assert ('no file belongs to the profile "cpu": the project has no profiles',) == read_project(
        none, ["cpu"]
    ).warnings


def test_a_profile_cannot_name_another_folder(make: Make) -> None:
    """A profile is part of a file's name, in which "." separates: "p1.p2" is not to have the lock of p1 and p2."""
    root = make({"pesto/api/config.p1.p2.json": {}, "pesto/api/config.p3.json": {}})
    assert (
        "the project has 2 problems:\n"
        '  -p: "../x" is not a profile: letters, digits, "_" and "-"\n'
        '  -p: "p1.p2" is not a profile: letters, digits, "_" and "-"'
    ) == _message(lambda: read_project(root, ["p1", "../x", "p1.p2"]))
    assert ('no file belongs to the profile "x": the project has p3',) == read_project(root, ["x"]).warnings


def test_another_build_json(make: Make) -> None:
    """PROJECT may be a build*.json: it changes the reference and nothing else."""
    root = make({"pesto/build/build.p2.json": {"name": "other", "version": "2", "workspace": "x", "use_ssl": False}})
    one, other = read_project(root), read_project(root / "pesto/build/build.p2.json")
    assert "other:2" == str(other.reference)
    assert (one.root, one.documents, one.settings) == (other.root, other.documents, other.settings)


def test_algorithm_path(make: Make) -> None:
    """null is the project itself; a path is relative to the project's root."""
    build = {"name": "algo-image", "version": "1.0.0"}
    make({"pesto/build/build.json": {**build, "algorithm_path": None}})
    elsewhere = make({"pesto/build/build.json": {**build, "algorithm_path": "../project"}}, "elsewhere")
    assert elsewhere.parent / "project" == read_project(elsewhere).root
    gone = make({"pesto/build/build.json": {**build, "algorithm_path": "gone"}}, "gone")
    expected = 'the project has a problem:\n  pesto/build/build.json:algorithm_path: "gone" is not a folder'
    assert expected == _message(lambda: read_project(gone))


def test_all_problems_of_all_files_at_once(make: Make) -> None:
    """One run tells everything, each with file and place, sorted."""
    root = make(
        {
            "pesto/api/config.json": {"zoom": 18},
            "pesto/api/input_schema.json": {"a": {"$ref": "#/definitions/Imgae"}},
            "pesto/api/output_schema.json": b'{"a": {},\n}',
            "pesto/api/description.p1.json": {"title": 3},
            "pesto/api/version.json": None,
            "pesto/build/build.json": {"name": "Algo", "versio": "1"},
            "pesto/build/image.toml": "[layers]\nmax = 0",
            "pesto/build/image.p1.toml": '[profiles]\nmerge = "deep"',
            "pesto/build/requirements.json": {"environments": {}, "requirements": {"m": {"from": "x"}}},
            "requirements.txt": "-e .",
        }
    )
    assert (
        "the project has 12 problems:\n"
        "  pesto/api/config.json:zoom: 18 is greater than the maximum of 17\n"
        "  pesto/api/description.p1.json:title: must be a string, not a number\n"
        '  pesto/api/input_schema.json:a.$ref: "#/definitions/Imgae" leads nowhere; did you mean "Image"?\n'
        "  pesto/api/output_schema.json:2:1: malformed JSON: expecting property name enclosed in "
        "double quotes\n"
        "  pesto/api/version.json: is required and missing\n"
        '  pesto/build/build.json: "version" is required\n'
        '  pesto/build/build.json:versio: unknown key; did you mean "version"?\n'
        "  pesto/build/image.p1.toml:profiles: only image.toml itself may say how profiles are "
        "merged, not a profile of it\n"
        "  pesto/build/image.toml:layers.max: input should be greater than or equal to 1, not 0\n"
        '  pesto/build/requirements.json: "dockerBaseImage" is required, unless image.toml names a [base]\n'
        '  pesto/build/requirements.json:requirements.m: "to" is required, unless type is "pip"\n'
        '  requirements.txt:1: "." is the project itself, whose files are in the image anyway: leave it out'
    ) == _message(lambda: read_project(root, ["p1"]))


def test_unreadable_definitions_do_not_make_references_wrong(make: Make) -> None:
    """One slip, one problem."""
    root = make(
        {
            "pesto/api/user_definitions.json": b"{",
            "pesto/api/input_schema.json": {"a": {"$ref": "#/definitions/Mine"}},
        }
    )
    assert (
        "the project has a problem:\n  pesto/api/user_definitions.json:1:2: malformed JSON: "
        "expecting property name enclosed in double quotes"
    ) == _message(lambda: read_project(root))


def test_what_is_no_project(make: Make, tmp_path: Path) -> None:
    """The path itself is told."""
    root = make({"pesto/build/build.json": None})
    head = "the project has a problem:\n  "
    assert f"{head}{tmp_path}/gone: does not exist" == _message(lambda: read_project(tmp_path / "gone"))
    other = f"{root}/pesto/build/requirements.json"
    assert f"{head}{other}: is neither a folder nor a pesto/build/build*.json" == _message(
        lambda: read_project(Path(other))
    )
    assert f"{head}pesto/build/build.json: is required and missing" == _message(lambda: read_project(root))
    (tmp_path / "empty").mkdir()
    assert (
        "the project has 2 problems:\n"
        f"  pesto: is not a folder in {tmp_path}/empty: no PESTO project\n"
        "  pesto/build/build.json: is required and missing"
    ) == _message(lambda: read_project(tmp_path / "empty"))


def test_base_stands_in_for_the_base_image(make: Make) -> None:
    """With [base] debian, requirements.json needs no dockerBaseImage."""
    root = make(
        {
            "pesto/build/requirements.json": {"environments": {}, "requirements": {}},
            "pesto/build/image.toml": '[base]\ndebian = "trixie"\n[python]\nrequires = ["SciPy"]',
        }
    )
    project = read_project(root)
    assert (None, ("numpy", "scipy"), ()) == (project.docker_base_image, project.requires, project.warnings)


def test_own_files(make: Make) -> None:
    """Sorted by parts, with executable bit and size; without secrets and what .dockerignore names."""
    root = make(
        {
            ".dockerignore": "*.md\n",
            "README.md": "x",
            ".env": "secret",
            "uv.toml": "",
            "algorithm/pip.conf": "secret",
            ".netrc": "secret",
            "run.sh": "#!",
            "algorithm-x/a": "",
            ".venv/pyvenv.cfg": "",
            ".venv/lib/x": "",
            "dist/x.tar": "",
        }
    )
    (root / "run.sh").chmod(0o700)
    files = list_files(read_project(root))
    assert [
        ("algorithm/process.py", False, 5, None),
        ("algorithm-x/a", False, 0, None),
        ("requirements.txt", False, 6, None),
        ("run.sh", True, 2, None),
    ] == [(file.path, file.executable, file.size, file.target) for file in files]
    assert [root / file.path for file in files] == [file.source for file in files]


def test_own_files_do_not_depend_on_the_order_of_a_folder(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.scandir's order is the file system's affair."""
    project = read_project(make({"a/b": "", "c": "", "a-b": ""}))
    expected = list_files(project)
    scandir = os.scandir
    monkeypatch.setattr("pesto_repro.project.reader.os.scandir", lambda path: reversed(list(scandir(path))))
    assert expected == list_files(project)


def test_symlinks(make: Make) -> None:
    """Those that stay inside are kept, relative; what they lead to is not followed."""
    root = make()
    (root / "link").symlink_to("algorithm")
    (root / "algorithm/absolute").symlink_to(root / "requirements.txt")
    (root / "dangling").symlink_to("algorithm/gone")
    files = list_files(read_project(root))
    assert {
        "link": "algorithm",
        "algorithm/absolute": "../requirements.txt",
        "dangling": "algorithm/gone",
    } == {file.path: file.target for file in files if file.target is not None}
    assert [] == [file.path for file in files if file.path.startswith("link/")]


def test_files_that_cannot_travel(make: Make, tmp_path: Path) -> None:
    """Symlinks that leave the project, sockets, names that are no text: all told."""
    root = make()
    (root / "out").symlink_to("../x")
    (root / "etc").symlink_to("/etc/passwd")
    (root / "ignored.md").symlink_to("/etc/passwd")
    (root / ".dockerignore").write_text("*.md")
    (root / os.fsdecode(b"caf\xe9")).touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "sock"))
    project = read_project(root)
    assert (
        "the project has 4 problems:\n"
        "  caf\\udce9: its name is not UTF-8\n"
        '  etc: is a symlink to "/etc/passwd", which is not in the project\n'
        '  out: is a symlink to "../x", which is not in the project\n'
        "  sock: is neither a file nor a folder nor a symlink"
    ) == _message(lambda: list_files(project))


def test_where_the_lock_is(make: Make, tmp_path: Path) -> None:
    """In the project, unless an enclosing pyproject.toml or the user says otherwise."""
    root = make(folder="examples/one")
    project = read_project(root, ["p2", "p1"])
    name = "algo.p2.p1.lock.toml"
    assert root / "lockfiles" / name == lock_path(project)
    assert Path("x.toml") == lock_path(project, Path("x.toml"))
    (tmp_path / "pyproject.toml").write_text('[tool.pesto-repro]\nlockfiles = "locks"')
    (root / "pyproject.toml").write_text("[project]\n")
    assert tmp_path / "locks" / name == lock_path(project)
    (root / "pyproject.toml").write_text('[tool.pesto-repro]\nlockfiles = "own/locks"')
    assert root / "own/locks" / name == lock_path(project)


def test_a_lock_in_the_project_is_not_in_the_image(make: Make) -> None:
    """Wherever it is: else locking would change what was locked."""
    pyproject = '[tool.pesto-repro]\nlockfiles = "own/locks"'
    root = make({"pyproject.toml": pyproject, "own/locks/algo.lock.toml": "", "own/x": "", "lockfiles/y": ""})
    assert ["algorithm/process.py", "own/x", "pyproject.toml", "requirements.txt"] == _paths(read_project(root))


def test_lockfiles_must_be_a_folder_s_name(make: Make, tmp_path: Path) -> None:
    """The enclosing pyproject.toml is checked as well."""
    project = read_project(make())
    (tmp_path / "pyproject.toml").write_text("[tool.pesto-repro]\nlockfiles = 1")
    assert (
        f"the project has a problem:\n  {tmp_path}/pyproject.toml:tool.pesto-repro.lockfiles: "
        f"must "
        f"be a string, not a number"
    ) == _message(lambda: lock_path(project))
