"""``verify``: an image's form, its signatures, and whether lock and project give it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pesto_repro.audit.compare import Held
from pesto_repro.audit.verify import Finding, Lending, findings, travelling_lock
from pesto_repro.build.base import Bases
from pesto_repro.build.realise import owners, realise
from pesto_repro.cli.console import Console, show, show_json
from pesto_repro.cli.inspect import describe
from pesto_repro.cli.locked import Locked, Request, locked
from pesto_repro.cli.options import Session, talking_command
from pesto_repro.cli.places import Place, read_place
from pesto_repro.cli.push import Found, find
from pesto_repro.cli.registries import reachable
from pesto_repro.cli.trust import require_signed_with, trusted
from pesto_repro.cli.workshop import assembled, workshop
from pesto_repro.cli.world import base_sources, store_at
from pesto_repro.digest import Digest
from pesto_repro.errors import EXIT_FAILURE
from pesto_repro.registry.content import StoreContent, documents
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.validate import other_readings, validate, validate_content

SHOWN = 20
"""How many files of one layer are named to people; ``--json`` names all."""


@click.command()
@click.argument("image", metavar="IMAGE|REF")
@click.argument("project", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--profile", "--profiles", "profiles", multiple=True, metavar="PROFILE...", help="Profiles.")
@click.option("--lockfile", type=click.Path(path_type=Path), help="The lock's place, if not the usual one.")
@click.option("--store", type=click.Path(path_type=Path), help="The store. [env: PESTO_REPRO_STORE]")
@click.option("--offline", is_flag=True, help="Rebuild without the network; a registry's image is read all the same.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="How many layers are made at once; default: all cores.")
@click.option("--key", type=click.Path(path_type=Path), help="The public key that must have signed a registry's image.")
@talking_command
def verify(
    console: Console,
    as_json: bool,
    image: str,
    project: Path | None,
    profiles: tuple[str, ...],
    lockfile: Path | None,
    store: Path | None,
    offline: bool,
    jobs: int | None,
    key: Path | None,
) -> int:
    """Check IMAGE, an archive, a layout or a registry's image. Exits 0 if all is well, else 1.

    Without PROJECT: its form, by the OCI image-spec, every digest and size computed anew. With PROJECT: by making it
    again from lock and project in a store that knows nothing, and comparing. Of the usual store only pinned inputs
    are used (wheels, Debian packages, downloads, each verified by its digest), never a layer.

    \b
    pesto-repro verify dist/hello-service-1.0.0.oci.tar
    pesto-repro verify dist/hello-service-1.0.0.oci.tar hello-service
    pesto-repro verify registry.example/team/hello-service:1.0.0 hello-service --key cosign.pub
    """
    place = read_place(image)
    result: dict[str, Any] = {"image": image}
    differences: list[Finding] = []
    with reachable(console, place.host if isinstance(place, RemoteReference) else None) as registries:
        found = find(place, registries)
        result["digest"] = str(found.root.digest)
        if key is not None:
            result["signed"] = [each.form for each in require_signed_with(key, found)]
        if project is None:
            result |= _form(place, found, console)
        else:
            session = Session(Request(project, profiles, lockfile), store_at(store), console, as_json)
            said, differences = _rebuilt(session, place, found, offline, jobs)
            result |= said
    if as_json:
        show_json(result)
    else:
        for line in (*_lines(result), *_told(differences)):
            show(line)
    return 0 if result.get("identical", True) else EXIT_FAILURE


# -- the form ----------------------------------------------------------------------------------------------------


def _form(place: Place, found: Found, console: Console) -> dict[str, Any]:
    """Hold the image against the image-spec; what it says of its lock. Raises ImageError, LockError."""
    with console.activity("verify", str(found.name or found.root.digest)):
        if isinstance(place, RemoteReference):
            validate_content(found.content, found.image)
        else:
            validate(place.path)
        lock = travelling_lock(Held(found.content, found.image))
    named = describe(found)["lock"]
    return {"valid": True, "lock": lock.lock.content_hash if lock else named, "lock_is": lock.where if lock else None}


# -- the rebuild -------------------------------------------------------------------------------------------------


def _rebuilt(
    session: Session, place: Place, found: Found, offline: bool, jobs: int | None
) -> tuple[dict[str, Any], list[Finding]]:
    """Make it again, and compare."""
    project = locked(session.request, session.console, session.store, remember=False)
    _tell_of_another_lock(found, project, session.console)
    with (
        session.store.fresh() as fresh,
        base_sources(project.project, session.console, offline=offline) as sources,
    ):
        usual = workshop(session, project, offline=offline, jobs=jobs)
        lending = Lending(session.store, fresh, usual.fetch)
        shop = replace(usual, store=fresh, fetch=lending)
        made = realise([step for plan in project.plans for step in plan.steps], shop)
        bases = Bases(project.lock, session.store, trusted(sources, project.project, project.lock), session.console)
        image = assembled(project, made, bases)
        content = StoreContent.of(image, fresh, StoreContent.of(image, session.store, bases))
        steps = {each.layer.diff_id: each.step for each in made.values()}

        def brought(diff_id: Digest) -> dict[str, str]:
            return owners(steps[diff_id], shop) if diff_id in steps else {}

        twin = Held(content, documents(content, image.descriptor))
        with session.console.activity("compare", str(found.name or found.root.digest)):
            differences = [*_ambiguous(place), *findings(Held(found.content, found.image), twin, brought)]
    session.console.info(
        f"{len(made)} layers made anew; {len(lending.lent)} pinned inputs lent by the store at {session.store.root},"
        f" {len(lending.fetched)} downloaded"
    )
    said = {
        "identical": not differences,
        "rebuilt": str(image.digest),
        "lock": project.lock.content_hash,
        "lent": sorted(map(str, lending.lent)),
        "fetched": sorted(map(str, lending.fetched)),
        "differences": [_json(each) for each in differences],
    }
    return said, differences


def _ambiguous(place: Place) -> Iterator[Finding]:
    """An archive that others may read as another image is not what was rebuilt, whatever its index.json says."""
    if not isinstance(place, RemoteReference):
        yield from (Finding("archive", "is ambiguous", each, "") for each in other_readings(place.path))


def _tell_of_another_lock(found: Found, project: Locked, console: Console) -> None:
    """An image of another lock is another image: that is said before the differences are."""
    named = describe(found)["lock"]
    if named not in (None, project.lock.content_hash):
        console.warn(
            f"the image says that it was made from the lock {named}; the project's is {project.lock.content_hash}",
            "check out the project as it was, or name that lock with --lockfile",
        )


def _json(each: Finding) -> dict[str, str | None]:
    return {
        "where": each.where,
        "package": each.package or None,
        "path": each.path or None,
        "what": each.what,
        "image": each.image,
        "rebuilt": each.rebuilt or None,
    }


def _told(differences: Iterable[Finding]) -> Iterator[str]:
    """The differences for people: by place, the first files of each."""
    last, files = "", Counter[str]()
    for each in differences:
        if each.path:
            files[each.where] += 1
            if files[each.where] > SHOWN:
                continue
        if each.where != last:
            yield each.where
        yield f"  {each}"
        last = each.where
    yield from (f"{where}: {count - SHOWN} more files differ" for where, count in files.items() if count > SHOWN)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """The same, for people."""
    if "signed" in result:
        yield f"signed {result['digest']} ({' and '.join(result['signed'])})"
    if "valid" in result:
        yield f"valid {result['digest']}"
        if result["lock"]:
            yield f"lock {result['lock']}{': ' + result['lock_is'] if result['lock_is'] else ', which is not with it'}"
        return
    if result["identical"]:
        yield f"identical {result['digest']}"
    else:
        yield f"different {result['digest']}, rebuilt {result['rebuilt']}"
