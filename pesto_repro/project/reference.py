"""The image's reference, ``name:version[-p1-p2]``: what build.json gives, and nothing else of the image.

Grammar: distribution-spec 1.1, "Pulling manifests": ``<name>`` and ``<reference>`` as a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pesto_repro.errors import Problem, ProjectError

# "<name> MUST match the following regular expression"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# "<reference> as a tag MUST be at most 128 characters in length and MUST match the following regular
# expression"
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# "Many clients impose a limit of 255 characters on the length of the concatenation of the registry hostname
# (and optional port), /, and <name> value"
_NAME_LIMIT = 255


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image's *name* and *tag*, valid by the distribution-spec.

    >>> str(Reference("algo-service", "1.0.0.dev0-p1"))
    'algo-service:1.0.0.dev0-p1'
    """

    name: str
    tag: str

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"{self.name!r} is not an image name")
        if not is_tag(self.tag):
            raise ValueError(f"{self.tag!r} is not an image tag")

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def is_name(text: str) -> bool:
    """Whether *text* may name a repository."""
    return len(text) <= _NAME_LIMIT and bool(_NAME.fullmatch(text))


def is_tag(text: str) -> bool:
    """Whether *text* may be a tag."""
    return bool(_TAG.fullmatch(text))


def reference(file: str, name: str, version: str, profiles: Sequence[str]) -> Reference:
    """``name:version[-p1-p2]``. Raises ProjectError that blames *file*, the build.json."""
    tag = "-".join([version, *profiles])
    problems = tuple(_problems(file, name, version, tag))
    if problems:
        raise ProjectError(problems)
    return Reference(name, tag)


def _problems(file: str, name: str, version: str, tag: str) -> Iterator[Problem]:
    if not is_name(name):
        yield Problem(
            file,
            "name",
            f'"{name}" is not an image name: lower-case letters and digits, separated by single ".", "_", '
            f'"__" or dashes, in parts separated by "/", {_NAME_LIMIT} characters at most',
        )
    if not is_tag(tag):
        made = "" if tag == version else f' (of version "{version}" and the profiles)'
        yield Problem(
            file,
            "version",
            f'"{tag}"{made} is not an image tag: letters, digits, "_", "." and "-", not starting with "." '
            'or "-", 128 characters at most',
        )
