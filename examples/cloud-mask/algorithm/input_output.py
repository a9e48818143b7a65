"""What a request and an answer hold; pesto/api/input_schema.json and output_schema.json say the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Polygon = dict[str, Any]


@dataclass
class Input:
    """*image* is (band, row, column). A parameter that a request leaves out is None."""

    image: np.ndarray
    threshold: int | None = None


@dataclass
class Output:
    """*mask* is (1, row, column), 255 where there is cloud and 0 elsewhere."""

    mask: np.ndarray
    cover: float
    clouds: list[Polygon]
    model: str
