"""The Python packages that the project's own files ask for, read without running any of them.

==================== ======================================================================================
requirements.txt     pip's format: comments, continuations, ``-r`` and ``-c``; hashes are left to the lock
pyproject.toml       ``[project] dependencies``; if they are dynamic, the other files say
setup.cfg            ``[options] install_requires``
setup.py             ``install_requires``, where it is a literal or the lines of a requirements file
==================== ======================================================================================

The answer is the union, as PEP 508 text in one spelling. What cannot be read is never guessed:
requirements.txt stands in for it with a warning, or else it is a Problem. Git repositories and folders are what
:mod:`~pesto_repro.project.pyaddress` says of them; every other address is a Problem: a lock names no host. So is an
address with credentials in it: these files are part of the image.
"""

from __future__ import annotations

import ast
import configparser
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pesto_repro.addresses import public, redact, userinfo
from pesto_repro.errors import Problem, ProjectError
from pesto_repro.project.documents import Document, at, dotted, parse_toml
from pesto_repro.project.pyaddress import Address, address_of

Read = Callable[[str], str | None]
"""The text of one of the project's files, by its path relative to the root; None if there is no such file."""
IndexKind = Literal["index-url", "extra-index-url", "find-links", "no-index"]

REQUIREMENTS = "requirements.txt"
PYPROJECT = "pyproject.toml"
UV = "uv.toml"
CREDENTIALS = (
    "carries credentials, which belong neither into a project's files nor into the image: name the address without "
    "them and give them through netrc or UV_INDEX_<NAME>_USERNAME and UV_INDEX_<NAME>_PASSWORD"
)
_UV_PLACES = ("index", "index-url", "extra-index-url", "find-links", "pip")
_UNREADABLE = "cannot be read without running it"
_MEND = 'put the requirements into pesto/build/image.toml: [python] requires = ["..."]'
_FILE = 'is a file: declare it in requirements.json as an entry with "type": "pip"'
_ADDRESS = (
    'names an address, which a lock cannot: bring its wheel or sdist as a "type": "pip" entry of requirements.json, '
    "or name a git repository (git+https://HOST/REPOSITORY@REF)"
)
_SHORT = {
    "-i": "--index-url",
    "-f": "--find-links",
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
}
_SDIST = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")


@dataclass(frozen=True, slots=True, order=True)
class IndexOption:
    """An option of requirements.txt that says where packages are. *value* is "" for ``no-index``.

    It may refer to the environment, ``${NAME}``; a path is relative to the project's root.
    """

    kind: IndexKind
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PythonRequires:
    """*requires* and *constraints* are PEP 508 texts, sorted; *index_options* keep the order of the files."""

    requires: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    index_options: tuple[IndexOption, ...] = ()
    warnings: tuple[str, ...] = ()


def normalised(text: str) -> str:
    """*text*, a PEP 508 requirement, in one spelling. Raises ValueError that says what is wrong.

    >>> normalised("Foo_Bar [b,A] >=2, <3")
    'foo-bar[a,b]<3,>=2'
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'"{redact(text)}" is not a requirement (PEP 508): {redact(reason)}') from None
    if requirement.url is not None:
        return _address(Address.of(requirement), text)
    requirement.name = canonicalize_name(requirement.name)
    requirement.extras = {canonicalize_name(extra) for extra in requirement.extras}
    return str(requirement)


def _address(found: Address | None, text: str) -> str:
    """The one spelling of an address, which *text* names. Raises ValueError if it is none to build from."""
    if found is None:
        raise ValueError(f'"{redact(text)}" {_ADDRESS}')
    if found.kind == "directory" and found.location.endswith((*_SDIST, ".whl")):
        raise ValueError(f'"{redact(text)}" {_FILE}')
    return str(found)


def project_name(text: str) -> str:
    """The normalised name of the project that requirement *text* is about. Raises ValueError."""
    return canonicalize_name(Requirement(normalised(text)).name)


def python_requires(read: Read, more: Iterable[str] = ()) -> PythonRequires:
    """What the project's files and *more* require. Raises ProjectError with every Problem."""
    found = _Found(read)
    found.file(REQUIREMENTS, missing_ok=True)
    found.pyproject()
    found.uv_toml()
    found.setup_cfg()
    found.setup_py()
    if found.problems:
        raise ProjectError(found.problems)
    return PythonRequires(
        tuple(sorted({*found.requires, *more})),
        tuple(sorted(found.constraints)),
        tuple(dict.fromkeys(found.index_options)),
        tuple(found.warnings),
    )


