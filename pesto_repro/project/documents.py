"""Strict reading of the documents a user writes: JSON and TOML, from bytes to values.

A PESTO project is configured by hand-edited files, so every slip is reported with file:line:column (both
counted from 1) instead of being guessed away. JSON is that of RFC 8259, and stricter where the RFC leaves a
choice:

* UTF-8 without a byte order mark (section 8.1),
* names within an object are unique (section 4: "SHOULD"),
* numbers are finite: NaN and Infinity are not JSON, 1e999 does not fit (section 6),
* text is valid Unicode: no lone surrogate (section 8.2),
* the root is an object.

>>> parse_json("a.json", b'{"key": 1}')
{'key': 1}
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tomli

from pesto_repro.errors import Problem, ProjectError

Document = dict[str, Any]

_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?'
    r"|(?P<word>NaN|-?Infinity)"
    r"|(?P<number>-?\d[\d.eE+-]*)"
    r"|(?P<open>[{\[])|(?P<close>[}\]])",
    re.DOTALL,
)


def parse_json(file: str, data: bytes) -> Document:
    """The object in *data*. Raises ProjectError with every Problem; *file* is the name they carry."""
    text = _decode(file, data)
    value = _load(file, text)
    problems = tuple(_slips(file, text))
    if problems:
        raise ProjectError(problems)
    if not isinstance(value, dict):
        raise ProjectError([Problem(file, "1:1", f"the root must be an object, not {kind(value)}")])
    return value


def parse_toml(file: str, data: bytes) -> Document:
    """The table in *data*. Raises ProjectError; *file* is the name its Problem carries."""
    text = _decode(file, data)
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = f"malformed TOML: {error.msg[:1].lower()}{error.msg[1:]}"
        raise ProjectError([Problem(file, f"{error.lineno}:{error.colno}", message)]) from None


def decode(file: str, data: bytes) -> str:
    """*data* as UTF-8 text; a byte order mark is skipped. Raises ProjectError."""
    return _utf8(file, data.removeprefix(_BOM))


def kind(value: object) -> str:
    """What JSON calls the type of *value*, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def dotted(path: tuple[str | int, ...]) -> str:
    """*path* as one key path, ``requirements.model.to``; names that need it are quoted as in TOML."""
    bare = re.compile(r"[A-Za-z0-9_$-]+")
    return ".".join(str(p) if bare.fullmatch(str(p)) else json.dumps(p, ensure_ascii=False) for p in path)


def at(document: Mapping[str, Any], *path: str) -> Any:
    """The value at *path* of *document*, or None if the path leads nowhere."""
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean "platforms"?`` or, if nothing known is close, nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _decode(file: str, data: bytes) -> str:
    if data.startswith(_BOM):
        raise ProjectError([Problem(file, "1:1", "starts with a byte order mark; save it as UTF-8 without BOM")])
    return _utf8(file, data)


def _utf8(file: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"is not UTF-8: byte 0x{data[error.start]:02x}"
        raise ProjectError([Problem(file, _place(before, len(before)), message)]) from None


def _load(file: str, text: str) -> object:
    try:
        # Numbers are judged by _slips, which knows their place: here no digit limit may interfere.
        return json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        message = f"malformed JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise ProjectError([Problem(file, f"{error.lineno}:{error.colno}", message)]) from None
    except RecursionError:
        raise ProjectError([Problem(file, "1:1", "is nested too deeply")]) from None


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _DIGITS else 0


_DIGITS = 400
"""More digits than a double has places: no integer of a configuration is longer."""


def _slips(file: str, text: str) -> Iterator[Problem]:
    """What is wrong in *text* although the parser took it. Needs well-formed JSON."""
    names: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        message = None
        if token["open"]:
            names.append(set())
        elif token["close"]:
            names.pop()
        elif token["text"]:
            message = _text_slip(json.loads(token["text"]), names if token["colon"] else None)
        else:
            message = _number_slip(token[0])
        if message:
            yield Problem(file, _place(text, token.start()), message)


def _text_slip(value: str, names: list[set[str]] | None) -> str | None:
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "is not valid Unicode: a lone surrogate"
    if names is None:
        return None
    if value in names[-1]:
        return f"duplicate key {json.dumps(value, ensure_ascii=False)}"
    names[-1].add(value)
    return None


def _number_slip(literal: str) -> str | None:
    if literal.endswith(("NaN", "Infinity")):
        return f"{literal} is not JSON"
    if len(literal) > _DIGITS or not math.isfinite(float(literal)):
        return "this number is too large"
    return None


def _place(text: str, index: int) -> str:
    """``line:column`` of *index*, both from 1."""
    return f"{text.count(chr(10), 0, index) + 1}:{index - text.rfind(chr(10), 0, index)}"
