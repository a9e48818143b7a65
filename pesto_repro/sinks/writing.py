"""Files that appear whole or not at all, and the words for when they cannot."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pesto_repro.errors import BuildError, PestoError
from pesto_repro.store import open_locked


def write_text(path: Path, text: str) -> None:
    """Write a small document, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, found: bytes) -> None:
    """Write a small file, whole or not at all."""
    with replacing(path) as handle:
        handle.write(found)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """The folder of *path* is there; what fails inside is said of *path*."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except PestoError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or choose another place" if full else "choose another place"
        raise BuildError(f"{path} cannot be written: {error.strerror or error}", hint) from error


@contextlib.contextmanager
def beside(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """An empty file beside *path*, locked against others who write *path*; gone at the end, unless it took its place.

    Its name is always the same: what a killed process left there is written over by the next.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with open_locked(temporary) as handle:
        try:
            handle.truncate(0)
            yield handle, temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of *path* at the end, or is gone."""
    with writing(path), beside(path) as (handle, temporary):
        yield handle
        handle.flush()
        temporary.chmod(0o644)
        temporary.replace(path)