class _Found:
    """Gathers what the files say; one method for each file."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._seen: set[tuple[str, bool]] = set()
        self.requires: set[str] = set()
        self.constraints: set[str] = set()
        self.index_options: list[IndexOption] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []

    def pyproject(self) -> None:
        """``[project]`` of pyproject.toml (PEP 621), and the addresses in ``[tool.uv]``."""
        document = self._toml(PYPROJECT)
        self._uv_places(PYPROJECT, document, ("tool", "uv"))
        dependencies = at(document, "project", "dependencies")
        if isinstance(dependencies, list) and all(isinstance(each, str) for each in dependencies):
            for index, line in enumerate(dependencies):
                self._require(PYPROJECT, f"project.dependencies.{index}", line, self.requires)
        elif dependencies is not None:
            self._problem(PYPROJECT, "project.dependencies", "must be an array of strings")
        elif "dependencies" in _list(at(document, "project", "dynamic")):
            self._dynamic(document)

    def uv_toml(self) -> None:
        """The addresses in uv.toml; what it says of them is read by the command line, as are the user's own."""
        self._uv_places(UV, self._toml(UV), ())

    def _toml(self, file: str) -> Document:
        """The content of *file*; nothing if there is none, or if it cannot be read, which is a Problem."""
        text = self._read(file)
        try:
            return parse_toml(file, text.encode()) if text is not None else {}
        except ProjectError as error:
            self.problems += error.problems
            return {}

    def _uv_places(self, file: str, document: Document, table: tuple[str, ...]) -> None:
        for key in _UV_PLACES:
            for path, text in _texts(at(document, *table, key), (*table, key)):
                if "://" in text and userinfo(text):
                    self._problem(file, dotted(path), f'"{public(text)}" {CREDENTIALS}')

    def _dynamic(self, document: Document) -> None:
        """PEP 621: "dynamic" names what another file or the build backend says."""
        files = at(document, "tool", "setuptools", "dynamic", "dependencies", "file")
        for name in [files] if isinstance(files, str) else _list(files):
            self.file(posixpath.normpath(str(name)), wanted_by=PYPROJECT)
        if not files and not any(self._read(name) is not None for name in (REQUIREMENTS, "setup.py", "setup.cfg")):
            message = f"dependencies are dynamic and cannot be read without building the project; {_MEND}"
            self._problem(PYPROJECT, "project.dynamic", message)

    def setup_cfg(self) -> None:
        """``[options] install_requires`` of setup.cfg: lines, or ``file:`` and names of files."""
        text = self._read("setup.cfg")
        if text is None:
            return
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(text)
        except configparser.Error as error:
            self._problem("setup.cfg", "", f"malformed: {str(error).splitlines()[0]}")
            return
        value = parser.get("options", "install_requires", fallback="")
        if value.strip().startswith("file:"):
            for name in value.strip().removeprefix("file:").split(","):
                self.file(name.strip(), wanted_by="setup.cfg")
            return
        # setuptools, type list-semi: "dangling list or string with semicolon-separated values"
        for line in value.splitlines() if "\n" in value else value.split(";"):
            if line.strip() and not line.strip().startswith("#"):
                self._require("setup.cfg", "options.install_requires", line.strip(), self.requires)

    def setup_py(self) -> None:
        """``install_requires`` of setup.py, through its syntax tree."""
        text = self._read("setup.py")
        if text is None:
            return
        try:
            declared = _SetupPy(ast.parse(text)).declared()
        except (_UnreadableError, SyntaxError, ValueError) as error:
            self._unreadable("setup.py", error.args[0] if isinstance(error, _UnreadableError) else "it is no Python 3")
            return
        for line in declared.requires:
            self._require("setup.py", "install_requires", line, self.requires)
        for name in declared.files:
            self.file(name, wanted_by="setup.py")

    def file(self, name: str, *, constraint: bool = False, missing_ok: bool = False, wanted_by: str = "") -> None:
        """One requirements file and those it includes; a file is read once."""
        if (name, constraint) in self._seen:
            return
        text = None if name.startswith(("../", "/")) else self._read(name)
        if text is None:
            if not missing_ok:
                self._problem(wanted_by, "", f'names "{name}", which is not a file of the project')
            return
        self._seen.add((name, constraint))
        for number, line in _logical_lines(text):
            self._line(name, str(number), line, constraint)

    def _line(self, file: str, place: str, line: str, constraint: bool) -> None:
        if line.startswith("-"):
            self._option(file, place, line, constraint)
        else:
            # pip: per-requirement options follow the requirement, "--hash" among them
            requirement, *options = re.split(r"\s+(?=--)", line)
            for option in options:
                if not option.startswith("--hash"):
                    self._problem(file, place, f'the option "{option.split("=")[0].split()[0]}" is not supported')
            self._require(file, place, requirement, self.constraints if constraint else self.requires)

    def _option(self, file: str, place: str, line: str, constraint: bool) -> None:
        name, value = _option(line)
        if name in ("--requirement", "--constraint") and "://" in value:
            self._problem(file, place, f'names "{public(value)}", which is not a file of the project')
        elif name in ("--requirement", "--constraint"):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file), value))
            self.file(path, constraint=constraint or name == "--constraint", wanted_by=f"{file}:{place}")
        elif name == "--no-index" or (name in ("--index-url", "--extra-index-url", "--find-links") and value):
            self._index_option(file, place, cast(IndexKind, name[2:]), value)
        elif name == "--editable":
            self._require(file, place, value, self.constraints if constraint else self.requires)
        else:
            self._problem(file, place, f'the option "{name}" is not supported')

    def _index_option(self, file: str, place: str, kind: IndexKind, value: str) -> None:
        if "://" in value and _secret(value):
            self._problem(file, place, f'"{public(value)}" {CREDENTIALS}')
        if kind == "find-links" and "://" not in value:
            value = posixpath.normpath(posixpath.join(posixpath.dirname(file), value))
        self.index_options.append(IndexOption(kind, value))

    def _require(self, file: str, place: str, line: str, into: set[str]) -> None:
        try:
            text = _packaged(line)
            if into is self.constraints and address_of(text) is not None:
                raise ValueError(f'"{redact(line)}" is an address, which constrains nothing: require it')
            into.add(text)
        except ValueError as error:
            self._problem(file, place, str(error))

    def _problem(self, file: str, place: str, message: str) -> None:
        self.problems.append(Problem(file, place, message))

    def _unreadable(self, file: str, why: str) -> None:
        if (REQUIREMENTS, False) in self._seen and self._read(REQUIREMENTS) is not None:
            self.warnings.append(f"{file} {_UNREADABLE} ({why}); {REQUIREMENTS} is used instead")
        else:
            self._problem(file, "install_requires", f"{_UNREADABLE} ({why}); {_MEND}")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, line) without comments and continuations, as pip reads them."""
    number, lines = 1, iter(text.splitlines())
    for line in lines:
        start = number
        while line.endswith("\\") and not line.lstrip().startswith("#"):
            line, number = line[:-1] + " " + next(lines, "").strip(), number + 1
        number += 1
        # pip's COMMENT_RE: "#" at the start of the line or after white space
        if stripped := re.sub(r"(^|\s+)#.*$", "", line).strip():
            yield start, stripped


def _option(line: str) -> tuple[str, str]:
    """An option line as (long name, value): ``--name value``, ``--name=value``, ``-n value``, ``-nvalue``."""
    if line.startswith("--"):
        name, value = [*re.split(r"\s*=\s*|\s+", line, maxsplit=1), ""][:2]
    else:
        name, value = line[:2], line[2:].lstrip(" =")
    return _SHORT.get(name, name), value.strip().strip("\"'")


def _secret(address: str) -> str:
    """What *address* itself tells of its credentials.

    pip: "${NAME}" in a requirements file stands for the environment's value, so that no file needs to hold it.
    """
    user, _, password = userinfo(address).partition(":")
    return re.sub(r"\$\{[A-Z0-9_]+\}", "", password or user)


def _texts(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in *value*, which lies at *path*, with its own path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, index))


def _packaged(line: str) -> str:
    """*line* in its one spelling: PEP 508, or an address without a name before it. Raises ValueError."""
    head = re.split(r"[;\[]|\s@", line)[0].strip()
    if re.match(r"[a-z][a-z0-9+.-]*:", head, re.IGNORECASE) or head.startswith(".") or "/" in head:
        return _address(Address.parse(line), line)
    if head.endswith((*_SDIST, ".whl")):
        raise ValueError(f'"{line}" {_FILE}')
    return normalised(line)


@dataclass(frozen=True, slots=True)
class _Declared:
    """What an expression of setup.py stands for: requirements, and files whose lines are requirements."""

    requires: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __add__(self, other: _Declared) -> _Declared:
        return _Declared(self.requires + other.requires, self.files + other.files)


class _UnreadableError(Exception):
    """The expression says nothing without being run; the argument says which."""


class _SetupPy:
    """Reads ``install_requires`` out of the syntax tree of a setup.py. Nothing is ever evaluated."""

    def __init__(self, tree: ast.Module) -> None:
        self._calls = [
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and _last_name(node.func) == "setup"
        ]
        self._bindings: dict[str, list[ast.expr]] = {}
        self._changed: set[str] = set()
        for node in ast.walk(tree):
            self._note(node)

    def declared(self) -> _Declared:
        """Raises _UnreadableError."""
        if len(self._calls) != 1:
            raise _UnreadableError("it has no single call of setup()")
        if any(keyword.arg is None for keyword in self._calls[0].keywords):
            raise _UnreadableError("setup() is called with **")
        values = [keyword.value for keyword in self._calls[0].keywords if keyword.arg == "install_requires"]
        return self._list(values[0]) if values else _Declared()

    def _note(self, node: ast.AST) -> None:
        """Remember what *node* binds a name to, or that it changes what a name stands for."""
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, node.value)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, item.context_expr)
        elif isinstance(node, ast.AugAssign):
            self._changed |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Attribute) and node.attr in _CHANGERS and isinstance(node.value, ast.Name):
            self._changed.add(node.value.id)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bindings.setdefault(target.id, []).append(value)
        else:
            self._changed |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}

    def _value(self, node: ast.expr) -> ast.expr:
        """What *node* stands for, through names that are bound exactly once."""
        for _ in range(10):
            if not isinstance(node, ast.Name):
                return node
            if node.id in self._changed or len(self._bindings.get(node.id, [])) != 1:
                raise _UnreadableError(f'"{node.id}" is not bound exactly once')
            node = self._bindings[node.id][0]
        raise _UnreadableError("names are bound in a circle")

    def _list(self, node: ast.expr) -> _Declared:
        node = self._value(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            return _Declared(tuple(map(self._text, node.elts)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return _Declared(tuple(filter(None, map(str.strip, node.value.splitlines()))))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._list(node.left) + self._list(node.right)
        return _Declared(files=(self._lines(node),))

    def _text(self, node: ast.expr) -> str:
        node = self._value(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise _UnreadableError(f"install_requires holds {ast.unparse(node)}")

    def _lines(self, node: ast.expr) -> str:
        """The requirements file whose lines *node* is."""
        node = self._value(node)
        if isinstance(node, ast.ListComp) and _keeps_lines(node):
            return self._lines(node.generators[0].iter)
        if isinstance(node, ast.Call) and _last_name(node.func) == "list" and len(node.args) == 1:
            return self._lines(node.args[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "readlines":
                return self._opened(node.func.value)
            if node.func.attr in ("splitlines", "split") and _splits_lines(node):
                return self._content(node.func.value)
        return self._opened(node)

    def _content(self, node: ast.expr) -> str:
        """The file whose whole text *node* is."""
        node = self._value(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "strip":
                return self._content(node.func.value)
            if node.func.attr == "read":
                return self._opened(node.func.value)
            if node.func.attr == "read_text":
                return self._path(node.func.value)
        raise _UnreadableError(f"install_requires is {ast.unparse(node)}")

    def _opened(self, node: ast.expr) -> str:
        """The file that *node*, a call of open(), opens."""
        node = self._value(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open":
            return self._path(node.args[0] if _last_name(node.func.value) in ("io", "codecs") else node.func.value)
        if isinstance(node, ast.Call) and _last_name(node.func) == "open" and node.args:
            return self._path(node.args[0])
        raise _UnreadableError(f"install_requires is {ast.unparse(node)}")

    def _path(self, node: ast.expr) -> str:
        """The path that *node* names, relative to the folder of setup.py."""
        node = self._value(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return posixpath.normpath(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and self._is_here(node.left):
            return self._path(node.right)
        if isinstance(node, ast.Call) and _last_name(node.func) == "with_name" and self._is_here(node.func):
            return self._path(node.args[0])
        if isinstance(node, ast.Call) and _last_name(node.func) in ("join", "Path") and node.args:
            first, *rest = node.args
            parts = rest if rest and self._is_here(first) else node.args
            return posixpath.normpath(posixpath.join(*map(self._path, parts)))
        raise _UnreadableError(f"the file is {ast.unparse(node)}")

    def _is_here(self, node: ast.expr) -> bool:
        """Whether *node* is made of ``__file__``, and so is the folder of setup.py."""
        found = self._value(node)
        names = {name.id for name in ast.walk(found) if isinstance(name, ast.Name)}
        return "__file__" in names and ".." not in ast.unparse(found)


_CHANGERS = frozenset({"append", "extend", "insert", "remove", "pop", "clear"})


def _last_name(node: ast.expr) -> str:
    """``setup`` of ``setuptools.setup``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _splits_lines(call: ast.Call) -> bool:
    """Whether *call* is ``.splitlines()`` or ``.split("\\n")``."""
    arguments = [node.value for node in call.args if isinstance(node, ast.Constant)]
    return _last_name(call.func) == "splitlines" or arguments == ["\n"]


def _keeps_lines(node: ast.ListComp) -> bool:
    """Whether *node* is the lines of what it goes through, but for white space, comments and empty ones."""
    if len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name):
        return False
    line = re.escape(node.generators[0].target.id)
    element = rf"{line}(\.r?strip\(\))?"
    comment = rf"\(?not {element}\.startswith\('#'\)\)?"
    condition = rf"{element}|{comment}|{element} and {comment}"
    texts = [(element, node.elt), *((condition, test) for test in node.generators[0].ifs)]
    return all(re.fullmatch(pattern, ast.unparse(part)) for pattern, part in texts)
