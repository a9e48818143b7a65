"""Run by the image's own Python, beside its service: the fingerprints of pictures, by what their pixels are.

On stdin a JSON list of files in base64; on stdout for each of them an object: ``pixels`` is the print of what it
decodes to, ``stored`` are those of what it may have become when it was kept as an expected file (its pixels as 8 bits
per band, and what JPEG makes of them). A file that cannot be decoded has an ``error`` instead.

It imports what PESTO's services have: numpy and rasterio.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import warnings
from typing import Any

import numpy  # type: ignore[import-not-found,unused-ignore]
import rasterio  # type: ignore[import-not-found,unused-ignore]


def pixels_of(data: bytes) -> Any:
    """The bands, rows and columns of the file *data*."""
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        return dataset.read()


def as_jpeg(pixels: Any) -> Any:
    """What JPEG makes of *pixels*, which it can only of one band or three."""
    bands, height, width = pixels.shape
    with rasterio.MemoryFile() as file:
        with file.open(driver="JPEG", width=width, height=height, count=bands, dtype="uint8") as dataset:
            dataset.write(pixels)
        return pixels_of(file.read())


def fingerprint(pixels: Any) -> str:
    head = f"{pixels.shape} {pixels.dtype}".encode()
    return hashlib.sha256(head + numpy.ascontiguousarray(pixels).tobytes()).hexdigest()


def describe(data: bytes) -> dict[str, Any]:
    try:
        pixels = pixels_of(data)
    except rasterio.errors.RasterioError as error:
        return {"error": str(error)}
    small = pixels.astype("uint8")
    stored = [pixels, small] + ([as_jpeg(small)] if small.shape[0] in (1, 3) else [])
    return {"pixels": fingerprint(pixels), "stored": [fingerprint(each) for each in stored]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # a picture that lies nowhere on earth is fine
    json.dump([describe(base64.b64decode(each)) for each in json.load(sys.stdin)], sys.stdout)
