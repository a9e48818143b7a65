"""How an image came to be, as an in-toto Statement v1 with SLSA's provenance v1 as its predicate.

Every pinned input is a resolved dependency: a purl or a source, and its digest. Who built, from which commit and when
is said here only, never in the image; so statements of two builders differ where their images are the same.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pesto_repro.audit import purl
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.lock.model import DebianPackage, Lock, PlatformLock, PythonPackage, Resource, Source
from pesto_repro.oci import Platform
from pesto_repro.registry.content import Document

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:pesto-repro:build:v1"
"""in-toto, field types, "TypeURI": a URI (RFC 3986) that "SHOULD resolve to a human-readable description": this one is
in docs/provenance.md. A URN is one that nobody's host can take away."""
LOCAL_BUILDER = "urn:pesto-repro:builder:local"
"""Who built where nobody says so."""
_BUILDING: dict[str, Any] = {"annotations": {"use": "build"}}
"""Of an input that something was built with, and that is not in the image itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was made: *name* is its reference, *platform* says for which one a manifest is."""

    name: str
    digest: Digest
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """The project's own source: the *address* of its repository (without credentials), if it has one, and the commit.

    *dirty*: files differ from the commit's.
    """

    hex: str
    address: str | None = None
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class Builder:
    """Who built: *name* is a URI that says whom to trust. Times are RFC 3339."""

    version: str
    name: str = LOCAL_BUILDER
    invocation: str | None = None
    started_on: str | None = None
    finished_on: str | None = None


def statement(subjects: Sequence[Subject], lock: Lock, builder: Builder, commit: Commit | None = None) -> bytes:
    """The statement about *subjects*, which were made from *lock*."""
    value = {
        "_type": STATEMENT,
        "subject": [_subject(each) for each in subjects],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _external(lock),
                "internalParameters": _internal(lock),
                "resolvedDependencies": _dependencies(lock, commit),
            },
            "runDetails": {
                "builder": {"id": builder.name, "version": {"pesto-repro": builder.version}},
                "metadata": _present(
                    invocationId=builder.invocation, startedOn=builder.started_on, finishedOn=builder.finished_on
                ),
            },
        },
    }
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _subject(subject: Subject) -> dict[str, Any]:
    annotations = {"platform": subject.platform} if subject.platform else None
    return _present(name=subject.name, digest={"sha256": subject.digest.hex}, annotations=annotations)


def _external(lock: Lock) -> dict[str, Any]:
    """SLSA: "the parameters that are under external control"; the lock is all of them, by its address."""
    return {
        "project": lock.input.name,
        "profiles": list(lock.input.profiles),
        "platforms": list(lock.input.platforms),
        "lock": lock.content_hash,
    }


def _internal(lock: Lock) -> dict[str, Any]:
    """The rules that decide bytes, and the one time that is in the image."""
    rules = lock.assembly
    return {"assembly": rules.version, "compressor": rules.compressor, "epoch": rules.epoch}


def subjects(image: Sequence[Document], reference: str) -> list[Subject]:
    """The image as what a provenance statement is about: its root, then the manifest of each platform."""
    root = image[-1]
    inside = zip(root.children, root.platforms, strict=True)
    return [
        Subject(reference, root.descriptor.digest),
        *(_part(reference, child.digest, platform) for child, platform in inside),
    ]


def _part(reference: str, digest: Digest, platform: Platform | None) -> Subject:
    """in-toto, "subject": names "SHOULD be unique"."""
    return Subject(
        f"{reference} {platform}" if platform else f"{reference} {digest}", digest, str(platform or "") or None
    )


# -- what it was made of -----------------------------------------------------------------------------------------


def _dependencies(lock: Lock, commit: Commit | None) -> list[dict[str, Any]]:
    """Each input once, sorted; one that serves some platforms only names them."""
    found: dict[bytes, tuple[dict[str, Any], list[str]]] = {}
    for each in lock.platforms:
        for descriptor in _of_platform(each):
            found.setdefault(canonical_json(descriptor), (descriptor, []))[1].append(each.platform)
    everywhere = [each.platform for each in lock.platforms]
    ordered = [found[key] for key in sorted(found, key=lambda key: (found[key][0]["name"], key))]
    return [
        *([_commit(commit)] if commit is not None else []),
        *(_resource(each) for each in lock.resources),
        *(each if where == everywhere else _annotated(each, where) for each, where in ordered),
    ]


def _of_platform(locked: PlatformLock) -> Iterator[dict[str, Any]]:
    if locked.base is not None:
        base = locked.base
        yield _descriptor(
            base.original, purl.oci(base.original, base.manifest).to_string(), Digest.parse(base.manifest)
        )
    yield from map(_deb, locked.debian)
    yield from (_deb(each) | _BUILDING for each in locked.build)
    for each in locked.packages:
        yield _wheel(each)
        if each.source is not None:
            yield _source(each.source) | _BUILDING
            yield from (_wheel(tool) | _BUILDING for tool in each.source.requires)


def _deb(package: DebianPackage) -> dict[str, Any]:
    codename = package.suite.partition("-")[0]
    address = purl.debian(package.name, package.version, package.architecture, codename)
    return _descriptor(posixpath.basename(package.filename), address.to_string(), package.digest)


def _wheel(package: PythonPackage) -> dict[str, Any]:
    address = purl.pypi(package.name, package.version)
    return _descriptor(package.wheel.name, address.to_string(), package.wheel.digest)


def _source(source: Source) -> dict[str, Any]:
    """What a wheel was built from; a repository is named as SPDX and pip do, by its address and commit."""
    if source.kind == "git":
        found = _descriptor(source.name, f"git+{source.name}@{source.commit}", source.digest)
        return found | {"digest": {**found["digest"], "gitCommit": source.commit}}
    return _descriptor(source.name, None, source.digest)


def _resource(resource: Resource) -> dict[str, Any]:
    digest = Digest(resource.sha256) if resource.sha256 else Digest.parse(resource.tree or "")
    is_download = resource.source.startswith(("https://", "http://"))  # all else is a file of the project
    return _descriptor(resource.key, resource.source if is_download else None, digest)


def _commit(commit: Commit) -> dict[str, Any]:
    found = _present(
        name="project",
        uri=f"git+{commit.address}@{commit.hex}" if commit.address else None,
        digest={"gitCommit": commit.hex},
    )
    return found | ({"annotations": {"dirty": True}} if commit.dirty else {})


def _descriptor(name: str, address: str | None, digest: Digest) -> dict[str, Any]:
    """in-toto, "ResourceDescriptor": "at least one of uri, digest or content"."""
    return _present(name=name, uri=address, digest={"sha256": digest.hex})


def _annotated(descriptor: Mapping[str, Any], platforms: Sequence[str]) -> dict[str, Any]:
    annotations = {**descriptor.get("annotations", {}), "platforms": list(platforms)}
    return {**descriptor, "annotations": annotations}


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
