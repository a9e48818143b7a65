"""The one module of this room that touches files: a folder becomes a Project, or all its Problems at once.

Everything is decided by the pure modules beside it. Nothing is written, nothing is run, and the order in
which a folder lists its files does not matter.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pesto_repro.errors import Problem, ProjectError
from pesto_repro.project import files
from pesto_repro.project.documents import (
    Document,
    at,
    decode,
    did_you_mean,
    dotted,
    kind,
    parse_json,
    parse_toml,
)
from pesto_repro.project.model import Project, ProjectFile
from pesto_repro.project.profiles import Layers, Merge, cascade, differences, origin
from pesto_repro.project.pyrequires import PythonRequires, python_requires
from pesto_repro.project.reference import Reference, reference
from pesto_repro.project.requirements import Requirements, layout_path, requirements
from pesto_repro.project.settings import Settings, settings

_API = "pesto/api"
_BUILD = "pesto/build"
_IMAGE_TOML = f"{_BUILD}/image.toml"
_DOCUMENTS = {
    "description": True,
    "input_schema": True,
    "output_schema": True,
    "user_definitions": False,
    "config_schema": True,
    "config": True,
    "version": True,
}
"""The documents of pesto/api, and whether each is required."""
_BUILD_KEYS = ("name", "version", "algorithm_path", "workspace", "use_ssl")
# No ".": it is what separates profiles in the name of a lock.
_PROFILE = re.compile(r"[A-Za-z0-9_-]+")


def read_project(
    path: Path, profiles: Sequence[str] = (), merge: Merge | None = None, *, checked: bool = False
) -> Project:
    """The project at *path*, its root or one of its pesto/build/build*.json, with *profiles* in this order.

    *merge*: the policy, instead of what image.toml says. *checked*: what the documents say was found to be right
    before, and is not looked at again unless something else is wrong. Raises ProjectError with the Problems of all
    files.
    """
    if checked:
        with contextlib.suppress(ProjectError):
            return _read(path, profiles, merge, checked=True)
    return _read(path, profiles, merge, checked=False)


def _read(path: Path, profiles: Sequence[str], merge: Merge | None, *, checked: bool) -> Project:
    build, root = _locate(path)
    _check_profiles(profiles)
    reading = _Reading(root, tuple(profiles), checked)
    with reading.gathering():
        build, root = _root(build, root)
        reading.root = root
    if not (root / "pesto").is_dir():
        raise ProjectError([*reading.problems, Problem("pesto", "", f"is not a folder in {root}: no PESTO project")])
    return reading.project(build, merge)


def list_files(project: Project) -> tuple[ProjectFile, ...]:
    """The project's own files that go into the image, sorted by path parts. Raises ProjectError."""
    never = (*_own_lockfiles(project), *_own_base(project))
    found = {entry.path: entry for entry in _walk(project.root, "", never)}
    chosen = [found[path] for path in files.select(found, _dockerignore(project.root), never)]
    links = {path: _relative(project.root, each) for path, each in found.items() if each.target is not None}
    problems = [problem for entry in chosen for problem in _file_problems(entry, links)]
    if problems:
        raise ProjectError(problems)
    return tuple(_with_target(entry, links.get(entry.path)) for entry in chosen)


def lock_path(project: Project, explicit: Path | None = None) -> Path:
    """Where the project's lock is: *explicit*, or a file of its name in the folder for lockfiles.

    That folder is the one that the nearest enclosing pyproject.toml with ``[tool.pesto-repro] lockfiles``
    names, else ``lockfiles`` in the project. Raises ProjectError if such a pyproject.toml cannot be read.
    """
    if explicit is not None:
        return explicit
    return _lock_folder(project.root) / ".".join([project.name, *project.profiles, "lock", "toml"])


@dataclass(frozen=True, slots=True)
class _Cascade:
    """One file with its profiles: *document* is what they make together."""

    layers: Layers
    document: Document


class _Gathering:
    """A context that swallows a ProjectError and keeps its Problems."""

    def __init__(self, into: list[Problem]) -> None:
        self._into = into

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, ProjectError):
            return False
        self._into += error.problems
        return True


