"""``referrers``: what is attached to a registry's image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pesto_repro.cli.attach import attached_json
from pesto_repro.cli.console import Console, human, show, show_json
from pesto_repro.cli.options import talking_command
from pesto_repro.cli.places import tagged
from pesto_repro.cli.registries import reachable
from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.registry.content import RemoteContent, documents
from pesto_repro.registry.ports import Repository
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.registry.referrers import Payload, Referrer, fetch
from pesto_repro.registry.referrers import referrers as listed
from pesto_repro.sinks import write_bytes

Attached = tuple[Digest, Referrer]
"""A referrer, after its subject."""


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--type", "wanted", metavar="TYPE", help="Only those of this artifact type.")
@click.option("--get", "getting", metavar="TYPE|DIGEST", help="Write the one of this type, or digest, to -o.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where --get writes.")
@talking_command
def referrers(
    console: Console, as_json: bool, reference: str, wanted: str | None, getting: str | None, output: Path | None
) -> int:
    """List what is attached to REF, an image in a registry: its lock, bills of materials, provenance, signatures.

    \b
    pesto-repro referrers registry.example/team/hello-service:1.0.0
    pesto-repro referrers registry.example/team/hello-service:1.0.0 --get application/spdx+json -o hello.spdx.json
    """
    if (getting is None) != (output is None):
        raise click.UsageError("--get and -o belong together")
    target = RemoteReference.parse(reference.removeprefix("docker://"))
    with reachable(console, target.host) as registries:
        repository = registries().repository(target)
        subjects = _subjects(repository, target)
        found = [(each, referrer) for each in subjects for referrer in listed(repository, each, wanted)]
        if getting is not None and output is not None:
            found = [_chosen(found, getting, str(target))]
            write_bytes(output, _payload(repository, *found[0]).data)
    if as_json:
        entries = [attached_json(*each) for each in found]
        show_json({"reference": tagged(target), "digest": str(subjects[0]), "referrers": entries})
    elif output is not None:
        show(str(output))
    else:
        for subject, referrer in found:
            _show(referrer, None if subject == subjects[0] else subject)
    return 0


def _subjects(repository: Repository, reference: RemoteReference) -> list[Digest]:
    """What *reference* leads to, then the manifests of its platforms, if it is an index."""
    content = RemoteContent(repository)
    *inside, root = documents(content, content.root(reference.target))
    return [root.descriptor.digest, *(each.descriptor.digest for each in inside)]


def _show(referrer: Referrer, subject: Digest | None) -> None:
    """One referrer, for people; *subject* if that is a platform's manifest."""
    show(f"{referrer.descriptor.digest}  {human(referrer.descriptor.size):>9}  {referrer.artifact_type}")
    said = {**referrer.annotations, **({"of": str(subject)} if subject else {})}
    for key, value in sorted(said.items()):
        show(f"  {key}={value}")


def _chosen(found: Sequence[Attached], name: str, where: str) -> Attached:
    """The one that *name* means, a type or a digest. Raises PestoError if it is none, or several."""
    fitting = [each for each in found if name in (each[1].artifact_type, str(each[1].descriptor.digest))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        digests = ", ".join(str(referrer.descriptor.digest) for _, referrer in fitting)
        raise PestoError(f"{where} has {len(fitting)} referrers of the type {name}", f"say which: {digests}")
    types = ", ".join(sorted({each.artifact_type for _, each in found})) or "nothing"
    raise PestoError(f"{where} has no referrer {name}; attached is: {types}")


def _payload(repository: Repository, subject: Digest, referrer: Referrer) -> Payload:
    artifact = fetch(repository, subject, referrer)
    if len(artifact.payloads) != 1:
        raise PestoError(f"{referrer.descriptor.digest} has {len(artifact.payloads)} files, not one")
    return artifact.payloads[0]
