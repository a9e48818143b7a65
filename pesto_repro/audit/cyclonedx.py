"""The bill of materials as CycloneDX 1.6, in JSON: the only module that knows the library.

Equal images have equal documents: nothing of the clock, of chance, of the machine or of this program's version is in
them. The serial number follows from the image's digest, the time is the image's own ("created", the lock's epoch).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from uuid import uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Commit, Component, ComponentType, Pedigree
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6

from pesto_repro.audit.contents import SERIALS, Contents, ImageBase, ImageResource, Package
from pesto_repro.audit.licences import Licence
from pesto_repro.audit.scan import Found, ImageLayer
from pesto_repro.lock.model import Source


def document(found: Contents) -> bytes:
    """The bill of materials of *found*."""
    image = _image(found)
    parts = [*map(_package, found.packages), *map(_file, found.files), *map(_resource, found.resources)]
    if found.base is not None:
        parts.append(_base(found.base))
    bom = Bom(
        serial_number=uuid5(SERIALS, str(found.digest)),
        metadata=BomMetaData(component=image, timestamp=found.created),
        components=parts,
    )
    bom.register_dependency(image, parts)
    return (JsonV1Dot6(bom).output_as_string(indent=2) + "\n").encode()


def _image(found: Contents) -> Component:
    said = {"platform": str(found.platform), "lock": found.lock, "python": found.python}
    layers = [_property("image:layer", f"{each.number} {each.diff_id} {each.section}") for each in found.layers]
    return Component(
        bom_ref=f"image {found.digest}",
        type=ComponentType.CONTAINER,
        name=found.name,
        version=found.version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=found.digest.hex)],
        properties=[*layers, *_properties("image", said)],
    )


def _package(package: Package) -> Component:
    said = {"section": package.section, "filename": package.filename}
    place = f"{package.section} {package.layer.number} " if package.section == "base" else ""
    return Component(
        bom_ref=f"{place}{package.purl.to_string()}",
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=package.purl,
        hashes=_hashes(package.sha256),
        licenses=_licences(package.licence),
        pedigree=_pedigree(package.source) if package.source else None,
        properties=[*_properties("package", said), *_layer(package.layer)],
    )


def _pedigree(source: Source) -> Pedigree:
    """What a wheel was built from: a file or a tree, or a commit."""
    ancestor = Component(
        bom_ref=f"source {source.kind} {source.name} {source.sha256}",
        type=ComponentType.FILE,
        name=source.name,
        hashes=_hashes(source.sha256),
        properties=list(_properties("source", {"kind": source.kind, "subdirectory": source.subdirectory})),
    )
    return Pedigree(ancestors=[ancestor], commits=[Commit(uid=source.commit)] if source.commit else None)


def _file(found: Found) -> Component:
    return Component(
        bom_ref=f"file /{found.path}",
        type=ComponentType.FILE,
        name=f"/{found.path}",
        hashes=_hashes(found.sha256),
        properties=[*_properties("file", {"section": found.layer.section}), *_layer(found.layer)],
    )


def _resource(resource: ImageResource) -> Component:
    return Component(
        bom_ref=f"resource {resource.key}",
        type=ComponentType.DATA,
        name=resource.key,
        hashes=_hashes(resource.sha256),
        properties=[
            *_properties("resource", {"source": resource.source, "tree": resource.tree}),
            *_layer(resource.layer),
        ],
    )


def _base(base: ImageBase) -> Component:
    return Component(
        bom_ref=f"base {base.digest}", type=ComponentType.CONTAINER, name=base.name, hashes=_hashes(base.digest.hex)
    )


def _hashes(sha256: str | None) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def _licences(licence: Licence) -> list[License]:
    """One expression, or the names that the package states."""
    if licence.expression:
        return [LicenseExpression(licence.expression)]
    return [DisjunctiveLicense(name=each) for each in licence.stated]


def _layer(layer: ImageLayer) -> Iterator[Property]:
    said = {"number": str(layer.number), "diff_id": str(layer.diff_id), "digest": str(layer.descriptor.digest)}
    return _properties("layer", said)


def _properties(group: str, said: Mapping[str, str | None]) -> Iterator[Property]:
    return (_property(f"{group}:{name}", value) for name, value in said.items() if value)


def _property(name: str, value: str) -> Property:
    return Property(name=f"pesto-repro:{name}", value=value)
