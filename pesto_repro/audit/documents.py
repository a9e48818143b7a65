"""PESTO's documents as an image has them: read out of its layers, wherever they lie.

``/etc/pesto`` has what the service reads, the algorithm's own ``pesto/api`` the project's documents with profiles
applied. Documents are the same on all platforms, so that the first one's layers are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pesto_repro.audit.compare import Held, HeldLayer, clean, opened, platforms
from pesto_repro.digest import Digest

Documents = Mapping[str, Any]
"""JSON values by name: "config", "description"."""
API = re.compile(r"opt/[^/]+/pesto/api/([^/]+)\.json")
ETC = re.compile(r"etc/pesto/([^/]+)\.json")
GENERATED = frozenset(["service", "version"])
"""Documents below the algorithm in an image that are not the project's own."""
_SECTION = "configuration:"


def document_digest(document: object) -> str:
    """The digest of a project's document, as its lock has it."""
    return str(Digest.of(json.dumps(document, sort_keys=True).encode()))


def same_documents(one: Held, other: Held) -> bool:
    """Whether the layers that may have documents are the same."""
    return _layers(one) == _layers(other)


def inside(image: Held, pattern: re.Pattern[str]) -> Documents:
    """The documents whose path *pattern* matches, by name; later layers win."""
    found: dict[str, Any] = {}
    for layer in _layers(image):
        with opened(image.content, layer.descriptor) as reader:
            for info, content in reader.members():
                match = pattern.fullmatch(clean(info.name))
                if match and content is not None:
                    found[match[1]] = _json(content.read())
    return found


def _layers(image: Held) -> list[HeldLayer]:
    """The layer of the configuration; of an image of others, any layer may have documents."""
    layers = [layer for part in list(platforms(image).values())[:1] for layer in part.layers]
    return [each for each in layers if each.name.startswith(_SECTION)] or layers


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")
