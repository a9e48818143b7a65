"""A lock as text, and back: canonical TOML whose ``content-hash`` is the lock's address.

The hash is over an explicit value (:func:`content`), never over a serialised model, and is checked over what is
written: neither another version of a library nor a new key with a default changes the hash of an unchanged lock.

A lock with the conflict markers of a merge is understood: :func:`split_conflict` gives both sides, :func:`agreed`
what to keep of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli
from pydantic import ValidationError

from pesto_repro.digest import digest_of_value
from pesto_repro.errors import LockError
from pesto_repro.lock import toml
from pesto_repro.lock.model import (
    LOCK_VERSION,
    BaseImage,
    DebianPackage,
    Input,
    Interpreter,
    Lock,
    Pin,
    PlatformLock,
    PythonPackage,
    Resource,
    Source,
)

HEADER = "# Made by `pesto-repro lock`. Change the project, then lock again; this file is not for editing.\n"
_AGAIN = "restore it from version control, or remove it and run `pesto-repro lock`"


def content(lock: Lock) -> dict[str, Any]:
    """Everything in *lock* but its content-hash, spelled out with the lock's own keys; what is absent is left out."""
    return {
        "lock-version": lock.lock_version,
        "assembly": {
            "version": lock.assembly.version,
            "compression": lock.assembly.compression,
            "compressor": lock.assembly.compressor,
            "epoch": lock.assembly.epoch,
        },
        "input": _input(lock.input),
        "resources": [_resource(each) for each in lock.resources],
        "platforms": [_platform(each) for each in lock.platforms],
    }


def _input(asked: Input) -> dict[str, Any]:
    return _present(
        {
            "name": asked.name,
            "profiles": list(asked.profiles),
            "merge": asked.merge,
            "platforms": list(asked.platforms),
            "base": asked.base,
            "base-packages": list(asked.base_packages),
            "python": asked.python,
            "runtime": asked.runtime,
            "closure": asked.closure,
            "requires": list(asked.requires),
            "constraints": list(asked.constraints),
            "max-layers": asked.max_layers,
            "compression": asked.compression,
            "user": asked.user,
            "labels": dict(asked.labels),
            "system-packages": asked.system_packages or None,
            "build-from-source": list(asked.build_from_source) or None,
            "allow-unreproducible": list(asked.allow_unreproducible) or None,
            "build-packages": list(asked.build_packages) or None,
            "embed-lock": asked.embed_lock or None,
            "environments": list(asked.environments),
            "documents": dict(asked.documents),
            "overrides": list(asked.overrides) or None,
            "resources": [
                _present(
                    {
                        "key": each.key,
                        "source": each.source,
                        "to": each.to,
                        "type": each.type,
                        "sha256": each.sha256,
                    }
                )
                for each in asked.resources
            ],
        }
    )


def _resource(each: Resource) -> dict[str, Any]:
    found = {"key": each.key, "form": each.form, "source": each.source, "to": each.to}
    return _present(found | {"sha256": each.sha256, "size": each.size, "tree": each.tree})


def _platform(each: PlatformLock) -> dict[str, Any]:
    return _present(
        {
            "platform": each.platform,
            "base": _base(each.base) if each.base is not None else None,
            "python": _interpreter(each.python),
            "debian": [_debian(package) for package in each.debian],
            "packages": [_package(package) for package in each.packages],
            "build": [_debian(package) for package in each.build] or None,
        }
    )


def _interpreter(python: Interpreter) -> dict[str, Any]:
    found = {"version": python.version, "executable": python.executable, "libc": python.libc}
    return _present(found | {"prefix": python.prefix, "abi": python.abi})


def _base(base: BaseImage) -> dict[str, Any]:
    return _present(
        {
            "original": base.original,
            "index": base.index,
            "manifest": base.manifest,
            "media-type": base.media_type,
            "config": {"digest": base.config.digest, "size": base.config.size},
            "created": base.created,
            "layers": [
                {"digest": each.digest, "size": each.size, "diff-id": each.diff_id, "media-type": each.media_type}
                for each in base.layers
            ],
            "env": list(base.env),
            "links": dict(base.links),
            "packages": [{"name": each.name, "version": each.version} for each in base.packages],
        }
    )


def _debian(each: DebianPackage) -> dict[str, Any]:
    found = {"version": each.version, "architecture": each.architecture, "filename": each.filename}
    return _pin(each) | found | {"suite": each.suite, "snapshot": each.snapshot}


def _package(each: PythonPackage) -> dict[str, Any]:
    found = {
        "name": each.name,
        "version": each.version,
        "index": each.index,
        "resource": each.resource,
        "upload-time": each.upload_time,
    }
    source = _source(each.source) if each.source is not None else None
    return _present(found | {"wheel": _pin(each.wheel), "source": source})