class _Reading:
    """One reading of one project: gathers Problems and warnings while the files are gone through."""

    def __init__(self, root: Path, profiles: tuple[str, ...], checked: bool) -> None:
        self.root = root
        self._checked = checked
        self.problems: list[Problem] = []
        self._profiles = profiles
        self._touched: set[str] = set()
        self._differences: list[str] = []

    def gathering(self) -> _Gathering:
        """Problems raised inside are kept for later."""
        return _Gathering(self.problems)

    def project(self, build: Path, merge: Merge | None) -> Project:
        """Raises ProjectError with everything that is wrong."""
        image = self._layers(_IMAGE_TOML)
        policy: Merge = merge or _policy(image)
        chosen = self._settings(image, policy)
        documents = self._documents(policy)
        required = self._requirements(policy, base_is_given=_names_base(image))
        named = self._reference(build)
        python = self._python(chosen)
        name = documents.get("description", {}).get("name")
        if not isinstance(name, str):
            raise ProjectError(self.problems)
        if self.problems or chosen is None or required is None or named is None or python is None:
            raise ProjectError(self.problems)
        return Project(
            root=self.root,
            name=name,
            reference=named,
            profiles=self._profiles,
            merge=policy,
            documents=documents,
            settings=chosen,
            requires=python.requires,
            constraints=python.constraints,
            index_options=python.index_options,
            resources=required.resources,
            environments=required.environments,
            docker_base_image=required.docker_base_image,
            warnings=(*python.warnings, *self._warnings(policy)),
        )

    def _settings(self, layers: Layers, merge: Merge) -> Settings | None:
        with self.gathering():
            for file, document in layers[1:]:
                if "profiles" in document:
                    message = "only image.toml itself may say how profiles are merged, not a profile of it"
                    self.problems.append(Problem(file, "profiles", message))
            return settings(self._cascade(layers, merge), layers, merge)
        return None

    def _documents(self, merge: Merge) -> Mapping[str, Document]:
        """The documents of pesto/api that could be read, checked against each other."""
        found: dict[str, _Cascade] = {}
        for name, is_required in _DOCUMENTS.items():
            before = len(self.problems)
            layers = self._layers(f"{_API}/{name}.json", required=is_required)
            if layers and len(self.problems) == before:
                found[name] = _Cascade(layers, self._cascade(layers, merge))
        if not self._checked:
            self._check(found, merge)
        return {name: each.document for name, each in found.items()}

    def _check(self, found: Mapping[str, _Cascade], merge: Merge) -> None:
        from pesto_repro.project import checks  # imported late: it takes long

        documents = {name: each.document for name, each in found.items()}
        has_definitions = (self.root / _API / "user_definitions.json").is_file()
        for name, path, message in checks.problems(_checkable(documents, has_definitions)):
            file = origin(found[name].layers, path, merge)
            self.problems.append(Problem(file, dotted(path), message))

    def _requirements(self, merge: Merge, *, base_is_given: bool) -> Requirements | None:
        before = len(self.problems)
        layers = self._layers(f"{_BUILD}/requirements.json", required=True)
        if len(self.problems) > before:
            return None
        with self.gathering():
            return requirements(self._cascade(layers, merge), layers, merge, base_is_given=base_is_given)
        return None

    def _reference(self, build: Path) -> Reference | None:
        file = _display(build, self.root)
        if not build.is_file():
            return None  # _root has told
        with self.gathering():
            document = parse_json(file, _bytes(file, build))
            problems = [*_build_problems(file, document)]
            if problems:
                raise ProjectError(problems)
            return reference(file, document["name"], document["version"], self._profiles)
        return None

    def _python(self, chosen: Settings | None) -> PythonRequires | None:
        with self.gathering():
            return python_requires(self._text, chosen.python.requires if chosen else ())
        return None

    def _text(self, file: str) -> str | None:
        path = self.root / file
        return decode(file, _bytes(file, path)) if path.is_file() else None

    def _layers(self, file: str, *, required: bool = False) -> list[tuple[str, Document]]:
        """*file* and those of its profiles that exist, parsed; one that cannot be is a Problem."""
        stem, suffix = file.rsplit(".", 1)
        layers: list[tuple[str, Document]] = []
        parse = parse_toml if suffix == "toml" else parse_json
        for profile in ("", *self._profiles):
            name = f"{stem}.{profile}.{suffix}" if profile else file
            if (self.root / name).is_file():
                self._touched.add(profile)
                with self.gathering():
                    layers.append((name, parse(name, _bytes(name, self.root / name))))
            elif required and not profile:
                self.problems.append(Problem(file, "", "is required and missing"))
        return layers

    def _cascade(self, layers: Layers, merge: Merge) -> Document:
        documents = [document for _, document in layers]
        self._differences += [f"{layers[0][0]}: {key}" for key in differences(documents)]
        return cascade(documents, merge)

    def _warnings(self, merge: Merge) -> Iterator[str]:
        known = self._known_profiles()
        for profile in dict.fromkeys(self._profiles):
            if profile not in self._touched:
                there = f"the project has {', '.join(known)}" if known else "the project has no profiles"
                yield f'no file belongs to the profile "{profile}": {there}{did_you_mean(profile, known)}'
        if self._differences:
            other = "deep" if merge == "root" else "root"
            yield (
                f'profiles are merged by the policy "{merge}"; "{other}" would give other values for '
                f"{', '.join(self._differences)}"
            )

    def _known_profiles(self) -> list[str]:
        """The profiles that the names of files tell."""
        stems = {_API: (".json", tuple(_DOCUMENTS)), _BUILD: (".json", ("requirements",))}
        found = {profile for folder, (suffix, names) in stems.items() for profile in self._scan(folder, suffix, names)}
        return sorted(found | set(self._scan(_BUILD, ".toml", ("image",))))

    def _scan(self, folder: str, suffix: str, stems: Sequence[str]) -> Iterator[str]:
        for path in (self.root / folder).iterdir():
            stem, _, profile = path.name.removesuffix(suffix).partition(".")
            if path.name.endswith(suffix) and stem in stems and _PROFILE.fullmatch(profile):
                yield profile


