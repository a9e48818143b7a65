"""Where an image is or goes, as words of the command line: an archive, a layout, or a registry.

=====================  ==========================================================
``oci:DIR``, ``DIR``   an OCI layout; without ``oci:`` a folder that is there
``oci-archive:FILE``   an OCI archive; without the prefix a file that is there, or what ends in ``.tar``
``docker://REF``       a registry's image; without the prefix whatever is none of the above
=====================  ==========================================================

The prefixes are those of skopeo and podman.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.registry.reference import RemoteReference

if TYPE_CHECKING:
    from pesto_repro.registry.transfer import Report

_REGISTRY = "docker://"
_LAYOUT = "oci:"
_ARCHIVE = "oci-archive:"


@dataclass(frozen=True, slots=True)
class Archive:
    """An OCI archive at *path*."""

    path: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI layout in the folder *path*."""

    path: Path


Place = Archive | Layout | RemoteReference
Pushed = tuple[RemoteReference, "Report"]


def read_place(text: str) -> Place:
    """What *text* means. Raises PestoError if it can mean nothing."""
    if text.startswith(_LAYOUT):
        return Layout(Path(text.removeprefix(_LAYOUT)))
    if text.startswith(_ARCHIVE):
        return Archive(Path(text.removeprefix(_ARCHIVE)))
    if text.startswith(_REGISTRY):
        return RemoteReference.parse(text.removeprefix(_REGISTRY))
    path = Path(text)
    if path.is_dir():
        return Layout(path)
    if path.exists() or text.endswith(".tar") or text.startswith((".", "/", "~")):
        return Archive(path)
    return RemoteReference.parse(text)


def read_target(text: str, tag: str | None = None) -> RemoteReference:
    """The registry's image *text*, to be pushed. Without a tag it gets *tag*; raises PestoError if that is None too.

    A target that names a digest is one that needs no tag, and must be of what is pushed.
    """
    bare = text.removeprefix(_REGISTRY)
    found = RemoteReference.parse(bare)
    if "@" in bare or bare.endswith(f":{found.tag}"):
        return found
    if tag is None:
        example = f"{found.host}/{found.repository}:1.0.0"
        raise PestoError(f"{text} has no tag, and none is guessed", f"say which, as in {example}")
    return RemoteReference(found.host, found.repository, tag)


def require_digest(target: RemoteReference, actual: Digest) -> None:
    """A target named by digest is that of the image."""
    if target.digest is not None and target.digest != actual:
        raise PestoError(
            f"{target} cannot be pushed: the image's digest is {actual}", "name it by a tag, or by its own digest"
        )


def tagged(reference: RemoteReference) -> str:
    """*reference* without its digest."""
    return str(replace(reference, digest=None))


def pushed_json(pushed: Pushed) -> dict[str, Any]:
    """What ``--json`` says of one reference; of those in one repository, the first counts what was sent for all."""
    reference, report = pushed
    return {
        "reference": tagged(reference),
        "digest": str(report.digest),
        "uploaded": [str(each) for each in report.uploaded],
        "mounted": [str(each) for each in report.mounted],
        "existing": [str(each) for each in report.existing],
        "refused_mounts": [str(each) for each in report.refused],
        "bytes": report.bytes,
    }
