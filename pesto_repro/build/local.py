"""The project's own files as inputs: hashed when the build starts, held to what was hashed when it ends."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pesto_repro.build.seen import Seen, Signature
from pesto_repro.digest import Digest, hash_stream
from pesto_repro.errors import BuildError
from pesto_repro.plan import Tree, TreeFile
from pesto_repro.project import ProjectFile
from pesto_repro.project.files import resolve


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine whose bytes had a digest when it had this *signature*."""

    path: Path
    signature: Signature

    def require_unchanged(self) -> None:
        """Raises BuildError if the file is not the one that was hashed."""
        if _signature(self.path).of_content != self.signature.of_content:
            raise BuildError(f"{self.path} changed while it was being built", "run the build again")


LocalFiles = Mapping[Digest, LocalFile]


def hash_file(path: Path, seen: Seen | None = None) -> tuple[Digest, int, LocalFile]:
    """Digest and size in bytes of *path*, from *seen* if it is known. Raises BuildError if it cannot be read."""
    seen = seen or Seen()
    signature = _signature(path)
    digest = seen.find(path, signature)
    if digest is None:
        try:
            with path.open("rb") as stream:
                digest, _ = hash_stream(stream)
        except OSError as error:
            raise BuildError(f"{path} cannot be read: {error.strerror}") from None
        if _signature(path) == signature:
            seen.add(path, signature, digest)
    return digest, signature.size, LocalFile(path, signature)


def hash_tree(files: Iterable[ProjectFile], seen: Seen | None = None) -> tuple[Tree, dict[Digest, LocalFile]]:
    """What decides a layer of *files*, and where the bytes of each digest lie."""
    tree: list[TreeFile] = []
    found: dict[Digest, LocalFile] = {}
    for each in files:
        if each.target is not None or each.path.endswith("/"):
            tree.append(TreeFile(each.path, target=each.target))
            continue
        digest, size, local = hash_file(each.source, seen)
        found[digest] = local
        tree.append(TreeFile(each.path, digest.hex, size, each.executable))
    return tuple(sorted(tree, key=lambda each: each.path)), found


def list_folder(folder: Path) -> tuple[ProjectFile, ...]:
    """Every file, link and empty directory (its path ends in "/") below *folder*.

    Raises BuildError for what cannot be read or cannot be in an image.
    """
    try:
        found = tuple(_walk(folder, ""))
    except OSError as error:
        raise BuildError(f"{error.filename} cannot be read: {error.strerror}") from None
    links = {each.path: each.target for each in found if each.target is not None}
    for each in found:
        if each.target is not None:
            _require_inside(each, links)
    return found


def _walk(folder: Path, above: str) -> Iterator[ProjectFile]:
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    if above and not entries:
        yield ProjectFile(above, False, 0, folder)
    for entry in entries:
        yield from _found(entry, above + entry.name)


def _found(entry: os.DirEntry[str], name: str) -> Iterator[ProjectFile]:
    path = Path(entry.path)
    _require_utf8(entry.name, "a name", path)
    if entry.is_symlink():
        target = str(path.readlink())
        _require_utf8(target, "a target", path)
        yield ProjectFile(name, False, 0, path, target)
    elif entry.is_dir():
        yield from _walk(path, f"{name}/")
    elif entry.is_file():
        found = entry.stat()
        yield ProjectFile(name, bool(found.st_mode & 0o100), found.st_size, path)
    else:
        raise BuildError(f"{path} is neither a file nor a directory", "take it out of the folder")


def _require_utf8(text: str, what: str, path: Path) -> None:
    """Image tools disagree on other names."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BuildError(f"{str(path)!r} has {what} that is not UTF-8", "give it another one") from None


def _require_inside(link: ProjectFile, links: Mapping[str, str]) -> None:
    """*link* stays below the folder, also where it leads through other *links*."""
    target = link.target or ""
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), target))
    hint = "replace the link by what it means"
    if target.startswith("/") or reached.split("/")[0] == "..":
        raise BuildError(f"{link.source} is a link to {target}, outside its folder", hint)
    if resolve(link.path, links) is None:
        raise BuildError(f"{link.source} is a link to {target}, by other links outside its folder or in a circle", hint)


def _signature(path: Path) -> Signature:
    try:
        return Signature.of(path)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from None
