"""Maker "documents": what PESTO generates, /etc/pesto and the resolved documents below the algorithm.

The definitions and the API description come from the pinned runtime wheel; everything else is the project's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from pesto_repro.build.entry import Entry, data
from pesto_repro.build.maker import Inputs
from pesto_repro.build.wheels import read_from_wheel
from pesto_repro.plan import Step
from pesto_repro.project.service import config_json, service_json, version_json

DEFINITIONS = "pesto/cli/resources/schema/definitions.json"
API = "pesto/cli/resources/doc/api_geo_process_v1.0.yaml"


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """/etc/pesto/*, and ``root``/pesto/api/*.json as upstream leaves them there."""
    (wheel,) = step.inputs
    with inputs.open(wheel.digest) as stream:
        definitions, api = read_definitions(stream), read_from_wheel(stream, API)
    documents = {name: json.loads(text) for name, text in step.params["documents"].items()}
    service = service_json(documents, definitions)
    version = version_json(documents, f"packaged with pesto-repro for {step.params['runtime']}")
    yield data("etc/pesto/api_geo_process_v1.0.yaml", api)
    yield data("etc/pesto/service.json", service.encode())
    yield data("etc/pesto/version.json", version.encode())
    yield data("etc/pesto/config.json", config_json(documents).encode())
    root = step.params["root"]
    generated = {"service": service, "version": version}
    for name, text in sorted((step.params["documents"] | generated).items()):
        yield data(f"{root}/pesto/api/{name}.json", text.encode())


def read_definitions(runtime: BinaryIO) -> dict[str, Any]:
    """The native definitions (Image, Polygon...), out of the runtime's wheel."""
    found: dict[str, Any] = json.loads(read_from_wheel(runtime, DEFINITIONS))
    return found
