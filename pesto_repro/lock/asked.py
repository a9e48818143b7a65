"""What a project asks for now, in the lock's own terms: to be locked, or to be compared with what was."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pesto_repro.digest import Digest
from pesto_repro.lock.model import Input, Lock, ResourceInput
from pesto_repro.project import Project, redact


def asked(project: Project, platforms: tuple[str, ...]) -> Input:
    """Everything that *project* asks of the world and of the image."""
    settings = project.settings
    return Input(
        name=project.name,
        profiles=project.profiles,
        merge=project.merge,
        platforms=platforms,
        base=base_name(project),
        base_packages=tuple(sorted(settings.base.packages)),
        python=settings.python.version,
        runtime=settings.runtime.package,
        closure=settings.runtime.closure,
        requires=project.requires,
        constraints=project.constraints,
        max_layers=settings.layers.max,
        compression=settings.layers.compression,
        user=settings.image.user,
        labels=dict(settings.image.labels),
        environments=dict(project.environments),
        system_packages=settings.python.system_packages,
        resources=tuple(
            ResourceInput(key=each.key, source=each.public_source, to=each.to, type=each.type)
            for each in sorted(project.resources, key=lambda each: each.key)
        ),
        documents=_digests(project.documents),
    )


def asked_again(project: Project, lock: Lock) -> Input:
    """The same, for a lock that was made for some of the project's platforms only."""
    declared, locked = project.settings.image.platforms, lock.input.platforms
    chosen = "platforms" in project.settings.image.model_fields_set
    return asked(project, declared if chosen and not set(locked) <= set(declared) else locked)


def base_name(project: Project) -> str:
    """``debian:<suite>``, or the reference that requirements.json names."""
    debian = project.settings.base.debian
    return f"debian:{debian}" if debian else redact(str(project.docker_base_image))


def _digests(documents: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    texts = {name: json.dumps(value, sort_keys=True) for name, value in documents.items()}
    return {name: str(Digest.of(text.encode())) for name, text in texts.items()}
