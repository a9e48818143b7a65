"""The house keeps its order: who imports whom, who may touch the world, and what no file says."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pypi_simple
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pesto_repro"
TEMPLATE = PACKAGE / "scaffold/template"

# DESIGN: imports point strictly down, that is towards the left of this list.
ROOMS = (
    "errors digest addresses progress oci project lock plan store fetch registry build sandbox source resolve sinks"
    " validate service bundle audit scaffold cli __main__"
).split()
PURE = "errors digest addresses progress oci project lock plan".split()

# What asks the world: the network, other programs, the clock, the machine, chance.
IMPURE = {
    *("socket", "ssl", "http", "urllib.request", "requests", "subprocess", "multiprocessing", "threading"),
    *(
        "time",
        "platform",
        "getpass",
        "pwd",
        "locale",
        "random",
        "secrets",
        "tempfile",
        "shutil",
        "sys",
        "logging",
    ),
}
FILES = {"os", "io.open", "glob"}
FILE_ACTIONS = set(
    "read_text read_bytes write_text write_bytes exists is_file is_dir is_symlink iterdir rglob stat lstat "
    "mkdir unlink touch cwd home readlink".split()
)
"""What touches files is only for the readers. A Path as a value is fine anywhere."""
READERS = {"project.reader"}
CLOCK = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
ENVIRONMENT = {"environ", "getenv", "environb"}

SHARED = {
    "pydantic": "the models of each document that crosses a boundary",
    "packaging": "the words of Python packaging: names, versions, requirements, tags",
    "tomli": "the project's settings and the lock are two rooms' documents",
    "click": "the command line is several modules",
    "cryptography": "keys and signatures are one module's, a service's certificate for TLS another's",
    "requests": "oras is built on it: registries have it beside fetch",
}
"""The libraries that more than one module may import, and why."""


class Module:
    """One module of the package, by what it imports and which attributes it asks for."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.tree = ast.parse(source)

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[str]:
        """Every name imported, in full: ``from a.b import c`` is ``a.b.c``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name} imports relatively"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def attributes(self) -> set[str]:
        """Every attribute asked for: ``c``, and with what it is asked of, ``b.c``, for ``a.b.c``."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)]
        owners = {node: ast.unparse(node.value).rpartition(".")[2] for node in found}
        return {node.attr for node in found} | {f"{owners[node]}.{node.attr}" for node in found}

    def calls(self) -> set[str]:
        """The plain names that are called: ``print``, ``open``."""
        found = (node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return {func.id for func in found if isinstance(func, ast.Name)}


def modules() -> list[Module]:
    paths = sorted(path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(TEMPLATE))
    return [Module(module_name(path), path.read_text(encoding="utf-8")) for path in paths]


def module_name(path: Path) -> str:
    """``build.tar`` for build/tar.py, ``build`` for build/__init__.py; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, roots: set[str]) -> bool:
    """Whether *name* is one of *roots* or below one."""
    return any(name == root or name.startswith(root + ".") for root in roots)


def upward(module: Module) -> list[str]:
    """The imports of *module* that point up. The package itself, with its version, lies below all rooms."""
    own = [name.split(".")[1] for name in module.imports() if name.startswith("pesto_repro.")]
    allowed = {*ROOMS[: ROOMS.index(module.room) + 1], "__version__"}
    return [f"{module.name} imports {room}" for room in own if room not in allowed]


def impure(module: Module) -> list[str]:
    """What *module*, of a pure room, imports or asks for that touches the world."""
    forbidden = IMPURE if module.name in READERS else IMPURE | FILES
    names = [name for name in module.imports() if within(name, forbidden)]
    names += sorted(module.attributes() & CLOCK)
    if module.name not in READERS:
        names += sorted(module.calls() & {"open"}) + sorted(module.attributes() & FILE_ACTIONS)
    return [f"{module.name} uses {name}" for name in names]


def loud(module: Module) -> list[str]:
    """What *module* does that is left to the command line: the environment, printing, exit codes."""
    names = [name for name in module.imports() if name in {f"os.{word}" for word in ENVIRONMENT}]
    names += sorted(module.attributes() & ENVIRONMENT) + sorted(module.calls() & {"print", "exit"})
    return [f"{module.name} uses {name}" for name in names]


def crowds(house: list[Module]) -> list[str]:
    """The libraries that more than one module imports without being allowed to."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for module in house:
        for name in module.imports():
            library = name.partition(".")[0]
            if library != "pesto_repro" and library not in sys.stdlib_module_names:
                users[library].add(module.name)
    crowded = {library for library, who in users.items() if len(who) > 1 and library not in SHARED}
    return [f"{library} is imported by {', '.join(sorted(users[library]))}" for library in sorted(crowded)]


def written() -> Iterator[tuple[str, bytes]]:
    """Every file of the repository that is not made by a tool, with its bytes."""
    made = {
        ".git",
        ".venv",
        "dist",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
    }
    for root, folders, files in os.walk(ROOT):
        folder, folders[:] = Path(root), sorted(set(folders) - made)
        yield from (((folder / name).relative_to(ROOT).as_posix(), (folder / name).read_bytes()) for name in files)


def machine_paths() -> re.Pattern[bytes]:
    """Absolute paths that only some machine has: this one's, and home folders anywhere."""
    own = {str(path) for path in (ROOT, Path.home(), Path(sys.prefix)) if len(path.parts) > 1}
    # The superuser's home is in every image, too.
    names = "|".join(sorted(re.escape(path) for path in own - {"/root", "/usr", "/usr/local", "/nonexistent"}))
    return re.compile(rf"(?<![\w./$-])(?:(?:{names})(?![\w-])|/(?:home|Users)/\w+/)".encode())


def test_every_module_lives_in_a_room() -> None:
    """A new room takes its place in the order first."""
    assert set() == {module.room for module in modules()} - {*ROOMS, ""}


def test_imports_point_down() -> None:
    """No module imports from a room above its own."""
    assert [] == [found for module in modules() if module.name for found in upward(module)]


def test_pure_rooms_ask_the_world_nothing() -> None:
    """No network, no program, no clock, no environment; files only through the readers."""
    assert [] == [found for module in modules() if module.room in PURE for found in impure(module)]


def test_only_the_command_line_reads_the_environment_and_prints() -> None:
    """What the core needs it is given, and what it has to say it tells a Reporter."""
    assert [] == [found for module in modules() if module.room != "cli" for found in loud(module)]


def test_each_library_has_one_importer() -> None:
    """A library can be replaced by changing one module."""
    assert [] == crowds(modules())


def test_no_file_names_a_path_of_a_machine() -> None:
    """Nothing here works on one machine only."""
    pattern = machine_paths()
    assert [] == [(name, found[0]) for name, data in written() if (found := pattern.search(data))]


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the business of whoever builds: no host is written down."""
    index = pypi_simple.PYPI_SIMPLE_ENDPOINT.split("/")[2]
    debian = [".".join((name, "debian", "org")) for name in ("deb", "security", "snapshot", "ftp", "archive")]
    others = [".".join(parts) for parts in (("files", "pythonhosted", "org"), ("registry", "npmjs", "org"))]
    hosts = [host.encode() for host in (index, *debian, *others)]
    assert [] == [(name, host) for name, data in written() for host in hosts if host in data]


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("oci.image", "import pesto_repro.build.tar", ["oci.image imports build"]),
        ("lock.text", "def f():\n    from pesto_repro.plan import Plan", ["lock.text imports plan"]),
        ("plan", "from pesto_repro import store", ["plan imports store"]),
        ("build.tar", "from pesto_repro.oci import Image", []),
    ],
)
def test_the_order_is_really_checked(name: str, source: str, expected: list[str]) -> None:
    """An import that points up is found in each of its forms."""
    assert expected == upward(Module(name, source))


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("plan", "import subprocess", ["plan uses subprocess"]),
        ("plan", "from os import environ", ["plan uses os.environ"]),
        ("plan", "from urllib.request import urlopen", ["plan uses urllib.request.urlopen"]),
        ("plan", "from urllib.parse import urlsplit", []),
        ("lock.model", "import datetime\nx = datetime.datetime.now()", ["lock.model uses datetime.now"]),
        ("lock.model", "from pathlib import Path\nx: Path", []),
        ("lock.model", "def f(p): return p.read_text()", ["lock.model uses read_text"]),
        ("lock.model", "x = open('y')", ["lock.model uses open"]),
        ("project.reader", "def f(p): return p.read_text()", []),
        ("project.reader", "import requests", ["project.reader uses requests"]),
    ],
)
def test_purity_is_really_checked(name: str, source: str, expected: list[str]) -> None:
    """What touches the world is found, in whatever way it is imported."""
    assert expected == impure(Module(name, source))


def test_loudness_is_really_checked() -> None:
    """Both ways to the environment are found, and printing."""
    source = "import os\nfrom os import getenv\nprint(os.environ)"
    expected = ["build uses os.getenv", "build uses environ", "build uses print"]
    assert expected == loud(Module("build", source))


def test_crowds_are_really_found() -> None:
    """Two importers of one library are one too many, unless it is shared."""
    house = [Module(name, "import zstandard.backend\nimport pydantic\nimport json") for name in ("fetch", "resolve")]
    assert ["zstandard is imported by fetch, resolve"] == crowds(house)


@pytest.mark.parametrize("text", ["{root}/x", "see {root}.", '"/ho' + 'me/ada/x"', "/Use" + "rs/ada/x"])
def test_paths_of_machines_are_really_found(text: str) -> None:
    """This machine's folders and anyone's home."""
    assert machine_paths().search(text.format(root=ROOT).encode())


@pytest.mark.parametrize("text", ["https://example.org/ho" + "me/ada/", "/opt/venv", "/etc/pesto", "{root}-other"])
def test_other_paths_are_fine(text: str) -> None:
    """Paths of images, and addresses."""
    assert machine_paths().search(text.format(root=ROOT).encode()) is None
