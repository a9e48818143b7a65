"""What a request and an answer hold; pesto/api/input_schema.json and output_schema.json say the same."""

from dataclasses import dataclass


@dataclass
class Input:
    """A parameter that a request leaves out is None."""

    text: str
    times: int | None = None


@dataclass
class Output:
    greeting: str
    words: int
    profile: str
