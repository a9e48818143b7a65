"""Profiles: how ``X.p1.json`` and ``X.p2.json`` update ``X.json``.

The PESTO documentation: "Profiles do not work recursively yet. Only the root level is compared." That is the
policy ``root``, the default: a nested object is replaced whole. Upstream's code merges nested objects: the
policy ``deep``. Where a project would come out differently under the two, ``differences`` names the keys.

>>> cascade([{"a": {"x": 1}}, {"a": {"y": 2}}])
{'a': {'y': 2}}
>>> cascade([{"a": {"x": 1}}, {"a": {"y": 2}}], "deep")
{'a': {'x': 1, 'y': 2}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pesto_repro.project.documents import Document, dotted

Merge = Literal["root", "deep"]
Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""The files that make one document, (file name, content), the base first."""


def cascade(documents: Sequence[Mapping[str, Any]], merge: Merge = "root") -> Document:
    """The first of *documents*, updated by each of the others in turn. None of them is changed."""
    update = _update_root if merge == "root" else _update_deep
    result: Mapping[str, Any] = {}
    for document in documents:
        result = update(result, document)
    return dict(result)


def differences(documents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The dotted keys that "deep" keeps and "root" drops, sorted: empty if the policy does not matter."""
    return tuple(sorted(_dropped(cascade(documents, "deep"), cascade(documents, "root"), ())))


def origin(layers: Layers, path: Sequence[str | int], merge: Merge) -> str:
    """The file of *layers* that decided the value at *path*: the one to name in a message about it."""
    depth = 1 if merge == "root" else len(path)
    scores = [(_depth(document, path[:depth]), index) for index, (_, document) in enumerate(layers)]
    deepest, index = max(scores, default=(0, 0))
    return layers[index if deepest else 0][0]


def _update_root(base: Mapping[str, Any], update: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**base, **update}


def _update_deep(base: Mapping[str, Any], update: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**base, **{key: _merged(base.get(key), value) for key, value in update.items()}}


def _merged(old: object, new: object) -> object:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _update_deep(old, new)
    return new


def _dropped(deep: Mapping[str, Any], root: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in deep.items():
        if key not in root:
            yield dotted((*path, key))
        elif isinstance(value, Mapping):
            yield from _dropped(value, root[key], (*path, key))


def _depth(value: Any, path: Sequence[str | int]) -> int:
    """How many steps of *path* lead somewhere in *value*."""
    for depth, step in enumerate(path):
        if not isinstance(value, (Mapping, list)):
            return depth
        try:
            value = value[step]  # type: ignore[index]  # a step that does not fit is what is asked
        except (LookupError, TypeError):
            return depth
    return len(path)