def _checkable(documents: Mapping[str, Document], has_definitions: bool) -> Mapping[str, Document]:
    """*documents* without those that refer to definitions which are there but cannot be read."""
    if "user_definitions" in documents or not has_definitions:
        return documents
    return {name: each for name, each in documents.items() if name not in ("input_schema", "output_schema")}


def _check_profiles(profiles: Sequence[str]) -> None:
    """Raises ProjectError for a name that no file can have."""
    bad = [profile for profile in profiles if not _PROFILE.fullmatch(profile)]
    if bad:
        message = 'is not a profile: letters, digits, "_" and "-"'
        raise ProjectError(Problem("-p", "", f'"{profile}" {message}') for profile in bad)


def _locate(path: Path) -> tuple[Path, Path]:
    """(build.json, the folder above its pesto/build) of *path*, what the user named."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  # links in it stay as the user named them
    if path.is_dir():
        return path / _BUILD / "build.json", path
    if path.is_file() and path.match("pesto/build/build*.json"):
        return path, path.parents[2]
    message = "is neither a folder nor a pesto/build/build*.json" if path.exists() else "does not exist"
    raise ProjectError([Problem(str(path), "", message)])


def _root(build: Path, root: Path) -> tuple[Path, Path]:
    """(build.json, the root): elsewhere if build.json's ``algorithm_path`` says so. Raises ProjectError."""
    file = build.relative_to(root).as_posix()
    if not build.is_file():
        raise ProjectError([Problem(file, "", "is required and missing")])
    elsewhere = parse_json(file, _bytes(file, build)).get("algorithm_path")
    if not isinstance(elsewhere, str) or not elsewhere:
        return build, root
    moved = Path(os.path.normpath(root / elsewhere))
    if not moved.is_dir():
        raise ProjectError([Problem(file, "algorithm_path", f'"{elsewhere}" is not a folder')])
    return build, moved


