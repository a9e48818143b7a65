"""``diff``: how two locks, projects, plans or images differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from pesto_repro.audit.compare import Held
from pesto_repro.audit.diff import Difference, Download, Side, differences, downloads
from pesto_repro.audit.documents import document_digest
from pesto_repro.audit.verify import travelling_lock
from pesto_repro.cli.console import Console, human, show, show_json
from pesto_repro.cli.locked import Request, find_lock, read
from pesto_repro.cli.options import is_project, talking_command
from pesto_repro.cli.places import read_place
from pesto_repro.cli.push import find
from pesto_repro.cli.registries import Reach, reachable
from pesto_repro.errors import EXIT_FAILURE, LockError, PestoError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.project import read_project
from pesto_repro.registry.reference import RemoteReference

_SHOWN = 200
"""How many differences of one area are named to people; ``--json`` names all."""


@click.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--files", is_flag=True, help="Of images, also the files of layers that are not shared: they are read.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is a difference, as `git diff --exit-code` does.")
@talking_command
def diff(console: Console, as_json: bool, one: str, other: str, files: bool, exit_code: bool) -> int:
    """Say how B differs from A.

    Each is a lock's file, a project (that is: its lock), an archive, a layout or a registry's image; or both are what
    `plan --json` printed.

    \b
    pesto-repro diff old.lock.toml hello-service
    pesto-repro diff registry.example/team/hello-service:1.0.0 dist/hello-service-1.1.0.oci.tar --files
    """
    hosts = [each.host for each in map(_reference, (other, one)) if each is not None]
    with reachable(console, hosts[0] if hosts else None) as registries:
        before, after = _side(one, registries), _side(other, registries)
        found = differences(before, after, files=files)
        fetched = list(downloads(before, after))
    equal = not found and _same(before, after)
    if as_json:
        show_json(
            {
                "equal": equal,
                "a": _identity(before),
                "b": _identity(after),
                "differences": [_json(each) for each in found],
                "downloads": [asdict(each) for each in fetched],
            }
        )
    else:
        for line in _lines(found, fetched, equal):
            show(line)
    return EXIT_FAILURE if exit_code and not equal else 0


def _same(one: Side, other: Side) -> bool:
    """Two images that differ in nothing that is told may still differ in form."""
    return one.image is None or other.image is None or one.image.root.digest == other.image.root.digest


# -- what is meant -----------------------------------------------------------------------------------------------


def _reference(text: str) -> RemoteReference | None:
    """The registry's image that *text* means, if it means one."""
    place = read_place(text) if _is_image(text) else None
    return place if isinstance(place, RemoteReference) else None


def _is_image(text: str) -> bool:
    return not (text.endswith(".toml") or is_project(Path(text)) or _is_json(text))


def _is_json(text: str) -> bool:
    return text.endswith(".json") and Path(text).is_file()


def _side(text: str, registries: Reach) -> Side:
    """What *text* means, read. Raises PestoError."""
    path = Path(text)
    if text.endswith(".toml"):
        return _lock_side(text, _text(path), path)
    if is_project(path):
        where, lock = find_lock(read(Request(path)), Request(path))
        if lock is None:
            raise LockError(f"there is no lock at {where}", f"run `{Request(path).command('lock')}`")
        side = _lock_side(text, lock, where, path)
        return Side(text, "project", side.lock, side.documents)
    if _is_json(text):
        return Side(text, "plan", plan=_plan(text, path))
    found = find(read_place(text), registries)
    image = Held(found.content, found.image)
    lock_with_it = travelling_lock(image)
    return Side(text, "image", lock_with_it.lock if lock_with_it else None, image=image)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read: {error}") from None


def _lock_side(name: str, text: str, where: Path, project: Path | None = None) -> Side:
    """A lock, with those documents of its project that are the ones it was made for."""
    lock = lock_text.loads(text, str(where))
    project = project or _project_of(where.absolute(), lock.input.name)
    documents = _documents(project, lock) if project is not None else {}
    same = {key: each for key, each in documents.items() if lock.input.documents.get(key) == document_digest(each)}
    return Side(name, "lock", lock, same)


def _project_of(lockfile: Path, name: str) -> Path | None:
    """The project around *lockfile*, or that *name* near the pyproject.toml that may say where several keep theirs."""
    for folder in lockfile.parents:
        if is_project(folder):
            return folder
        if (folder / "pyproject.toml").is_file():
            near = (each.parent for depth in ("*", "*/*") for each in sorted(folder.glob(f"{depth}/pesto")))
            return next((each for each in near if _name_of(each) == name), None)
    return None


def _name_of(project: Path) -> str | None:
    try:
        return read_project(project).name
    except PestoError:
        return None


def _documents(project: Path, lock: Lock) -> dict[str, Any]:
    """The documents of *project* as they are now, if it can be read with the lock's profiles."""
    try:
        return dict(read_project(project, lock.input.profiles, lock.input.merge).documents)
    except PestoError:
        return {}  # a project that is broken now: the lock still says which documents it had


def _plan(name: str, path: Path) -> dict[str, Any]:
    wrong = PestoError(f"{name} is not what `plan --json` prints", "write it with `pesto-repro plan PROJECT --json`")
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        steps = [step for each in found["platforms"] for step in each["steps"]]
        whole = all({"section", "name", "step"} <= step.keys() for step in steps)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise wrong from None
    if not whole:
        raise wrong
    return found


# -- how it is told ----------------------------------------------------------------------------------------------


def _identity(side: Side) -> dict[str, Any]:
    image = str(side.image.root.digest) if side.image else None
    return {
        "name": side.name,
        "kind": side.kind,
        "lock": side.lock.content_hash if side.lock else None,
        "digest": image,
    }


def _json(each: Difference) -> dict[str, Any]:
    sizes = {"before_size": each.sizes[0], "after_size": each.sizes[1]}
    named = {"area": each.area, "name": each.name, "platform": each.platform}
    return {**named, "before": each.before, "after": each.after, **sizes}


def _lines(found: Sequence[Difference], fetched: Sequence[Download], equal: bool) -> Iterator[str]:
    """For people: by area, "+" what is new, "-" what is gone, "~" what changed."""
    if equal:
        yield "no difference"
        return
    for area, group in groupby(found, key=lambda each: each.area):
        every = list(group)
        yield area
        yield from (f"  {_line(each)}" for each in every[:_SHOWN])
        if len(every) > _SHOWN:
            yield f"  and {len(every) - _SHOWN} more: see --json"
    if not found:
        yield "the images differ in their form only: in history, compression or the order of layers"
    for each in fetched:
        yield f"download ({each.platform})"
        shared = f"{each.shared} layers, {human(each.shared_bytes)} are shared"
        yield f"  {each.new} layers, {human(each.new_bytes)}; {shared}"


def _line(each: Difference) -> str:
    where = f" ({each.platform})" if each.platform else ""
    size = " -> ".join(human(size) for size in dict.fromkeys(each.sizes) if size is not None)
    size = f"  [{size}]" if size else ""
    if each.before is None:
        return f"+ {each.name} {_short(each.after)}{where}{size}"
    if each.after is None:
        return f"- {each.name} {_short(each.before)}{where}{size}"
    return f"~ {each.name} {_short(each.before)} -> {_short(each.after)}{where}{size}"


def _short(text: str | None) -> str:
    """Digests by their first digits."""
    return " ".join(word[:19] if word.startswith("sha256:") else word for word in (text or "").split(" "))
