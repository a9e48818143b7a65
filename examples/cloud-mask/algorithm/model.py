"""The model: a weight for each feature of a pixel, and a bias, all whole numbers; a high score is cloud.

Features, from the bands r, g, b, n of eight bits each:

* ``brightness``: the mean of r, g, b. Clouds are bright.
* ``spread``: the greatest of r, g, b less the least. Clouds are white.
* ``vegetation``: n less r. Clouds reflect both alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BANDS = 4


@dataclass(frozen=True)
class Model:
    name: str
    weights: dict[str, int]
    bias: int

    @classmethod
    def load(cls, path: Path) -> "Model":
        """The model in the JSON file *path*."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def score(self, image: np.ndarray, *, parallel: bool) -> np.ndarray:
        """The score of each pixel of *image*, a (row, column) array; *parallel* asks numexpr for it."""
        features = {name: value for name, value in _features(image).items() if name in self.weights}
        formula = " + ".join([str(self.bias), *(f"{self.weights[name]} * {name}" for name in features)])
        if parallel:
            # Only the profile `fast` brings numexpr.
            import numexpr

            return numexpr.evaluate(formula, local_dict=features, global_dict={})
        return self.bias + sum(self.weights[name] * value for name, value in features.items())


def _features(image: np.ndarray) -> dict[str, np.ndarray]:
    if image.ndim != 3 or image.shape[0] != BANDS or image.dtype != np.uint8:
        raise ValueError(f"expected {BANDS} bands of eight bits, got {image.shape} of {image.dtype}")
    red, green, blue, infrared = image.astype(np.int32)
    return {
        "brightness": (red + green + blue) // 3,
        "spread": np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue),
        "vegetation": infrared - red,
    }