def _bytes(file: str, path: Path) -> bytes:
    """The content of *path*, which messages call *file*. Raises ProjectError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProjectError([Problem(file, "", f"cannot be read: {error.strerror}")]) from None


def _display(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _build_problems(file: str, document: Document) -> Iterator[Problem]:
    for key in document:
        if key not in _BUILD_KEYS:
            yield Problem(file, dotted((key,)), f"unknown key{did_you_mean(key, _BUILD_KEYS)}")
    for key in ("name", "version"):
        if key not in document:
            yield Problem(file, "", f'"{key}" is required')
        elif not isinstance(document[key], str):
            yield Problem(file, key, f"must be a string, not {kind(document[key])}")
    if not isinstance(document.get("algorithm_path"), (str, type(None))):
        yield Problem(file, "algorithm_path", f"must be a string or null, not {kind(document['algorithm_path'])}")


def _policy(image: Layers) -> Merge:
    """``[profiles] merge`` of image.toml itself; what is no policy is a Problem of the settings."""
    base = next((document for file, document in image if file == _IMAGE_TOML), {})
    return "deep" if at(base, "profiles", "merge") == "deep" else "root"


def _names_base(image: Layers) -> bool:
    """Whether any of image.toml's files names a Debian base: even if another of its keys is wrong."""
    return any(at(document, "base", "debian") is not None for _, document in image)


def _dockerignore(root: Path) -> str:
    file = root / files.DOCKERIGNORE
    return decode(files.DOCKERIGNORE, _bytes(files.DOCKERIGNORE, file)) if file.is_file() else ""


def _walk(root: Path, folder: str, also: Sequence[str]) -> Iterator[ProjectFile]:
    """Every file and symlink below *folder*, but for folders that never travel."""
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        raise ProjectError([Problem(folder, "", f"cannot be read: {error.strerror}")]) from None
    if folder and any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if files.never(path, also):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path, also)
        else:
            yield _project_file(path, entry)


def _project_file(path: str, entry: os.DirEntry[str]) -> ProjectFile:
    state, source = entry.stat(follow_symlinks=False), Path(entry.path)
    if stat.S_ISLNK(state.st_mode):
        return ProjectFile(path, False, 0, source, source.readlink().as_posix())
    # A size that no file has marks what is none: a socket, a device.
    size = state.st_size if stat.S_ISREG(state.st_mode) else -1
    return ProjectFile(path, bool(state.st_mode & stat.S_IXUSR), size, source)


def _file_problems(entry: ProjectFile, links: Mapping[str, str]) -> Iterator[Problem]:
    shown = entry.path.encode(errors="backslashreplace").decode()
    if shown != entry.path:
        yield Problem(shown, "", "its name is not UTF-8")
    if entry.size < 0:
        yield Problem(shown, "", "is neither a file nor a folder nor a symlink")
    if entry.target is not None and files.resolve(entry.path, links) is None:
        yield Problem(shown, "", f'is a symlink to "{entry.target}", which is not in the project')


def _relative(root: Path, link: ProjectFile) -> str:
    """*link*'s target, relative to its folder where it is an absolute path within *root*."""
    target = Path(link.target or "")
    if target.is_absolute() and target.is_relative_to(root):
        return Path(os.path.relpath(target, (root / link.path).parent)).as_posix()
    return target.as_posix()


def _with_target(entry: ProjectFile, target: str | None) -> ProjectFile:
    return entry if target is None else ProjectFile(entry.path, False, 0, entry.source, target)


def _own_base(project: Project) -> Iterator[str]:
    """A base image that lies among the project's files: the image stands on it, and has it not inside."""
    path = layout_path(project.docker_base_image or "")
    if path is not None and not path.startswith("/"):
        yield posixpath.normpath(path)


def _own_lockfiles(project: Project) -> tuple[str, ...]:
    """The folder of lockfiles, if inside the project: a lock must not change the image that it locks."""
    folder = _lock_folder(project.root)
    inside = folder.is_relative_to(project.root) and folder != project.root
    return (folder.relative_to(project.root).as_posix(),) if inside else ()


def _lock_folder(root: Path) -> Path:
    for folder in (root, *root.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            name = _display(file, root)
            value = at(parse_toml(name, _bytes(name, file)), "tool", "pesto-repro", "lockfiles")
            if value is not None:
                return _named_folder(file, value)
    return root / "lockfiles"


def _named_folder(file: Path, value: object) -> Path:
    if not isinstance(value, str):
        message = f"must be a string, not {kind(value)}"
        raise ProjectError([Problem(file.as_posix(), "tool.pesto-repro.lockfiles", message)])
    return Path(os.path.normpath(file.parent / value))
