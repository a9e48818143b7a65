"""A blob on its way from a registry: cut downloads go on where they stopped, and what arrives is verified."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

from pesto_repro.digest import Digest
from pesto_repro.oci import Descriptor
from pesto_repro.registry.http import CUT, Funnel, PassingError, Response


class Download(io.RawIOBase):
    """A blob being read: what breaks off goes on, and its last bytes are handed out when all are the right ones."""

    def __init__(self, client: Funnel, descriptor: Descriptor) -> None:
        super().__init__()
        self._client, self._descriptor = client, descriptor
        self._state, self._have, self._rest = hashlib.sha256(), 0, b""
        self._response: Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next()
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _next(self) -> bytes:
        """The next piece; b"" at the end."""
        if self._have == self._descriptor.size:
            self._check_end()
            return b""
        piece = self._client.retried(f"blob {self._descriptor.digest}", self._try)
        self._state.update(piece)
        self._have += len(piece)
        if self._have >= self._descriptor.size:
            with suppress(PassingError):  # to the end, so that the connection can be used again
                self._have += len(next(self._pieces, b""))
            self._check_end()
        return piece

    def _try(self) -> bytes:
        try:
            if self._response is None:
                self._connect()
            piece = next(self._pieces, b"")
            if not piece:
                raise PassingError(CUT)
            return piece
        except PassingError:
            self._hang_up()
            raise

    def _connect(self) -> None:
        """RFC 9110, 14.2: a server may ignore Range and send everything; then what we have is skipped."""
        client, digest = self._client, self._descriptor.digest
        headers = {"Range": f"bytes={self._have}-"} if self._have else None
        self._response = response = client.asked("GET", client.blob_url(digest), headers=headers, stream=True)
        client.expect(response, 206 if response.status_code == 206 and self._have else 200, f"blob {digest}")
        self._pieces = client.pieces(response)
        if response.status_code == 206:
            if response.headers.get("Content-Range", "").partition("-")[0] != f"bytes {self._have}":
                raise PassingError("it answered with another range than was asked")
        elif self._have:
            self._pieces = _skipping(self._pieces, self._have)

    def _check_end(self) -> None:
        found = Digest(self._state.hexdigest())
        if self._have != self._descriptor.size or found != self._descriptor.digest:
            more = f"more than {self._descriptor.size} bytes" if self._have > self._descriptor.size else str(found)
            self._fail(f"blob {self._descriptor.digest} was asked for, {more} is the answer")

    def _fail(self, text: str) -> NoReturn:
        self._hang_up()
        raise self._client.wrong(text)

    def _hang_up(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response, self._pieces = None, iter(())


def _skipping(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count -= min(count, len(piece))
