"""The project's own files as inputs: hashed when the build starts, held to what was hashed when it ends."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pesto_repro.digest import Digest, hash_stream
from pesto_repro.errors import BuildError
from pesto_repro.plan import Tree, TreeFile
from pesto_repro.project import ProjectFile

Signature = tuple[int, int, int]
"""Size, mtime and inode: equal before and after, the content is what was hashed."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine whose bytes had a digest when it had this *signature*."""

    path: Path
    signature: Signature

    def require_unchanged(self) -> None:
        """Raises BuildError if the file is not the one that was hashed."""
        if _signature(self.path) != self.signature:
            raise BuildError(f"{self.path} changed while it was being built", "run the build again")


LocalFiles = Mapping[Digest, LocalFile]


def hash_file(path: Path) -> tuple[Digest, int, LocalFile]:
    """Digest and size in bytes of *path*. Raises BuildError if it cannot be read."""
    try:
        signature = _signature(path)
        with path.open("rb") as stream:
            digest, size = hash_stream(stream)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from None
    return digest, size, LocalFile(path, signature)


def hash_tree(files: Iterable[ProjectFile]) -> tuple[Tree, dict[Digest, LocalFile]]:
    """What decides a layer of *files*, and where the bytes of each digest lie."""
    tree: list[TreeFile] = []
    found: dict[Digest, LocalFile] = {}
    for each in files:
        if each.target is not None:
            tree.append(TreeFile(each.path, target=each.target))
            continue
        digest, size, local = hash_file(each.source)
        found[digest] = local
        tree.append(TreeFile(each.path, digest.hex, size, each.executable))
    return tuple(sorted(tree, key=lambda each: each.path)), found


def list_folder(folder: Path) -> Iterator[ProjectFile]:
    """Every file and link below *folder*. Raises BuildError for what cannot be in an image."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            target = str(path.readlink())
            _require_inside(name, target, path)
            yield ProjectFile(name, False, 0, path, target)
        elif path.is_file():
            found = path.stat()
            yield ProjectFile(name, bool(found.st_mode & 0o100), found.st_size, path)
        elif not path.is_dir():
            raise BuildError(f"{path} is neither a file nor a directory", "take it out of the folder")


def _require_inside(name: str, target: str, path: Path) -> None:
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or reached.split("/")[0] == "..":
        raise BuildError(f"{path} is a link to {target}, outside its folder", "replace the link by what it means")


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns, found.st_ino
