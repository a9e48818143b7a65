"""Digests, and the one way in which this project turns values into bytes before hashing them.

A *digest* is of stored bytes; the digest of an uncompressed layer is its *diff_id*: never one for the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256, written ``sha256:<64 hex digits>`` (image-spec, descriptor.md, "Digests").

    >>> str(Digest.of(b""))
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError(f"{self.hex!r} is not a sha256 in lower-case hex")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The inverse of ``str``. Raises ValueError for another algorithm or form."""
        algorithm, colon, value = text.partition(":")
        if algorithm != "sha256" or not colon:
            raise ValueError(f"{text!r} is not of the form sha256:<hex>")
        return cls(value)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def canonical_json(value: object) -> bytes:
    """*value* as JSON with sorted keys, no white space, UTF-8: equal values give equal bytes.

    Floats are refused (their text depends on who prints them); say numbers as integers or strings.
    """
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of_value(value: object) -> Digest:
    """The digest of *value* in canonical JSON."""
    return Digest.of(canonical_json(value))


def chunks(stream: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """The bytes of *stream*, in pieces of *size* bytes (the last may be shorter)."""
    while piece := stream.read(size):
        yield piece


def hash_stream(stream: BinaryIO) -> tuple[Digest, int]:
    """Read *stream* to its end: its digest and its size in bytes."""
    state, size = hashlib.sha256(), 0
    for piece in chunks(stream):
        state.update(piece)
        size += len(piece)
    return Digest(state.hexdigest()), size


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"a float has no canonical text: {value!r}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key must be text: {key!r}")
            _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)
