"""The algorithm: greets whoever it is told of, and counts the words of the name."""

import json
from pathlib import Path

from pesto.common.pesto import Pesto

from algorithm.input_output import Input, Output

CONFIG = Path("/etc/pesto/config.json")


class Process:
    """The service calls ``on_start`` once, then ``process`` for each request."""

    def on_start(self) -> None:
        """Load what is heavy here: models, tables, the configuration."""
        self.config = json.loads(CONFIG.read_text(encoding="utf-8"))

    # The service compares the annotation itself with Input: no `from __future__ import annotations` here.
    def process(self, input: Input) -> Output:
        """One answer for one request."""
        greeting = f"{self.config['greeting']}, {input.text}{self.config['mark']}"
        parts = [self.config.get("prefix"), *[greeting] * (input.times or 1), self.config.get("suffix")]
        return Output(
            greeting=" ".join(part for part in parts if part),
            words=len(input.text.split()),
            profile=Pesto.get_profile() or "default",
        )
