"""Make the images of pesto/tests/resources: ``python scripts/make_images.py``.

A scene is ground with round clouds: (row, column, radius) each. An image is a PNG of four bands, near
infrared in place of alpha. The masks expected are not made here: they are answers of the service, looked at.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

RESOURCES = Path(__file__).parent.parent / "pesto/tests/resources"
SIZE = 32
FIELD, WATER, SAND, CLOUD = (60, 90, 50, 170), (30, 50, 80, 20), (200, 170, 120, 210), (235, 238, 240, 236)
SCENES = {
    "test_1": ((10, 12, 6), (22, 24, 4)),
    "test_2": (),
}


def pixel(row: int, column: int, clouds: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int, int]:
    """What lies at a place: cloud above all, else field, water or sand in stripes."""
    if any((row - y) ** 2 + (column - x) ** 2 <= radius**2 for y, x, radius in clouds):
        return CLOUD
    return (FIELD, WATER, SAND, FIELD)[column * 4 // SIZE]


def png(clouds: tuple[tuple[int, int, int], ...]) -> bytes:
    """The scene as a PNG of SIZE x SIZE pixels (RFC 2083: each row starts with its filter, here none)."""
    rows = (b"\0" + bytes(v for x in range(SIZE) for v in pixel(y, x, clouds)) for y in range(SIZE))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 6, 0, 0, 0)
    data = zlib.compress(b"".join(rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    for test, clouds in SCENES.items():
        RESOURCES.joinpath(test, "input", "image.png").write_bytes(png(clouds))
