"""``inspect``: what is in an image, wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pesto_repro.cli.console import Console, human, show, show_json
from pesto_repro.cli.options import talking_command
from pesto_repro.cli.places import read_place
from pesto_repro.cli.push import Found, find
from pesto_repro.cli.registries import reachable
from pesto_repro.errors import FetchError
from pesto_repro.oci import Descriptor, Platform
from pesto_repro.plan.make import LOCK_LABEL
from pesto_repro.registry.content import Document
from pesto_repro.registry.reference import RemoteReference


@click.command()
@click.argument("image", metavar="REF|FILE|DIR")
@talking_command
def inspect(console: Console, as_json: bool, image: str) -> int:
    """Show an image, of a registry, an archive or a layout: its platforms, its lock, and what is in each layer.

    \b
    pesto-repro inspect dist/hello-service-1.0.0.oci.tar
    pesto-repro inspect registry.example/team/hello-service:1.0.0 --json
    """
    place = read_place(image)
    with reachable(console, place.host if isinstance(place, RemoteReference) else None) as registries:
        described = describe(find(place, registries))
    if as_json:
        show_json(described)
    else:
        for line in _lines(described):
            show(line)
    return 0


def describe(found: Found) -> dict[str, Any]:
    """Everything that is shown: documents and configs are read, layers are not."""
    stated = {
        child.digest: platform
        for document in found.image
        for child, platform in zip(document.children, document.platforms, strict=True)
    }
    platforms = [
        _platform(found, document, stated.get(document.descriptor.digest)) for document in found.image if document.blobs
    ]
    locks = dict.fromkeys(each["labels"].get(LOCK_LABEL) for each in platforms)
    return {
        "name": str(found.reference) if found.reference else found.name,
        "digest": str(found.root.digest),
        "media_type": found.root.media_type,
        "lock": next(iter(locks)) if len(locks) == 1 else None,
        "platforms": platforms,
    }


def _platform(found: Found, manifest: Document, stated: Platform | None) -> dict[str, Any]:
    config, *layers = manifest.blobs
    document = _config(found, config)
    execution = _table(document, "config")
    said = {key: document[key] for key in ("os", "architecture", "variant") if document.get(key)}
    return {
        "platform": str(stated) if stated else "/".join(map(str, said.values())) or None,
        "manifest": str(manifest.descriptor.digest),
        "config": str(config.digest),
        "created": document.get("created"),
        "user": execution.get("User") or None,
        "env": list(execution.get("Env") or ()),
        "entrypoint": list(execution.get("Entrypoint") or ()),
        "cmd": list(execution.get("Cmd") or ()),
        "labels": dict(execution.get("Labels") or {}),
        "size": sum(layer.size for layer in layers),
        "layers": list(_layers(layers, document)),
    }


def _config(found: Found, descriptor: Descriptor) -> Mapping[str, Any]:
    try:
        document = json.loads(found.content.document(descriptor))
    except ValueError as error:
        raise FetchError(f"the config {descriptor.digest} is no JSON document: {error}") from None
    return document if isinstance(document, dict) else {}


def _layers(layers: list[Descriptor], config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """config.md, "history": entries with "empty_layer" have no layer; others stand in the layers' order."""
    history = [each.get("created_by") for each in config.get("history") or () if not each.get("empty_layer")]
    diff_ids = list(_table(config, "rootfs").get("diff_ids") or ())
    for number, layer in enumerate(layers):
        yield {
            "digest": str(layer.digest),
            "diff_id": diff_ids[number] if number < len(diff_ids) else None,
            "media_type": layer.media_type,
            "size": layer.size,
            "created_by": history[number] if len(history) == len(layers) else None,
        }


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _lines(described: Mapping[str, Any]) -> Iterator[str]:
    """The same, for people."""
    yield f"{described['name'] or 'image'}@{described['digest']}"
    if described["lock"]:
        yield f"lock      {described['lock']}"
    for each in described["platforms"]:
        yield ""
        yield from _platform_lines(each)


def _platform_lines(platform: Mapping[str, Any]) -> Iterator[str]:
    yield f"{platform['platform'] or 'no platform'}, {len(platform['layers'])} layers, {human(platform['size'])}"
    for key in ("manifest", "config", "created", "user"):
        if platform[key]:
            yield f"  {key:<9} {platform[key]}"
    for key in ("entrypoint", "cmd"):
        if platform[key]:
            yield f"  {key:<9} {json.dumps(platform[key], ensure_ascii=False)}"
    yield from (f"  env       {each}" for each in platform["env"])
    yield from (f"  label     {key}={value}" for key, value in sorted(platform["labels"].items()))
    for layer in platform["layers"]:
        digest = layer["digest"].removeprefix("sha256:")[:12]
        yield f"  layer     {digest}  {human(layer['size']):>9}  {layer['created_by'] or ''}".rstrip()
