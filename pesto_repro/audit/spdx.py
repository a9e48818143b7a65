"""The bill of materials as SPDX 2.3, in JSON.

Equal images have equal documents, as with CycloneDX. What the layers hold of the project itself is one package whose
files are listed; every other package is as it was pinned, and says where it is in its comment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid5

from pesto_repro.audit.contents import SERIALS, Contents, ImageBase, ImageResource, Package
from pesto_repro.audit.licences import Licence
from pesto_repro.audit.scan import Found, ImageLayer

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-image"
_PROJECT = "SPDXRef-project"
_NOBODY = "NOASSERTION"
_FORBIDDEN = re.compile(r"[^A-Za-z0-9.-]+")


def document(found: Contents) -> bytes:
    """The bill of materials of *found*."""
    packages = [*_packages(found)]
    files = [_file(each) for each in found.files]
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{found.name} {found.platform}",
        # 6.5: "a unique absolute Uniform Resource Identifier (URI)"
        "documentNamespace": uuid5(SERIALS, f"spdx {found.digest}").urn,
        # 6.9: YYYY-MM-DDThh:mm:ssZ
        "creationInfo": {"created": f"{found.created:%Y-%m-%dT%H:%M:%SZ}", "creators": ["Tool: pesto-repro"]},
        "packages": packages,
        "files": files,
        "relationships": [*_relationships(packages, files)],
    }
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _packages(found: Contents) -> Iterator[dict[str, Any]]:
    """Every package, with identifiers that are like no other's."""
    yield _image(found)
    if found.files:
        yield _project(found)
    taken: set[str] = set()
    others = [*map(_package, found.packages), *map(_resource, found.resources)]
    others += [_base(found.base)] if found.base is not None else []
    for each in others:
        name, number = each["SPDXID"], 2
        while each["SPDXID"] in taken:
            each["SPDXID"], number = f"{name}-{number}", number + 1
        taken.add(each["SPDXID"])
        yield each


def _image(found: Contents) -> dict[str, Any]:
    layers = [f"layer {each.number}: {each.section}, {_place(each)}" for each in found.layers]
    python = [f"Python {found.python}"] if found.python else []
    lock = [f"lock {found.lock}"] if found.lock else []
    return _described(
        _IMAGE, found.name, found.version, found.digest.hex, "CONTAINER", "\n".join([*lock, *python, *layers])
    )


def _project(found: Contents) -> dict[str, Any]:
    """The project's own files, and the documents made of them."""
    # 7.9: "SHA1 value of the ... list of sorted SHA1 values"
    sums = "".join(sorted(each.sha1 or "" for each in found.files))
    code = hashlib.sha1(sums.encode(), usedforsecurity=False).hexdigest()
    described = _described(_PROJECT, f"{found.name} project files", found.version, None, "SOURCE", None)
    return described | {"filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": code}}


def _package(package: Package) -> dict[str, Any]:
    comment = f"{package.section}, layer {package.layer.number}, {_place(package.layer)}"
    purpose = "APPLICATION" if package.section == "runtime" else "LIBRARY"
    described = _described(
        f"{package.kind}-{package.name}", package.name, package.version, package.sha256, purpose, comment
    )
    locator = {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": package.purl.to_string(),
    }
    filename = {"packageFileName": package.filename} if package.filename else {}
    return described | filename | _licence(package.licence) | _source(package) | {"externalRefs": [locator]}


def _source(package: Package) -> dict[str, Any]:
    """7.12: "any relevant background information or additional comments about the origin of the package"."""
    source = package.source
    if source is None:
        return {}
    commit = f" at commit {source.commit}" if source.commit else ""
    return {"sourceInfo": f"built from the {source.kind} {source.name}{commit}, sha256:{source.sha256}"}


def _licence(licence: Licence) -> dict[str, Any]:
    if licence.expression:
        return {"licenseDeclared": licence.expression}
    if licence.stated:
        return {"licenseComments": f"the package states: {', '.join(licence.stated)}"}
    return {}


def _resource(resource: ImageResource) -> dict[str, Any]:
    comment = f"resource, layer {resource.layer.number}, {_place(resource.layer)}"
    tree = f"; a folder with the digest {resource.tree}" if resource.tree else ""
    described = _described(f"resource-{resource.key}", resource.key, None, resource.sha256, "FILE", f"{comment}{tree}")
    return described | ({"sourceInfo": f"from {resource.source}"} if resource.source else {})


def _base(base: ImageBase) -> dict[str, Any]:
    return _described("base", base.name, None, base.digest.hex, "CONTAINER", "the base image")


def _described(
    name: str, title: str, version: str | None, sha256: str | None, purpose: str, comment: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "SPDXID": _identifier(name),
        "name": title,
        "versionInfo": version,
        # 7.7: "NOASSERTION" where "the SPDX document creator has intentionally provided no information": a lock
        # names no host
        "downloadLocation": _NOBODY,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}] if sha256 else None,
        "licenseConcluded": _NOBODY,
        "licenseDeclared": _NOBODY,
        "copyrightText": _NOBODY,
        "primaryPackagePurpose": purpose,
        "comment": comment,
    }
    return {key: value for key, value in found.items() if value is not None}


def _file(found: Found) -> dict[str, Any]:
    sums = {"SHA1": found.sha1, "SHA256": found.sha256}
    return {
        "SPDXID": f"SPDXRef-file-{hashlib.sha256(found.path.encode()).hexdigest()[:16]}",
        "fileName": f"./{found.path}",
        "checksums": [{"algorithm": name, "checksumValue": value} for name, value in sums.items()],
        "licenseConcluded": _NOBODY,
        "copyrightText": _NOBODY,
        "comment": f"{found.layer.section}, layer {found.layer.number}, {_place(found.layer)}",
    }


def _relationships(packages: Iterable[dict[str, Any]], files: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield _relationship(_DOCUMENT, "DESCRIBES", _IMAGE)
    for each in packages:
        if each["SPDXID"] != _IMAGE:
            kind = "DESCENDANT_OF" if each["SPDXID"] == _identifier("base") else "CONTAINS"
            yield _relationship(_IMAGE, kind, each["SPDXID"])
    yield from (_relationship(_PROJECT, "CONTAINS", each["SPDXID"]) for each in files)


def _relationship(element: str, kind: str, other: str) -> dict[str, Any]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": other}


def _place(layer: ImageLayer) -> str:
    return f"diff_id {layer.diff_id}, digest {layer.descriptor.digest}"


def _identifier(name: str) -> str:
    """Annex, "SPDX identifier": letters, numbers, "." and "-"."""
    return name if name.startswith("SPDXRef-") else f"SPDXRef-{_FORBIDDEN.sub('-', name)}"
