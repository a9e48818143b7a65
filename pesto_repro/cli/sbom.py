"""``sbom``: what is in an image. ``provenance``: what it was made of, and by whom."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import click

from pesto_repro.audit.compare import read_config
from pesto_repro.audit.contents import contents, require_lock
from pesto_repro.audit.provenance import statement, subjects
from pesto_repro.audit.scan import manifests
from pesto_repro.cli.builder import builder_of, commit_of
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.examined import Examined, examine
from pesto_repro.cli.options import Session, Target, target_command
from pesto_repro.errors import LockError
from pesto_repro.sinks import write_text


class _Moment(click.ParamType[str]):
    """A time in RFC 3339."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is no time like 2026-01-02T03:04:05Z", param, ctx)
        return value


@click.command()
@target_command
@click.option("--offline", is_flag=True, help="Make a project's layers without the network.")
@click.option("--format", "form", type=click.Choice(["cyclonedx", "spdx"]), default="cyclonedx", show_default=True)
@click.option("--platform", metavar="OS/ARCH", help="For which one, if the image is for several.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: stdout.")
def sbom(target: Target, offline: bool, form: str, platform: str | None, output: Path | None) -> int:
    """Write the bill of materials of an image, or of the image that PROJECT's lock gives: CycloneDX 1.6 or SPDX 2.3.

    It says what the image's layers hold. What the lock adds (wheels, sources) is there if the lock is: PROJECT's, the
    one that travels with the image, or --lockfile. A document is of one platform.

    \b
    pesto-repro sbom hello-service -o hello-service.cdx.json
    pesto-repro sbom dist/hello-service-1.0.0.oci.tar --format spdx
    """

    def written(found: Examined) -> bytes:
        if found.lock is None:
            target.session.console.warn(
                f"{found.name} comes without its lock: where its packages came from is not said",
                "name the lock with --lockfile",
            )
        return _bill(found, platform, form)

    return _deliver(target.session, examine(target, written, offline=offline), output)


@click.command()
@target_command
@click.option("--offline", is_flag=True, help="Make a project's layers without the network.")
@click.option("--builder-id", metavar="URI", help="Who built. [env: PESTO_REPRO_BUILDER_ID]")
@click.option("--started-on", type=_Moment(), help="When the build began; by default nothing is said.")
@click.option("--finished-on", type=_Moment(), help="When it ended.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: stdout.")
def provenance(
    target: Target,
    offline: bool,
    builder_id: str | None,
    started_on: str | None,
    finished_on: str | None,
    output: Path | None,
) -> int:
    """Write the provenance of an image, or of the image that PROJECT's lock gives: in-toto, SLSA provenance v1.

    The lock must be at hand: PROJECT's, the one that travels with the image, or --lockfile. The commit is that of
    PROJECT, if it is in a git repository.

    \b
    pesto-repro provenance hello-service -o provenance.json
    pesto-repro provenance registry.example/team/hello-service:1.0.0 --lockfile hello-service.lock.toml
    """
    builder = builder_of(os.environ, builder_id, started_on, finished_on)

    def written(found: Examined) -> bytes:
        if found.lock is None:
            raise LockError(f"{found.name} comes without its lock", "name it with --lockfile")
        for manifest in manifests(found.image):
            require_lock(found.lock, read_config(manifest, found.content))
        commit = commit_of(found.project) if found.project is not None else None
        return statement(subjects(found.image, found.name), found.lock, builder, commit)

    return _deliver(target.session, examine(target, written, offline=offline), output)


def _bill(found: Examined, platform: str | None, form: str) -> bytes:
    inside = contents(found.manifest(platform), found.content, found.lock)
    if form == "spdx":
        from pesto_repro.audit import spdx  # imported late: a library is slow to start, and only one is needed

        return spdx.document(inside)
    from pesto_repro.audit import cyclonedx

    return cyclonedx.document(inside)


def _deliver(session: Session, data: bytes, output: Path | None) -> int:
    if output is None:
        show(data.decode().rstrip("\n"))
        return 0
    write_text(output, data.decode())
    if session.json:
        show_json({"output": str(output)})
    session.console.info(f"{output}: {human(len(data))}")
    return 0
