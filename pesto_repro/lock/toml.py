"""Canonical TOML, the lock's text: sorted keys, one artifact per line, LF, nothing optional.

Only what a lock needs: strings, integers, booleans, arrays and tables. ``tomli`` reads it back.

>>> print(dumps({"b": 1, "a": "x", "t": {"list": [{"name": "n", "size": 1}]}}), end="")
a = "x"
b = 1
<BLANKLINE>
[t]
list = [
    { name = "n", size = 1 },
]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
ARRAYS_OF_TABLES = frozenset({"platforms"})
"""Keys whose tables are too large for one line each."""


def dumps(document: Mapping[str, Any]) -> str:
    """*document* as canonical TOML text."""
    return "\n".join(_table((), document)).lstrip("\n") + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """Plain keys first, then tables, each under its header; both sorted."""
    items = sorted(table.items())
    for key, value in items:
        if not _is_section(key, value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in items:
        if not _is_section(key, value):
            continue
        name = ".".join(map(_key, (*path, key)))
        for each in [value] if isinstance(value, Mapping) else value:
            yield ""
            yield f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"
            yield from _table((*path, key), each)


def _is_section(key: str, value: object) -> bool:
    return isinstance(value, Mapping) or (key in ARRAYS_OF_TABLES and _holds_tables(value))


def _holds_tables(value: object) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, (list, tuple)):
        return _array(value)
    raise TypeError(f"not a value of a lock: {value!r}")


def _inline(table: Mapping[str, object]) -> str:
    """One line: what it is called first, then sorted by key."""
    items = sorted(table.items(), key=lambda item: (item[0] not in ("key", "name"), item[0]))
    return "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in items) + " }"


def _array(values: Sequence[object]) -> str:
    if not values:
        return "[]"
    return "[\n" + "".join(f"    {_value(each)},\n" for each in values) + "]"


def _string(text: str) -> str:
    """A basic string (TOML 1.0, "String"): control characters and DEL are escaped."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(char: str) -> str:
    plain = char >= " " and char != "\x7f"
    return _ESCAPES.get(char) or (char if plain else f"\\u{ord(char):04x}")
