"""What a project asks for now, in the lock's own terms: to be locked, or to be compared with what was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pesto_repro.addresses import redact
from pesto_repro.digest import Digest
from pesto_repro.lock.model import Input, Lock, ResourceInput
from pesto_repro.project import Project

Override = Literal["merge", "platforms"]


def asked(project: Project, platforms: tuple[str, ...], overrides: tuple[Override, ...] = ()) -> Input:
    """Everything that *project* asks of the world and of the image; *overrides* is what image.toml does not say."""
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
        environments=tuple(f"{key}={value}" for key, value in project.environments.items()),
        system_packages=settings.python.system_packages,
        build_from_source=tuple(sorted(settings.python.build_from_source)),
        allow_unreproducible=tuple(sorted(settings.python.allow_unreproducible)),
        build_packages=tuple(sorted(settings.python.build.packages)),
        embed_lock=settings.image.embed_lock,
        resources=tuple(
            ResourceInput(key=each.key, source=each.public_source, to=each.to, type=each.type, sha256=each.sha256)
            for each in project.resources
        ),
        documents=_digests(project.documents),
        overrides=overrides,
    )


def asked_again(project: Project, lock: Lock) -> Input:
    """The same, with the platforms that were chosen when locking, if they were."""
    overrides = lock.input.overrides
    platforms = lock.input.platforms if "platforms" in overrides else project.settings.image.platforms
    return asked(project, platforms, overrides)


def base_name(project: Project) -> str:
    """``debian:<suite>``, or the reference that requirements.json names."""
    debian = project.settings.base.debian
    return f"debian:{debian}" if debian else redact(str(project.docker_base_image))


def _digests(documents: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    texts = {name: json.dumps(value, sort_keys=True) for name, value in documents.items()}
    return {name: str(Digest.of(text.encode())) for name, text in texts.items()}
