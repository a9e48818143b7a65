"""The canonical tar writer: equal entries give equal bytes, whoever writes them and in whatever order they come.

Its rules (``TAR_VERSION`` of the plan counts their changes; a change of any makes other layers):

* POSIX ustar headers (IEEE Std 1003.1, pax "ustar Interchange Format"), written here byte for byte; a pax extended
  header only for what ustar cannot say: a long or non-ASCII path, a long link target, a size of 8 GiB or more.
* Sorted by the parts of the path; every parent directory is there, before what it holds: 0755 root:root, or what
  ``SPECIAL`` of the plan says of it.
* mtime 1980-01-01T00:00:00Z, numeric owners, empty owner names, no device numbers.
* Hardlinks have size 0 and name a file that stands before them in the same layer.
* The end is two zero blocks, without padding to a record.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from pesto_repro.build.entry import BROKEN, Deflated, Entry, directory, reason
from pesto_repro.digest import CHUNK, Digest
from pesto_repro.errors import BuildError

MTIME = 315532800
BLOCK = 512
END = bytes(2 * BLOCK)
_TYPES = {"file": b"0", "hardlink": b"1", "symlink": b"2", "directory": b"5"}


class Sink(Protocol):
    """Where the bytes of a tar go."""

    def write(self, data: bytes, /) -> object: ...


Copy = Callable[[Deflated], bool]
"""Takes a content that is deflated already; False if it would rather be written."""


def write_tar(entries: Iterable[Entry], sink: Sink, copy: Copy = lambda _: False) -> None:
    """Write *entries*, as :func:`arrange` gives them, as one tar; *copy* is offered what is deflated already.

    Raises BuildError for content of another size than announced.
    """
    write_entries(entries, sink, copy)
    sink.write(END)


def write_entries(entries: Iterable[Entry], sink: Sink, copy: Copy = lambda _: False) -> None:
    """The same without the end: a tar that more can be added to."""
    for entry in entries:
        for block in _header(entry):
            sink.write(block)
        if entry.kind == "file":
            _write_content(entry, sink, copy)


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """*entries* in the order of a layer, with every parent directory, without repetition.

    Raises BuildError that lists all paths that escape, or that have different things under one name.
    """
    found: dict[tuple[str, ...], Entry] = {}
    problems: list[str] = []
    for entry in entries:
        parts = tuple(entry.path.split("/"))
        if fault := _fault(entry, parts):
            problems.append(f"{_by(entry)}{entry.path!r} {fault}")
        elif (other := found.setdefault(parts, entry)) is not entry and not _same(other, entry):
            problems.append(f"{entry.path}: {_by(other)}and {_by(entry)}bring different things")
    for parts in list(found):
        _add_parents(parts, found, problems)
    problems += filter(None, (_dangling(entry, found) for entry in found.values()))
    if problems:
        raise BuildError("\n  ".join(["these paths cannot be in one layer:", *sorted(set(problems))]))
    return [found[parts] for parts in sorted(found)]


def _fault(entry: Entry, parts: tuple[str, ...]) -> str | None:
    """Why a tar cannot say *entry*; None if it can."""
    if any(part in ("", ".", "..") for part in parts):
        return "is not a path below the root"
    if "\0" in entry.path + entry.target:
        return "has a NUL in its name or target"
    try:
        (entry.path + entry.target).encode()
    except UnicodeEncodeError:
        return "has a name or target that is not UTF-8"
    return None


def _dangling(entry: Entry, found: Mapping[tuple[str, ...], Entry]) -> str | None:
    """Why *entry* is no good hard link; None if it is one, or none at all."""
    if entry.kind != "hardlink":
        return None
    target = tuple(entry.target.split("/"))
    if target < tuple(entry.path.split("/")) and target in found and found[target].kind == "file":
        return None
    return f"{entry.path}: {_by(entry)}a hard link to {entry.target}, which is no file before it"


def _add_parents(parts: tuple[str, ...], found: dict[tuple[str, ...], Entry], problems: list[str]) -> None:
    for depth in range(len(parts) - 1, 0, -1):
        parent, path = parts[:depth], "/".join(parts[:depth])
        known = found.get(parent)
        if known is None:
            found[parent] = directory(path)
        elif known.kind != "directory":
            problems.append(f"{'/'.join(parts)}: {_by(known)}{path} is a {known.kind}, not a directory")
        else:
            return


def _same(one: Entry, other: Entry) -> bool:
    """Do both put the same thing there? Directories that differ only in who brought them do."""
    if one.kind != "file" or other.kind != "file":
        return _plain(one) == _plain(other)
    if (one.mode, one.size, one.uid, one.gid) != (other.mode, other.size, other.uid, other.gid):
        return False
    return _content(one) == _content(other)


def _content(entry: Entry) -> Digest:
    """The digest of the content: of two files one is open at a time."""
    state = hashlib.sha256()
    for piece in _pieces(entry):
        state.update(piece)
    return Digest(state.hexdigest())


def _plain(entry: Entry) -> Entry:
    return replace(entry, origin="", open=None, deflated=None)


def _pieces(entry: Entry) -> Iterator[bytes]:
    assert entry.open is not None, entry.path
    try:
        with contextlib.closing(entry.open()) as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except BROKEN as error:
        raise BuildError(f"{_by(entry)}{entry.path} cannot be read: {reason(error)}") from None


def _write_content(entry: Entry, sink: Sink, copy: Copy) -> None:
    written = entry.size if _copied(entry, copy) else _copy_pieces(entry, sink)
    if written != entry.size:
        raise BuildError(f"{_by(entry)}{entry.path}: {written} bytes where {entry.size} were announced")
    sink.write(bytes(-written % BLOCK))


def _copied(entry: Entry, copy: Copy) -> bool:
    try:
        return entry.deflated is not None and copy(entry.deflated)
    except BuildError as error:
        raise BuildError(f"{_by(entry)}{entry.path}: {error.message}", error.hint) from None


def _copy_pieces(entry: Entry, sink: Sink) -> int:
    written = 0
    for piece in _pieces(entry):
        sink.write(piece)
        written += len(piece)
    return written


def _header(entry: Entry) -> Iterator[bytes]:
    name = entry.path + ("/" if entry.kind == "directory" else "")
    extended: dict[str, str] = {}
    prefix, short = _split(name)
    if short is None:
        extended["path"], prefix, short = name, b"", name.encode()[:100]
    target = entry.target.encode()
    if len(target) > 100 or not entry.target.isascii():
        extended["linkpath"], target = entry.target, target[:100]
    if entry.size >= 8 << 30:
        extended["size"] = str(entry.size)
    if extended:
        body = b"".join(_pax_record(key, value) for key, value in sorted(extended.items()))
        yield _ustar(b"PaxHeaders/" + short[:80].rstrip(b"/"), b"", 0o644, 0, 0, len(body), b"x", b"")
        yield body + bytes(-len(body) % BLOCK)
    size = 0 if "size" in extended else entry.size
    yield _ustar(short, prefix, entry.mode, entry.uid, entry.gid, size, _TYPES[entry.kind], target)


def _split(name: str) -> tuple[bytes, bytes | None]:
    """ustar's prefix and name; None where they cannot say *name*."""
    raw = name.encode()
    if not name.isascii():
        return b"", None
    if len(raw) <= 100:
        return b"", raw
    cut = raw.find(b"/", max(0, len(raw) - 101), len(raw) - 1)
    return (raw[:cut], raw[cut + 1 :]) if 0 < cut <= 155 else (b"", None)


def _pax_record(key: str, value: str) -> bytes:
    """ "%d %s=%s\\n", where the number is the length of the whole record in bytes."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _ustar(name: bytes, prefix: bytes, mode: int, uid: int, gid: int, size: int, kind: bytes, target: bytes) -> bytes:
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % MTIME,
        b" " * 8,
        kind,
        target.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(32 + 32 + 8 + 8),
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _by(entry: Entry) -> str:
    return f"{entry.origin}: " if entry.origin else ""
