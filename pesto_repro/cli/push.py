"""``push``: an image to a registry. ``copy``: an image from anywhere to anywhere. Digests stay what they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from pesto_repro.cli.console import Console, human, show, show_json
from pesto_repro.cli.options import talking_command
from pesto_repro.cli.places import (
    Archive,
    Layout,
    Place,
    Pushed,
    pushed_json,
    read_place,
    read_target,
    require_digest,
    tagged,
)
from pesto_repro.cli.registries import Reach, reachable
from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.oci import Descriptor
from pesto_repro.progress import Reporter
from pesto_repro.registry.client import Registries
from pesto_repro.registry.content import Document, LayoutContent, RemoteContent, blobs_of, documents
from pesto_repro.registry.ports import Content
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.registry.transfer import Report
from pesto_repro.registry.transfer import push as transfer
from pesto_repro.sinks import copy_archive, copy_beside, copy_layout


@click.command()
@click.argument("image")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@click.option(
    "--attach",
    "attached",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PROJECT|FILE",
    help="Attach PROJECT's lock, bills of materials and provenance, or FILE; may be said several times.",
)
@click.option(
    "-p", "--profile", "--profiles", "profiles", multiple=True, metavar="PROFILE...", help="The PROJECT's, in order."
)
@talking_command
def push(
    console: Console,
    as_json: bool,
    image: str,
    references: tuple[str, ...],
    attached: tuple[Path, ...],
    profiles: tuple[str, ...],
) -> int:
    """Push IMAGE, an archive or a layout, to a registry as REF, HOST/REPOSITORY:TAG.

    \b
    pesto-repro push dist/hello-service-1.0.0.oci.tar registry.example/team/hello-service:1.0.0
    pesto-repro push oci:image registry.example/team/hello-service:1.0.0 registry.example/team/hello-service:1
    pesto-repro push image.tar registry.example/team/hello-service:1.0.0 --attach hello-service
    """
    if profiles and not attached:
        raise click.UsageError("-p is for the PROJECT of --attach")
    place = read_place(image)
    if isinstance(place, RemoteReference):
        raise PestoError(
            f"there is no archive or layout {image}", "build it first; from one registry to another: pesto-repro copy"
        )
    targets = [read_target(each) for each in references]
    with reachable(console, targets[0].host) as registries:
        source = find(place, registries)
        attach = _attaching(attached, profiles, source, targets)
        pushed = list(Pusher(source.content, source.image, registries(), console).push(targets))
        made = attach(registries(), console)
    if as_json:
        entries = [pushed_json(each) for each in pushed]
        show_json({"digest": str(source.root.digest), "pushed": entries, **({"attached": made} if attached else {})})
        return 0
    for reference, report in pushed:
        show(f"{tagged(reference)}@{report.digest}")
    return 0


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--with-referrers", is_flag=True, help="And what is attached: beside a file or folder, NAME.referrers.")
@talking_command
def copy(console: Console, as_json: bool, source: str, target: str, with_referrers: bool) -> int:
    """Copy an image from SRC to DST, each an archive, a layout or a registry's image.

    \b
    pesto-repro copy registry.example/team/hello-service:1.0.0 hello-service.tar
    pesto-repro copy registry.example/team/hello-service:1.0.0 oci:image
    pesto-repro copy oci:image registry.example/team/hello-service:1.0.0
    pesto-repro copy registry.example/team/hello-service:1.0.0 hello-service.tar --with-referrers
    """
    place, destination = read_place(source), read_place(target)
    pushed: list[Pushed] = []
    remote = [each.host for each in (destination, place) if isinstance(each, RemoteReference)]
    with reachable(console, remote[0] if remote else None) as registries:
        found = find(place, registries)
        if isinstance(destination, RemoteReference):
            pusher = Pusher(found.content, found.image, registries(), console)
            pusher.know(found.reference, blobs_of(found.image))
            pushed += pusher.push([read_target(target)])
        else:
            _write(destination, found, console)
        if with_referrers:
            _copy_companions(place, destination, found, registries, console)
    output = None if pushed else target
    if as_json:
        entries = [pushed_json(each) for each in pushed]
        show_json({"digest": str(found.root.digest), "output": output, "pushed": entries})
    else:
        name = output or tagged(pushed[0][0])
        show(f"{name}@{found.root.digest}")
    return 0


def _attaching(
    names: Sequence[Path], profiles: Sequence[str], found: Found, targets: Sequence[RemoteReference]
) -> Callable[[Registries, Reporter], list[dict[str, Any]]]:
    """What attaches *names* to *found* where *targets* are: they are read now, before anything is pushed."""
    if not names:
        return lambda registries, reporter: []
    from pesto_repro.cli.attach import attach_everywhere, attachments  # imported late: most push no more

    return partial(attach_everywhere, found.image, attachments(names, profiles, found, tagged(targets[0])), targets)


@dataclass(frozen=True, slots=True)
class Found:
    """An image that is somewhere: its *content* and documents. *name* is what it is called there."""

    content: Content
    image: tuple[Document, ...]
    name: str | None
    reference: RemoteReference | None = None

    @property
    def root(self) -> Descriptor:
        return self.image[-1].descriptor


def find(place: Place, registries: Reach) -> Found:
    """The image at *place*. Raises FetchError."""
    if isinstance(place, RemoteReference):
        remote = RemoteContent(registries().repository(place))
        image = documents(remote, remote.root(place.target))
        name = f"{place.repository}:{place.tag}" if place.tag else None
        return Found(remote, image, name, place)
    layout = LayoutContent.at(place.path)
    return Found(layout, documents(layout, layout.root()), layout.name())


@dataclass
class Pusher:
    """Pushes one image under several names, and remembers who has its blobs, so that others may mount them."""

    content: Content
    image: Sequence[Document]
    registries: Registries
    reporter: Reporter
    known: dict[str, dict[Digest, str]] = field(default_factory=lambda: defaultdict(dict))
    """Host -> blob -> repository that has it."""

    def know(self, reference: RemoteReference | None, blobs: Sequence[Descriptor]) -> None:
        """The repository of *reference* has *blobs*."""
        if reference is not None:
            self.known[reference.host].update(dict.fromkeys((each.digest for each in blobs), reference.repository))

    def mountable(self, host: str, blobs: Mapping[Digest, str]) -> None:
        """On *host*, each of *blobs* is in that repository."""
        self.known[host].update(blobs)

    def push(self, targets: Sequence[RemoteReference]) -> Iterator[Pushed]:
        """Push to each; those of one repository at once."""
        digest = self.image[-1].descriptor.digest
        for target in targets:
            require_digest(target, digest)
        repositories: dict[tuple[str, str], list[RemoteReference]] = defaultdict(list)
        for target in dict.fromkeys(targets):
            repositories[target.host, target.repository].append(target)
        for group in repositories.values():
            yield from self._push(group)

    def _push(self, targets: Sequence[RemoteReference]) -> Iterator[Pushed]:
        first = targets[0]
        repository = self.registries.repository(first)
        tags = [each.tag for each in targets if each.tag is not None]
        mounts = self.known[first.host]
        report = transfer(self.content, self.image, repository, tags, mount_from=mounts, reporter=self.reporter)
        for target in targets:
            self.reporter.info(f"{tagged(target)}: {_summary(report)}")
            yield target, report
            report = Report(report.digest, existing=tuple(each.digest for each in blobs_of(self.image)))
        self.know(first, blobs_of(self.image))


def _write(place: Archive | Layout, found: Found, console: Console) -> None:
    sizes = sum(each.size for each in blobs_of(found.image))
    with console.activity("write", str(place.path), sizes):
        write = copy_archive if isinstance(place, Archive) else copy_layout
        write(found.content, found.image, found.name, place.path)
    console.info(f"{place.path}: {human(sizes)}")


def _copy_companions(place: Place, target: Place, found: Found, registries: Reach, console: Console) -> None:
    """Copy what goes with *found*, from a registry or from the layout beside it."""
    from pesto_repro.registry import companions  # imported late: most copies are of the image alone

    if isinstance(place, RemoteReference):
        content: Content = found.content
        attached = companions.in_repository(registries().repository(place), found.image)
    else:
        content = layout = LayoutContent.at(_beside(place))
        attached = companions.in_layout(layout)
    if isinstance(target, RemoteReference):
        companions.send(content, attached, registries().repository(target), console)
    else:
        copy_beside(content, attached, _beside(target), archive=isinstance(target, Archive))
    console.info(f"{len(attached)} attached manifests copied")


def _beside(place: Archive | Layout) -> Path:
    """Where what goes with the image at *place* is."""
    return place.path.with_name(f"{place.path.name}.referrers")


def _summary(report: Report) -> str:
    counts = {"uploaded": report.uploaded, "mounted": report.mounted, "already there": report.existing}
    said = [f"{len(digests)} {how}" for how, digests in counts.items() if digests]
    return f"{', '.join(said)}; {human(report.bytes)} sent"
