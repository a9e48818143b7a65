"""Make models/*.tar.gz, the same bytes on every machine: ``python scripts/make_models.py``.

No compressor decides a byte: RFC 1952's envelope is written around one stored block of RFC 1951.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

MODELS = Path(__file__).parent.parent / "models"
FULL = {"name": "full", "weights": {"brightness": 4, "spread": -6, "vegetation": -3}, "bias": -560}
FAST = {"name": "fast", "weights": {"brightness": 4, "spread": -6}, "bias": -600}


def archive(model: dict[str, object]) -> bytes:
    """A tar.gz whose only member is ``model.json``."""
    return gzip_stored(tar("model.json", json.dumps(model, indent=2, sort_keys=True).encode() + b"\n"))


def tar(name: str, content: bytes) -> bytes:
    """A ustar archive of one file, without owner and time."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as out:
            out.addfile(member, io.BytesIO(content))
        return buffer.getvalue()


def gzip_stored(content: bytes) -> bytes:
    """*content*, at most 65535 bytes, as a gzip member that compresses nothing."""
    size = len(content)
    # RFC 1952, 2.3: ID1 ID2 CM=deflate FLG MTIME XFL OS=unknown
    header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 0, 255)
    # RFC 1951, 3.2.4: BFINAL=1, BTYPE=00, then LEN and its one's complement
    block = struct.pack("<BHH", 1, size, size ^ 0xFFFF) + content
    return header + block + struct.pack("<II", zlib.crc32(content), size)


if __name__ == "__main__":
    MODELS.mkdir(exist_ok=True)
    for each in (FULL, FAST):
        MODELS.joinpath(f"{each['name']}.tar.gz").write_bytes(archive(each))