def _source(each: Source) -> dict[str, Any]:
    found = {"kind": each.kind, "name": each.name, "sha256": each.sha256, "size": each.size}
    return _present(
        found
        | {
            "commit": each.commit,
            "subdirectory": each.subdirectory,
            "requires": [_package(package) for package in each.requires] or None,
            "files": list(each.files) or None,
            "reproducible": None if each.reproducible else False,
        }
    )


def _pin(each: Pin) -> dict[str, Any]:
    return {"name": each.name, "sha256": each.sha256, "size": each.size}


def _present(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: a key without a value is left out."""
    return {key: value for key, value in table.items() if value is not None}


def seal(unsealed: Lock) -> Lock:
    """The same lock with the content-hash it ought to have."""
    return unsealed.model_copy(update={"content_hash": _hash(content(unsealed))})


def _hash(document: Mapping[str, Any]) -> str:
    """Over all of *document* but the content-hash itself, as written: the defaults of who reads it do not count."""
    return str(digest_of_value({key: value for key, value in document.items() if key != "content-hash"}))


def dumps(lock: Lock) -> str:
    """The canonical text. Equal locks give equal text."""
    return HEADER + toml.dumps({**content(lock), "content-hash": lock.content_hash})


def loads(text: str, where: str, *, trusted: bool = True) -> Lock:
    """Read a lock; *where* names it in messages. Raises LockError for one that is broken or was edited.

    ``trusted=False`` leaves the content-hash unchecked, for one side of a merge.
    """
    document = _parse(text, where)
    version = document.get("lock-version")
    if version != LOCK_VERSION:
        raise LockError(
            f"{where} has lock-version {version!r}; this pesto-repro reads lock-version {LOCK_VERSION}",
            "use the pesto-repro that wrote it, or remove it and run `pesto-repro lock`",
        )
    try:
        lock = Lock.model_validate(_tuples(document))
    except ValidationError as error:
        raise LockError(f"{where} is not a lock:\n  " + "\n  ".join(_explain(error)), _AGAIN) from None
    expected = _hash(document)
    if trusted and lock.content_hash != expected:
        raise LockError(
            f"{where} was edited by hand: its content-hash is {lock.content_hash}, its content has {expected}",
            _AGAIN,
        )
    return lock


def has_conflict(text: str) -> bool:
    """Are there conflict markers of a merge in *text*?"""
    return any(line.startswith("<<<<<<< ") for line in text.split("\n"))


def split_conflict(text: str) -> tuple[str, str]:
    """Both sides of a text with conflict markers; a common ancestor (``|||||||``) belongs to neither."""
    sides: tuple[list[str], list[str]] = ([], [])
    into: tuple[int, ...] = (0, 1)
    for line in text.split("\n"):
        marker = line[:7]
        if marker == "<<<<<<<":
            into = (0,)
        elif marker == "|||||||" and into == (0,):
            into = ()
        elif line == "=======" and into != (0, 1):
            into = (1,)
        elif marker == ">>>>>>>":
            into = (0, 1)
        else:
            for side in into:
                sides[side].append(line)
    return "\n".join(sides[0]), "\n".join(sides[1])


def agreed(ours: Lock, theirs: Lock) -> Lock:
    """*ours* without the pins that *theirs* has differently: those are to be resolved anew."""
    others = {each.platform: each for each in theirs.platforms}
    platforms = tuple(_common(each, others[each.platform]) for each in ours.platforms if each.platform in others)
    resources = tuple(each for each in ours.resources if each in theirs.resources)
    return seal(ours.model_copy(update={"platforms": platforms, "resources": resources}))


def _common(ours: PlatformLock, theirs: PlatformLock) -> PlatformLock:
    packages: tuple[PythonPackage, ...] = tuple(each for each in ours.packages if each in theirs.packages)
    debian = tuple(each for each in ours.debian if each in theirs.debian)
    build = tuple(each for each in ours.build if each in theirs.build)
    base = ours.base if ours.base == theirs.base else None
    return ours.model_copy(update={"packages": packages, "debian": debian, "build": build, "base": base})


def _parse(text: str, where: str) -> dict[str, Any]:
    if has_conflict(text):
        raise LockError(
            f"{where} has the conflict markers of a merge", "run `pesto-repro lock`: it keeps what both sides agree on"
        )
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise LockError(f"{where} is not TOML: {error}", _AGAIN) from None


def _tuples(value: object) -> Any:
    """Arrays as tuples: the model is frozen all the way down."""
    if isinstance(value, Mapping):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _explain(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
