"""The joint resolution where some packages exist only as source.

A package is built from source if image.toml names it, if no wheel of it fits the image, or if it is required by
address. ``uv`` only chooses versions; what a source requires is known when its wheel is built, in the sealed room. So
it goes back and forth: resolve, build what is new, tell ``uv`` what that requires, until nothing new is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from packaging.markers import Marker

from pesto_repro.errors import ResolveError
from pesto_repro.lock.model import Interpreter, PythonPackage
from pesto_repro.project.pyaddress import Address, address_of
from pesto_repro.resolve import python
from pesto_repro.resolve.builder import Builder
from pesto_repro.resolve.failures import NoWheels
from pesto_repro.resolve.request import Request
from pesto_repro.resolve.wheel_tags import ARCHITECTURES

_ROUNDS = 100


def resolve(request: Request, builder: Builder, forced: Iterable[str] = ()) -> tuple[PythonPackage, ...]:
    """The packages of *request*, sorted by name; those of *forced*, and those without a wheel, built from source.

    Raises ResolveError, FetchError, BuildError.
    """
    world = builder.origins.world
    named, known = {*forced, *_were_built(request, builder)}, dict[tuple[str, str], PythonPackage]()
    request = _localised(request, builder)
    for _ in range(_ROUNDS):
        said = tuple(builder.metadata(each) for each in known.values())
        now = replace(request, from_source=tuple(sorted(named)), metadata=said)
        try:
            found = python.resolve_all(now, *world.indexes(), world.fetcher.pin, world.reporter)
        except NoWheels as error:
            if named.issuperset(error.names):
                raise
            named.update(error.names)
            continue
        new = [each for each in found.sdists if (each.name, each.version) not in known]
        if not new:
            built = [known[each.name, each.version] for each in found.sdists]
            return tuple(sorted([*found.packages, *built], key=lambda each: each.name))
        known.update({(each.name, each.version): builder.sdist(each) for each in new})
    raise ResolveError(
        f"the requirements for {request.target} do not settle: each version that is built asks for another one",
        f"pin the versions of {', '.join(sorted(named))}",
    )


def _localised(request: Request, builder: Builder) -> Request:
    """*request* with a wheel of everything that the project brings, or requires by address."""
    names, addresses = addressed(request)
    brought = [each if each.filename.endswith(".whl") else builder.local(each) for each in request.wheels]
    return replace(request, requires=names, wheels=(*brought, *map(builder.address, addresses)))


def _were_built(request: Request, builder: Builder) -> set[str]:
    """What was built because it had no wheel stays so; what was built because it was named, does not."""
    asked = set(builder.asked.build_from_source) if builder.asked is not None else set()
    pinned = [each for each in request.keep if each.source is not None and each.source.kind == "sdist"]
    return {each.name for each in pinned if each.resource is None and request.keeps(each.name)} - asked


def addressed(request: Request) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    """What *request* requires by name, and by address as far as it concerns the image: each place once."""
    names, found = list[str](), dict[tuple[str | None, ...], Address]()
    for text in request.requires:
        each = address_of(text)
        if each is None:
            names.append(text)
        elif each.marker is None or Marker(each.marker).evaluate(_environment(request.python, request.platform)):
            place = (each.kind, each.location, each.ref, each.subdirectory)
            same = found.get(place, each)
            extras = tuple(sorted({*same.extras, *each.extras}))
            found[place] = replace(same, name=same.name or each.name, extras=extras)
    return tuple(names), tuple(found.values())


def _environment(interpreter: Interpreter, platform: str) -> dict[str, str]:
    """PEP 508, "Environment Markers", for the image's Python."""
    return {
        "implementation_name": "cpython",
        "implementation_version": interpreter.version,
        "os_name": "posix",
        "platform_machine": ARCHITECTURES[platform],
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": interpreter.version,
        "python_version": interpreter.minor,
        "sys_platform": "linux",
    }
