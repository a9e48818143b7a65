"""A layer's tar, read once: its files' bytes side by side in one folder, and a list of what is where.

No path of a layer is ever a path on the host: files are called ``0``, ``1``, ``2``..., and *entries* say which path
each has in a root. What a layer does to the layers below it is computed from those lists alone (:mod:`.merge`), so that
no link, however it points, leads a write anywhere. Read as an ordinary user can: ownership and setuid bits are left
out; device nodes and fifos too, which is told to the reporter.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

from pesto_repro.build.compress import as_stream, decompressed
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import BuildError, MismatchError
from pesto_repro.oci import MEDIA_TYPES, OCI_LAYERS, Layer
from pesto_repro.progress import Reporter
from pesto_repro.registry.ports import Content

COMPRESSIONS = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_BUFFER = 1 << 20


class Entry(NamedTuple):
    """One path of a layer. *value*: a file's name in the folder, a symlink's text, the path a hard link leads to."""

    kind: Literal["directory", "file", "symlink", "hardlink"]
    path: str
    mode: int = 0
    value: str = ""


def unpack(layer: Layer, content: Content, folder: Path, reporter: Reporter) -> list[Entry]:
    """Write the files of *layer* into the empty *folder*; its entries, in order. Verifies the diff_id.

    Raises MismatchError, FetchError, BuildError, and OSError of the folder.
    """
    name = f"{layer.kind} {layer.name}".strip() or str(layer.diff_id)
    with content.open(layer.descriptor) as stream, reporter.activity("unpack", name, layer.descriptor.size) as activity:
        state = hashlib.sha256()

        def compressed() -> Iterator[bytes]:
            for piece in chunks(stream):
                activity.advance(len(piece))
                yield piece

        def tar() -> Iterator[bytes]:
            for piece in decompressed(compressed(), _compression(layer)):
                state.update(piece)
                yield piece

        pieces = tar()
        try:
            found = _entries(as_stream(pieces), folder, reporter)
        except tarfile.TarError as error:
            raise BuildError(f"the layer {layer.diff_id} is no tar archive: {error}") from None
        for _ in pieces:  # what follows the archive's end is hashed too
            pass
    actual = Digest(state.hexdigest())
    if actual != layer.diff_id:
        raise MismatchError(f"a layer has the diff_id {actual}, not {layer.diff_id} as its image says")
    return found


def _compression(layer: Layer) -> str:
    media_type = OCI_LAYERS.get(layer.descriptor.media_type)
    if media_type is None:
        raise BuildError(f"{layer.descriptor.digest} is of the type {layer.descriptor.media_type}, which is no layer")
    return COMPRESSIONS[media_type]


def _entries(stream: IO[bytes], folder: Path, reporter: Reporter) -> list[Entry]:
    found: list[Entry] = []
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER, errorlevel=2) as archive:
        for member in archive:
            path, mode = _inner(member.name), member.mode & 0o1777
            if member.isdir():
                found.append(Entry("directory", path, mode))
            elif member.isreg():
                name = str(len(found))
                _write(archive, member, folder / name, mode & 0o777)
                found.append(Entry("file", path, mode, name))
            elif member.issym():
                found.append(Entry("symlink", path, value=_text(member)))
            elif member.islnk():
                found.append(Entry("hardlink", path, value=_inner(member.linkname)))
            else:
                reporter.debug(f"/{path} is left out of the root file system: a device or a pipe")
    return found


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, mode: int) -> None:
    source = archive.extractfile(member)
    assert source is not None
    with path.open("xb") as target:
        shutil.copyfileobj(source, target, _BUFFER)
    path.chmod(mode & ~0o022 | 0o400)


def _inner(name: str) -> str:
    """*name* as a path below a root, without "/" before it; "" is the root. Raises BuildError if it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"a layer has the path {name!r}, which leads out of it")
    return "/".join(parts)


def _text(member: tarfile.TarInfo) -> str:
    if not member.linkname:
        raise BuildError(f"a layer has the link /{member.name} to nowhere")
    return member.linkname
