"""``push --attach``, ``build --push --attach``: what travels with an image, as referrers of what it is about.

A project brings its lock, its bills of materials and its provenance, a file itself. Lock and provenance are attached to
what the reference names, the index where there are several platforms; a bill of materials to the manifest of its
platform, which is the same where there is only one. A file is attached to what the reference names.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pesto_repro.cli.locked import Request, find_lock, read
from pesto_repro.digest import Digest
from pesto_repro.errors import LockError, PestoError
from pesto_repro.lock import text as lock_text
from pesto_repro.progress import Reporter
from pesto_repro.project import Project
from pesto_repro.registry.client import Registries
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content, Repository
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.registry.referrers import Artifact, Referrer, attach

if TYPE_CHECKING:
    from pesto_repro.audit.attachments import Attachment
    from pesto_repro.cli.push import Found
    from pesto_repro.lock.model import Lock


def attachments(names: Sequence[Path], profiles: Sequence[str], found: Found, reference: str) -> list[Attachment]:
    """What *names* (projects, files) bring for the image *found*, which is called *reference*. Raises PestoError."""
    return [each for name in names for each in _attachments(name, profiles, found, reference)]


def attach_all(
    repository: Repository, image: Sequence[Document], wanted: Sequence[Attachment]
) -> tuple[tuple[Digest, Referrer], ...]:
    """Attach *wanted* in *repository*, which has *image*: the referrers, with their subjects. Raises RegistryError."""
    descriptors = {each.descriptor.digest: each.descriptor for each in image}
    groups: dict[Digest, list[Artifact]] = defaultdict(list)
    for each in wanted:
        artifact = Artifact.of_file(each.artifact_type, each.media_type, each.filename, each.data)
        groups[each.subject].append(artifact)
    return tuple(
        (subject, referrer)
        for subject, artifacts in groups.items()
        for referrer in attach(repository, descriptors[subject], artifacts)
    )


def of_locked(
    project: Project, lock: Lock, content: Content, image: Sequence[Document], reference: str
) -> tuple[Attachment, ...]:
    """What *project* with *lock* brings for *image*, which was made from both and is called *reference*."""
    from pesto_repro.audit.attachments import of_project  # imported late: most pushes attach nothing
    from pesto_repro.cli.builder import builder_of, commit_of

    builder, commit = builder_of(os.environ, None, None, None), commit_of(project.root)
    return of_project(content, image, lock, reference, builder, commit)


def attach_everywhere(
    image: Sequence[Document],
    wanted: Sequence[Attachment],
    targets: Sequence[RemoteReference],
    registries: Registries,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Attach *wanted* to *image* in each repository of *targets*; what ``--json`` says of it. Raises RegistryError."""
    made = []
    for place in {(each.host, each.repository): each for each in targets}.values():
        name = f"{place.host}/{place.repository}"
        done = attach_all(registries.repository(place), image, wanted)
        reporter.info(f"{name}: {len(done)} attached")
        made += [{"repository": name} | attached_json(*each) for each in done]
    return made


def attached_json(subject: Digest, referrer: Referrer) -> dict[str, Any]:
    """What ``--json`` says of one referrer."""
    return {
        "subject": str(subject),
        "digest": str(referrer.descriptor.digest),
        "artifact_type": referrer.artifact_type,
        "size": referrer.descriptor.size,
        "annotations": dict(referrer.annotations),
    }


def _attachments(path: Path, profiles: Sequence[str], found: Found, reference: str) -> Iterator[Attachment]:
    if path.is_dir() or path.parent.parts[-2:] == ("pesto", "build"):
        yield from _of_project(Request(path, tuple(profiles)), found, reference)
    else:
        yield _of_file(path, found.root.digest)


def _of_project(request: Request, found: Found, reference: str) -> tuple[Attachment, ...]:
    project = read(request)
    return of_locked(project, _lock(project, request), found.content, found.image, reference)


def _lock(project: Project, request: Request) -> Lock:
    path, text = find_lock(project, request)
    if text is None:
        raise LockError(f"there is no lock at {path}", f"run `{request.command('lock')}`")
    return lock_text.loads(text, str(path))


def _of_file(path: Path, subject: Digest) -> Attachment:
    from pesto_repro.audit.attachments import Attachment  # imported late, as above

    try:
        data = path.read_bytes()
    except OSError as error:
        raise PestoError(f"{path} cannot be attached: {error.strerror or error}") from None
    artifact_type = _type_of(path, data)
    return Attachment(artifact_type, artifact_type, path.name, data, subject)


def _type_of(path: Path, data: bytes) -> str:
    """The artifact type of a file, by what it says of itself. Raises PestoError."""
    from pesto_repro.audit.attachments import CYCLONEDX_TYPE, PROVENANCE_TYPE, SPDX_TYPE
    from pesto_repro.plan.make import LOCK_TYPE

    if path.name.endswith(".lock.toml") or path.name == "lock.toml":
        lock_text.loads(data.decode("utf-8", "replace"), str(path))
        return LOCK_TYPE
    document = _object(data)
    if document.get("bomFormat") == "CycloneDX":
        return CYCLONEDX_TYPE
    if "spdxVersion" in document:
        return SPDX_TYPE
    if str(document.get("_type")).startswith("https://in-toto.io/Statement/"):
        return PROVENANCE_TYPE
    raise PestoError(
        f"{path} is none of what can be attached",
        "attach a project, or a file: a lock (*.lock.toml), CycloneDX or SPDX in JSON, or an in-toto statement",
    )


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
