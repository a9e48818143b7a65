"""Opens the files in which cosign keeps a private key: scrypt (RFC 7914), then NaCl's secretbox.

The library that this program signs with has no XSalsa20, so the little that opening takes is written out here, after
"Extending the Salsa20 nonce" (Bernstein, 2011) and RFC 8439, section 2.5. Nothing is ever sealed with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import struct
from collections.abc import Iterator, Sequence

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_STRENGTHS = {(1 << 15, 8, 1), (1 << 16, 8, 1), (1 << 17, 8, 1)}
"""The scrypt parameters that cosign ever used. Others are refused: they could ask for any amount of memory."""
_MEMORY = 256 << 20
_TAG = 16
_ROUNDS = 10
_QUARTERS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
)
"""Salsa20 specification, sections 4 and 5: the columns, then the rows."""


class WrongPassword(ValueError):
    """The file is not opened by this pass phrase."""


def open_file(data: bytes, password: bytes) -> bytes:
    """What cosign's JSON document *data* has under *password*. Raises WrongPassword, or ValueError if it is none."""
    try:
        document = json.loads(data)
        kdf, cipher = document["kdf"], document["cipher"]
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
            raise ValueError(f"it is of {kdf['name']} and {cipher['name']}")
        cost = kdf["params"]["N"], kdf["params"]["r"], kdf["params"]["p"]
        salt, nonce, box = map(_base64, (kdf["salt"], cipher["nonce"], document["ciphertext"]))
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if cost not in _STRENGTHS or len(nonce) != 24:
        raise ValueError("it has other parameters than cosign ever used")
    n, r, p = cost
    key = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)
    return unseal(box, nonce, key)


def unseal(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """NaCl's crypto_secretbox_open. Raises WrongPassword."""
    tag, sealed = box[:_TAG], box[_TAG:]
    stream = _xsalsa20(key, nonce, 32 + len(sealed))
    one_time = stream[:32]
    if not hmac.compare_digest(tag, poly1305(one_time, sealed)):
        raise WrongPassword
    return bytes(a ^ b for a, b in zip(sealed, stream[32:], strict=True))


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439, 2.5: the one-time authenticator."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for start in range(0, len(message), 16):
        total = (total + int.from_bytes(message[start : start + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) % (1 << 128)).to_bytes(16, "little")


def _xsalsa20(key: bytes, nonce: bytes, size: int) -> bytes:
    """The first *size* bytes of the key stream."""
    mixed = _doubled(_state(key, struct.unpack("<4I", nonce[:16])))
    # HSalsa20: the words at the diagonal and at the nonce's places, without the last addition.
    subkey = struct.pack("<8I", *(mixed[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))
    return b"".join(_blocks(subkey, nonce[16:], size))[:size]


def _blocks(key: bytes, nonce: bytes, size: int) -> Iterator[bytes]:
    for number in range(-(-size // 64)):
        state = _state(key, (*struct.unpack("<2I", nonce), number & 0xFFFFFFFF, number >> 32))
        words = (a + b & 0xFFFFFFFF for a, b in zip(state, _doubled(state), strict=True))
        yield struct.pack("<16I", *words)


def _state(key: bytes, middle: Sequence[int]) -> list[int]:
    """Salsa20 specification, section 9: constants on the diagonal, key, nonce and counter, key."""
    k = struct.unpack("<8I", key)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *middle, _SIGMA[2], *k[4:], _SIGMA[3]]


def _doubled(state: Sequence[int]) -> list[int]:
    """Section 6: ten double rounds."""
    words = list(state)
    for _ in range(_ROUNDS):
        for a, b, c, d in _QUARTERS:
            words[b] ^= _rotated(words[a] + words[d], 7)
            words[c] ^= _rotated(words[b] + words[a], 9)
            words[d] ^= _rotated(words[c] + words[b], 13)
            words[a] ^= _rotated(words[d] + words[c], 18)
    return words


def _rotated(word: int, bits: int) -> int:
    word &= 0xFFFFFFFF
    return (word << bits | word >> 32 - bits) & 0xFFFFFFFF


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
