"""The documents that the service reads below /etc/pesto, generated from those of ``pesto/api``.

============== ==========================================================================================
service.json   description + ``config`` (the schema) + ``input`` and ``output``, each with ``definitions``
version.json   ``{"version": description.version, **version.json, "__packaging": ...}``
config.json    config.json
============== ==========================================================================================

*documents* are by name ("description", "input_schema"...), profiles applied. *definitions* are the native
ones, which the runtime's wheel brings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Documents = Mapping[str, Mapping[str, Any]]


def service_json(documents: Documents, definitions: Mapping[str, Any]) -> str:
    """The text of /etc/pesto/service.json."""
    every = {**documents.get("user_definitions", {}), **definitions}
    return _text(
        {
            **documents["description"],
            "config": documents["config_schema"],
            "input": {**documents["input_schema"], "definitions": every},
            "output": {**documents["output_schema"], "definitions": every},
        }
    )


def version_json(documents: Documents, packaging: str) -> str:
    """The text of /etc/pesto/version.json; *packaging* says what made the image."""
    version = {"version": documents["description"]["version"], **documents["version"]}
    return _text({**version, "__packaging": packaging})


def config_json(documents: Documents) -> str:
    """The text of /etc/pesto/config.json."""
    return _text(documents["config"])


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=4, sort_keys=True)
