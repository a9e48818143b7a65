"""The algorithm: image in; mask, share and box of the clouds out."""

import json
import os
from pathlib import Path

import numpy as np
from pesto.common.pesto import Pesto

from algorithm.input_output import Input, Output, Polygon
from algorithm.model import Model

CONFIG = Path("/etc/pesto/config.json")


class Process:
    """The service calls ``on_start`` once, then ``process`` for each request."""

    def on_start(self) -> None:
        """Load the configuration and the model that the image was built with."""
        self.config = json.loads(CONFIG.read_text(encoding="utf-8"))
        self.model = Model.load(Path(os.environ["CLOUD_MASK_MODEL"]))
        self.parallel = Pesto.is_profile_active("fast")

    # The service compares the annotation itself with Input: no `from __future__ import annotations` here.
    def process(self, input: Input) -> Output:
        """One answer for one request."""
        threshold = self.config["threshold"] if input.threshold is None else input.threshold
        cloud = self.model.score(input.image, parallel=self.parallel) > threshold
        return Output(
            mask=np.where(cloud, 255, 0).astype(np.uint8)[np.newaxis],
            cover=round(int(cloud.sum()) / cloud.size, self.config["digits"]),
            clouds=[_box(cloud)] if cloud.any() else [],
            model=self.model.name,
        )


def _box(cloud: np.ndarray) -> Polygon:
    """The box around all that is cloud, as a GeoJSON polygon in pixels."""
    rows, columns = np.nonzero(cloud)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}
