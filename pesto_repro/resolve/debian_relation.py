"""Debian's relations between packages (Debian Policy, chapter 7) and its order of versions.

The only module that imports python-debian, whose ``Version`` knows that order.

>>> [str(each) for each in clauses("debconf (>= 0.5) | debconf-2.0, libc6")]
['debconf (>= 0.5) | debconf-2.0', 'libc6']
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from debian.debian_support import Version

from pesto_repro.errors import ResolveError

__all__ = ["Clause", "Relation", "Version", "clauses", "relations"]

# Debian Policy 7.1: "<<, <=, =, >= and >>"; "<" and ">" are the obsolete spellings of "<=" and ">="
_OPERATORS: dict[str, Callable[[Version, Version], bool]] = {
    "<<": operator.lt,
    "<": operator.le,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.ge,
    ">>": operator.gt,
}
_RELATION = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]*)(?::(?P<qualifier>[a-z0-9-]+))?"
    r"(?:\s*\(\s*(?P<operator>[<>=]+)\s*(?P<version>[^\s()<>=]+)\s*\))?"
    r"(?:\s*\[(?P<architectures>[^\]]*)\])?"
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A package's name, perhaps with an architecture qualifier and a constraint on its version."""

    name: str
    operator: str = ""
    version: str = ""
    qualifier: str = ""
    architectures: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = f"{self.name}:{self.qualifier}" if self.qualifier else self.name
        return f"{name} ({self.operator} {self.version})" if self.operator else name

    def allows(self, version: str) -> bool:
        """Whether *version* satisfies the constraint."""
        return not self.operator or _OPERATORS[self.operator](Version(version), Version(self.version))

    def concerns(self, architecture: str) -> bool:
        """Whether the relation can be met by, and applies to, packages for *architecture*."""
        if self.qualifier not in ("", "any", "native", architecture):
            return False
        if not self.architectures:
            return True
        # Debian Policy 7.1: "!" before each name of the list: every architecture but these
        if self.architectures[0].startswith("!"):
            return f"!{architecture}" not in self.architectures
        return bool({architecture, "any", "linux-any"} & set(self.architectures))


@dataclass(frozen=True, slots=True)
class Clause:
    """Alternatives, of which one is enough; the first is the one that its author prefers."""

    alternatives: tuple[Relation, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.alternatives))


def clauses(field: str) -> tuple[Clause, ...]:
    """The value of a field like Depends. Raises ResolveError where it breaks the syntax."""
    groups = (part.strip() for part in field.split(","))
    return tuple(Clause(tuple(map(_relation, group.split("|")))) for group in groups if group)


def relations(field: str) -> tuple[Relation, ...]:
    """The value of a field without alternatives, like Conflicts or Provides."""
    return tuple(_relation(part) for part in field.split(",") if part.strip())


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text.strip())
    if match is None or (match["operator"] or "=") not in _OPERATORS:
        raise ResolveError(f"{text.strip()!r} is not a relation between Debian packages")
    return Relation(
        match["name"],
        match["operator"] or "",
        match["version"] or "",
        match["qualifier"] or "",
        tuple((match["architectures"] or "").split()),
    )
