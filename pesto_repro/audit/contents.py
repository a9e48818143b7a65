"""What is in an image, as one value: packages, files, resources, the base, and in which layer each lies.

It is read from the image's layers, which say what packages they hold and under which licences; so an image alone is
enough, and a bill of materials is of what *is* there, not of what was meant to be. The lock, if at hand, adds what
layers do not know: the wheels and .debs that packages came in, where resources come from, the base's name. An image
that is not what its lock says is refused: nothing is dropped silently.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from packaging.metadata import parse_email
from packaging.version import InvalidVersion, Version

from pesto_repro.audit import purl
from pesto_repro.audit.compare import labels_of, read_config
from pesto_repro.audit.licences import NONE, Licence, of_copyright, of_metadata
from pesto_repro.audit.scan import HASHED, OS_RELEASE, Found, ImageLayer, Scanned, image_layers, scan
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, LockError, PestoError
from pesto_repro.fetch.debian import paragraphs
from pesto_repro.lock.model import DebianPackage, Lock, PlatformLock, PythonPackage, Source, canonicalize_name
from pesto_repro.oci import Platform
from pesto_repro.plan.make import LOCK_LABEL, VENV
from pesto_repro.registry.content import BASE, Document
from pesto_repro.registry.ports import Content

_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
_PYTHON = re.compile(r"(?:.*/)?(?:site|dist)-packages/[^/]+(?:\.dist-info/METADATA|\.egg-info(?:/PKG-INFO)?)")
_STATUS = "var/lib/dpkg/status"

SERIALS = UUID("6f0d7c7e-3f0a-5a55-9d4c-6d1b8e2f7a31")
"""The name space of the documents' identifiers, which follow from the image's digest."""

Kind = Literal["python", "debian"]


@dataclass(frozen=True, slots=True)
class Package:
    """A package: *section* is that of its layer ("runtime" is the web service's).

    *filename*, *sha256* and *size* are of the wheel or .deb, as locked; *source* is what a wheel was built from.
    """

    kind: Kind
    section: str
    name: str
    version: str
    purl: purl.PackageURL
    licence: Licence
    layer: ImageLayer
    filename: str | None = None
    sha256: str | None = None
    size: int | None = None
    source: Source | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.name, self.version


@dataclass(frozen=True, slots=True)
class ImageResource:
    """A resource: *sha256* is that of its file or archive, *tree* the digest of a directory's list of files."""

    key: str
    layer: ImageLayer
    source: str | None = None
    sha256: str | None = None
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class ImageBase:
    """The base image: its *name* and *digest* as locked."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything in the image for one *platform*, sorted.

    *digest* is its manifest's, *created* in UTC; *name* and *version* are its labels', as a reference is no part of an
    image.
    """

    name: str
    version: str | None
    platform: Platform
    digest: Digest
    created: datetime
    lock: str | None
    layers: tuple[ImageLayer, ...]
    packages: tuple[Package, ...]
    files: tuple[Found, ...]
    resources: tuple[ImageResource, ...]
    base: ImageBase | None
    python: str | None


def contents(manifest: Document, content: Content, lock: Lock | None = None) -> Contents:
    """What is in the image that *manifest* names, and was made from *lock*.

    Raises FetchError for layers that cannot be read, LockError for a lock that is not the image's.
    """
    config = read_config(manifest, content)
    layers = image_layers(manifest, config)
    scanned = scan(layers, content)
    labels = labels_of(config)
    if lock is not None:
        require_lock(lock, config)
    platform = platform_of(config)
    locked = lock.platform(str(platform)) if lock is not None else None
    packages = tuple(sorted(_packages(scanned, locked), key=lambda each: (each.key, each.section, each.layer.number)))
    if locked is not None:
        _require_locked(packages, locked)
    return Contents(
        name=str(labels.get(_TITLE) or "image"),
        version=str(labels[_VERSION]) if labels.get(_VERSION) else None,
        platform=platform,
        digest=manifest.descriptor.digest,
        created=_created(config),
        lock=labels.get(LOCK_LABEL),
        layers=layers,
        packages=packages,
        files=_files(scanned),
        resources=tuple(_resources(layers, lock)),
        base=_base(locked),
        python=locked.python.version if locked is not None else None,
    )


def require_lock(lock: Lock, config: Mapping[str, Any]) -> None:
    """Raises LockError unless *lock* is the one that the label in the image's *config* names."""
    label = labels_of(config).get(LOCK_LABEL)
    if lock.content_hash != label:
        said = f"from the lock {label}" if label else "from no lock that it names"
        raise LockError(
            f"the image was made {said}, not from {lock.content_hash}", "give the lock that it was made from"
        )


def _created(config: Mapping[str, Any]) -> datetime:
    """The image's own time. config.md: it is OPTIONAL; documents want one, and without it that is 1970."""
    said = config.get("created") or "1970-01-01T00:00:00Z"
    try:
        moment = datetime.fromisoformat(said)
    except (TypeError, ValueError):
        raise FetchError(f"the image's config says that it was created at {said!r}, which is no time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def platform_of(config: Mapping[str, Any]) -> Platform:
    """The platform that an image's *config* names. config.md: "architecture" and "os" are REQUIRED."""
    try:
        return Platform(str(config["os"]), str(config["architecture"]), config.get("variant"))
    except KeyError as error:
        raise FetchError(f"the image's config does not say its {error.args[0]}") from None


# -- packages ----------------------------------------------------------------------------------------------------


def _packages(scanned: Scanned, locked: PlatformLock | None) -> Iterator[Package]:
    wheels = {each.name: each for each in locked.packages} if locked is not None else {}
    debs = {each.name: each for each in locked.debian} if locked is not None else {}
    system = _os_release(scanned)
    for path, found in scanned.paths.items():
        if found.data is None:
            continue
        if _PYTHON.fullmatch(path) and _counts(path, found.layer):
            yield from _python(found, wheels)
        elif path == _STATUS or path.startswith(f"{_STATUS}.d/"):
            for fields in paragraphs(found.data.decode("utf-8", "replace")):
                yield from _debian(fields, found.layer, debs, scanned, system)


def _counts(path: str, layer: ImageLayer) -> bool:
    """In our layers, packages are in the virtual environment: what Debian's bring belongs to Debian's."""
    return layer.section == BASE or path.startswith(f"{VENV}/")


def _python(found: Found, wheels: Mapping[str, PythonPackage]) -> Iterator[Package]:
    raw, _ = parse_email(found.data or b"")
    if not raw.get("name") or not raw.get("version"):
        return
    name, section = canonicalize_name(raw["name"]), found.layer.section
    wheel = wheels.get(name) if section != BASE else None
    licence = of_metadata(raw.get("license_expression"), raw.get("license"), raw.get("classifiers", ()))
    version = wheel.version if wheel is not None and _same(wheel.version, raw["version"]) else raw["version"]
    package = Package("python", section, name, version, purl.pypi(name, version), licence, found.layer)
    if wheel is not None:
        pin = wheel.wheel
        package = replace(package, filename=pin.name, sha256=pin.sha256, size=pin.size, source=wheel.source)
    yield package


def _same(one: str, other: str) -> bool:
    """PEP 440: ``1.0`` and ``1.0.0`` are one version."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _debian(
    fields: Mapping[str, str],
    layer: ImageLayer,
    debs: Mapping[str, DebianPackage],
    scanned: Scanned,
    system: Mapping[str, str],
) -> Iterator[Package]:
    name, version = fields.get("package"), fields.get("version")
    # dpkg(1): of a package that was removed "config-files" may remain
    if not name or not version or fields.get("status", "installed").split()[-1:] != ["installed"]:
        return
    pin = debs.get(name) if layer.section != BASE else None
    copyright_file = scanned.document(f"usr/share/doc/{name}/copyright")
    licence = of_copyright((copyright_file.data or b"").decode("utf-8", "replace")) if copyright_file else NONE
    architecture, codename = fields.get("architecture"), system.get("VERSION_CODENAME")
    known_as = purl.debian(name, version, architecture, codename, system.get("ID", "debian"))
    package = Package("debian", layer.section, name, version, known_as, licence, layer)
    if pin is not None:
        filename = posixpath.basename(pin.filename)
        package = replace(package, filename=filename, sha256=pin.sha256, size=pin.size)
    yield package


def _os_release(scanned: Scanned) -> Mapping[str, str]:
    """os-release(5): "newline-separated list of environment-like shell-compatible variable assignments"."""
    for path in OS_RELEASE:
        found = scanned.document(path)
        if found is not None and found.data is not None:
            lines = found.data.decode("utf-8", "replace").splitlines()
            return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    return {}


def _require_locked(packages: Iterable[Package], locked: PlatformLock) -> None:
    """What is locked is in the image, what is in the image is locked."""
    inside = {each.key for each in packages if each.section != BASE}
    wanted = {("python", each.name, each.version) for each in locked.packages}
    wanted |= {("debian", each.name, each.version) for each in locked.debian}
    if inside != wanted:
        lines = [f"{name} {version} ({kind}) is not locked" for kind, name, version in sorted(inside - wanted)]
        lines += [f"{name} {version} ({kind}) is not in it" for kind, name, version in sorted(wanted - inside)]
        raise PestoError(
            "\n  ".join(["the image is not what its lock says:", *lines]),
            "do not trust it; build it again and compare: pesto-repro verify",
        )


# -- the rest ----------------------------------------------------------------------------------------------------


def _files(scanned: Scanned) -> tuple[Found, ...]:
    """The project's own files and the documents that were made of them."""
    found = (each for each in scanned.paths.values() if each.sha256 is not None and each.layer.section in HASHED)
    return tuple(sorted(found, key=lambda each: each.path))


def _resources(layers: Sequence[ImageLayer], lock: Lock | None) -> Iterator[ImageResource]:
    locked = {each.key: each for each in lock.resources} if lock is not None else {}
    for layer in sorted((each for each in layers if each.section == "resources"), key=lambda each: each.name):
        pin = locked.get(layer.name)
        if pin is None:
            yield ImageResource(layer.name, layer)
        else:
            yield ImageResource(layer.name, layer, pin.source, pin.sha256, pin.tree)


def _base(locked: PlatformLock | None) -> ImageBase | None:
    if locked is None or locked.base is None:
        return None
    return ImageBase(locked.base.original, Digest.parse(locked.base.manifest))
