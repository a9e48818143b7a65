"""The one wheel of each package: of those that ``uv`` found fitting, the one that suits the image best, pinned.

A pinned wheel is kept while it is still offered. Of what is to be built it is the source distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from pesto_repro.digest import Digest
from pesto_repro.errors import MismatchError, ResolveError
from pesto_repro.fetch.index import Indexes, with_credentials
from pesto_repro.lock.model import Pin, PythonPackage
from pesto_repro.progress import Reporter
from pesto_repro.resolve.failures import NoWheels
from pesto_repro.resolve.request import LocalWheel, Request, Sdist
from pesto_repro.resolve.wheel_tags import image_tags

Download = Callable[[str, str], tuple[Digest, int]]
"""(address, label) -> digest and size of what lies there and is in the store then: ``Fetcher.pin``."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A wheel that uv offers. *sha256* and *size* are None where the index does not say."""

    filename: str
    url: str
    sha256: str | None
    size: int | None
    uploaded: datetime | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen of a package: an index's *file*, or the wheel *local* that the project brings."""

    name: str
    version: str
    file: _Offer
    local: LocalWheel | None = None
    is_sdist: bool = False


def choose(package: Mapping[str, Any], request: Request) -> Chosen:
    """The best wheel of a ``[[packages]]`` table of PEP 751, or the wheel that the project brought."""
    name = canonicalize_name(package["name"])
    if "archive" in package:
        return _brought(name, package, request)
    if name in request.from_source and "sdist" in package:
        return Chosen(name, package["version"], _offer(package["sdist"]), is_sdist=True)
    offers = [_offer(each) for each in package.get("wheels", ())]
    best = _best(offers, request, name)
    if best is None:
        raise NoWheels(f"{name} {package['version']} has no wheel for {request.target}", [name])
    return Chosen(name, package["version"], best)


def _brought(name: str, package: Mapping[str, Any], request: Request) -> Chosen:
    archive = package["archive"]
    for wheel in request.wheels:
        if wheel.filename == _basename(archive.get("path") or archive.get("url", "")):
            version = package.get("version") or str(parse_wheel_filename(wheel.filename)[1])
            offer = _Offer(wheel.filename, "", wheel.digest.hex, wheel.size, None)
            return Chosen(name, version, offer, wheel)
    raise ResolveError(
        f"{name} is required from an address by another package; a lock names no host",
        "require it yourself, from a git repository or a folder, or bring its wheel as a "
        '"type": "pip" entry of requirements.json',
    )


def _offer(table: Mapping[str, Any]) -> _Offer:
    url = table.get("url", "")
    path = table.get("path")
    address = url or (Path(path).as_uri() if path else "")
    return _Offer(
        table.get("name") or _basename(address),
        address,
        table.get("hashes", {}).get("sha256"),
        table.get("size"),
        table.get("upload-time"),
    )


def _best(offers: Sequence[_Offer], request: Request, name: str) -> _Offer | None:
    """The wheel pinned so far if it is still offered, else the one whose tag comes first, if one fits."""
    rank = {tag: number for number, tag in enumerate(image_tags(request.python, request.platform))}
    fitting = {each.filename: each for each in offers if _rank(each.filename, rank) is not None}
    pinned = _kept(request, name)
    if pinned is not None and pinned.wheel.name in fitting:
        return fitting[pinned.wheel.name]
    return min(fitting.values(), key=lambda each: (_rank(each.filename, rank), each.filename), default=None)


def _rank(filename: str, rank: Mapping[Tag, int]) -> tuple[int, int, str] | None:
    """Less is better. PEP 427: the build number "acts as a tie-breaker"; the higher is the newer."""
    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    accepted = [rank[tag] for tag in tags if tag in rank]
    number, suffix = build or (0, "")
    return (min(accepted), -number, suffix) if accepted else None


def _kept(request: Request, name: str) -> PythonPackage | None:
    found = (each for each in request.keep if each.name == name and each.resource is None)
    return next(found, None) if request.keeps(name) else None


def pin(
    chosen: Chosen,
    request: Request,
    indexes: Indexes,
    sources: Mapping[str, str],
    download: Download,
    reporter: Reporter,
) -> PythonPackage | Sdist:
    """What the lock says of *chosen*; bytes whose digest or size the index does not tell are downloaded."""
    offer = _as_pinned(chosen, request, reporter)
    if chosen.local is not None:
        return _package(chosen, offer, resource=chosen.local.key)
    if offer.sha256 is None or offer.size is None:
        offer = _measured(offer, indexes, download)
    if chosen.is_sdist:
        return _sdist(chosen, replace(offer, url=_asked_as(offer.url, indexes)), sources.get(chosen.name))
    return _package(chosen, offer, index=sources.get(chosen.name))


def _as_pinned(chosen: Chosen, request: Request, reporter: Reporter) -> _Offer:
    """The offer of *chosen*, with the size that the existing pin knows. A file that was replaced is told."""
    offer, kept = chosen.file, _kept(request, chosen.name)
    pinned = (kept.source if chosen.is_sdist else kept.wheel) if kept is not None else None
    if pinned is None or pinned.name != offer.filename:
        return offer
    if offer.sha256 in (None, pinned.sha256):
        return replace(offer, sha256=pinned.sha256, size=pinned.size)
    if kept is not None and kept.source is not None and not chosen.is_sdist:
        return offer  # nobody replaced what was built here, of a folder or a branch that went on
    reporter.warn(
        f"{offer.filename} is not the file that was pinned: sha256:{pinned.sha256}, now sha256:{offer.sha256}",
        "find out who replaced it before you trust the new pin",
    )
    return offer


def _measured(offer: _Offer, indexes: Indexes, download: Download) -> _Offer:
    """*offer* with the digest and size of its bytes."""
    digest, size = download(_asked_as(offer.url, indexes), offer.filename)
    if offer.sha256 not in (None, digest.hex):
        raise MismatchError(
            f"{offer.filename} is not what its index says: sha256:{offer.sha256} is listed, {digest} was sent",
            "try again; if it stays so, the index is broken",
        )
    return replace(offer, sha256=digest.hex, size=size)


def _asked_as(url: str, indexes: Indexes) -> str:
    """*url* with the credentials of the index that it belongs to."""
    for each in (*(index.url for index in indexes.active), *indexes.find_links):
        url = with_credentials(url, each)
    return url


def _sdist(chosen: Chosen, offer: _Offer, index: str | None) -> Sdist:
    assert offer.sha256 is not None
    assert offer.size is not None
    file = Pin(name=offer.filename, sha256=offer.sha256, size=offer.size)
    return Sdist(chosen.name, chosen.version, file, offer.url, index, _rfc3339(offer.uploaded))


def _package(chosen: Chosen, offer: _Offer, *, index: str | None = None, resource: str | None = None) -> PythonPackage:
    assert offer.sha256 is not None
    assert offer.size is not None
    wheel = Pin(name=offer.filename, sha256=offer.sha256, size=offer.size)
    return PythonPackage(
        name=chosen.name,
        version=chosen.version,
        index=index,
        resource=resource,
        upload_time=_rfc3339(offer.uploaded),
        wheel=wheel,
        source=chosen.local.source if chosen.local is not None else None,
    )


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def _basename(address: str) -> str:
    return unquote(urlsplit(address).path).rpartition("/")[2]
