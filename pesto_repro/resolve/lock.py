"""Project -> Lock: the only room that asks "which version?".

What an old lock pins stays pinned: only what the project asks anew, or what is to be upgraded, is resolved. A
project that asks for nothing new gets the same lock back without a question to anybody.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

from pesto_repro.build.base import Sources
from pesto_repro.build.compress import describe
from pesto_repro.build.documents import read_definitions
from pesto_repro.build.resources import Local
from pesto_repro.errors import FetchError, Problem, ProjectError, ResolveError
from pesto_repro.fetch import index as index_room
from pesto_repro.fetch.artifacts import addresses
from pesto_repro.fetch.world import World
from pesto_repro.lock.asked import Override, asked, base_name
from pesto_repro.lock.drift import asks_debian_anew, asks_python_anew, drift, versions
from pesto_repro.lock.model import (
    LOCK_VERSION,
    Assembly,
    BaseImage,
    BroughtPackage,
    DebianPackage,
    Input,
    Interpreter,
    Lock,
    PlatformLock,
    PythonPackage,
)
from pesto_repro.lock.text import seal
from pesto_repro.oci import Platform
from pesto_repro.plan import ASSEMBLY_VERSION
from pesto_repro.plan.make import RUNTIME
from pesto_repro.project import Project
from pesto_repro.project.checks import problems as service_problems
from pesto_repro.project.documents import did_you_mean, dotted
from pesto_repro.resolve import base_image, debian
from pesto_repro.resolve import sources as python_sources
from pesto_repro.resolve.builder import Builder
from pesto_repro.resolve.old import Lookup, Old
from pesto_repro.resolve.origins import Benches, Origins, changed_folders
from pesto_repro.resolve.request import LocalWheel, Request
from pesto_repro.resolve.resources import local_wheels, resolve_resources

_UNSEALED = "sha256:" + "0" * 64
_PACKAGERS = frozenset(["pip", "setuptools", "wheel"])
_OLDEST = "1980-01-01T00:00:00Z"


def lock_project(
    project: Project,
    platforms: tuple[str, ...],
    world: World,
    old: Old,
    sources: Sources,
    overrides: tuple[Override, ...] = (),
    *,
    benches: Benches,
) -> Lock:
    """The lock of *project* for *platforms*; *sources* says where its base image lies, if it has one.

    *benches* makes the room in which a platform's wheels are built from source; *overrides* is what of all that
    image.toml does not say. Raises ProjectError, ResolveError, FetchError, BuildError.
    """
    _require_one_base(project)
    local = Local(project)
    now = asked(project, platforms, overrides)
    if (kept := _unchanged(old, now, local, project, world)) is not None:
        _tell_moved(kept, sources, world)
        return kept
    lookup = Lookup(now.base, old, sources) if project.settings.base.debian is None else None
    known = {} if old.lock is None else {each.key: each for each in old.lock.resources}
    resources = resolve_resources(project, local, world.fetcher, known, upgrade=old.everything)
    wheels = local_wheels(project, resources, world.fetcher)
    with ThreadPoolExecutor(max(1, len(platforms))) as pool:
        pinned = tuple(pool.map(partial(_platform, project, now, world, old, wheels, lookup, benches), platforms))
    lock = Lock(
        lock_version=LOCK_VERSION,
        content_hash=_UNSEALED,
        assembly=_assembly(project, world.epoch or _epoch(pinned)),
        input=now,
        resources=resources,
        platforms=pinned,
    )
    _require_known(old.packages, lock)
    _check_service(project, pinned[0], world, wheels, benches)
    if lookup is not None and lookup.pinned is not None:
        _tell_moved(lock, sources, world)
    return seal(lock)


def _unchanged(old: Old, now: Input, local: Local, project: Project, world: World) -> Lock | None:
    """The old lock, if it answers everything that is asked now."""
    lock = old.lock
    if lock is None or not old.whole or old.everything or old.packages or drift(lock.input, now):
        return None
    if lock.assembly != _assembly(project, world.epoch or lock.assembly.epoch):
        return None
    locked = {each.key: each for each in lock.resources}
    same = all(locked.get(key) == each for key, each in local.resources.items())
    same = same and not changed_folders(lock.platforms, project.root, world.fetcher.store)
    return lock if same and locked.keys() == {each.key for each in project.resources} else None


def _platform(
    project: Project,
    now: Input,
    world: World,
    old: Old,
    wheels: tuple[LocalWheel, ...],
    lookup: Lookup | None,
    benches: Benches,
    platform: str,
) -> PlatformLock:
    """Everything pinned for one platform: what may stay stays, the rest is asked anew."""
    pins = old.pins(platform)
    changes = drift(old.lock.input, now) if old.lock is not None else ()
    base: BaseImage | None = None
    packages, build = tuple[DebianPackage, ...](), tuple[DebianPackage, ...]()
    if lookup is not None:
        base, interpreter = _based(project, platform, world, old, lookup)
    elif pins is None or old.renews((*pins.debian, *pins.build)) or asks_debian_anew(changes):
        packages, build, interpreter = _debian(project, platform, world, pins, old)
    else:
        packages, build, interpreter = pins.debian, pins.build, pins.python
    room = PlatformLock(platform=platform, base=base, python=interpreter, debian=packages, build=build)
    _require_python(project, interpreter)
    brought = base.packages if base is not None else ()
    used = brought if now.system_packages else ()
    if (
        pins is None
        or old.renews(pins.packages)
        or asks_python_anew(changes)
        or _differ(pins, room, wheels, project, world)
    ):
        chosen = _python(project, room, now, world, old, wheels, used, benches)
    else:
        chosen = pins.packages
    if not used:
        _tell_brought(brought, chosen, platform, world)
    return room.model_copy(update={"packages": chosen})


def _differ(
    pins: PlatformLock, room: PlatformLock, wheels: tuple[LocalWheel, ...], project: Project, world: World
) -> bool:
    """Is it another interpreter, or other bytes than those pinned: of the project's own, or of the room of a build?"""
    pinned = {each.resource: (each.source or each.wheel).sha256 for each in pins.packages if each.resource is not None}
    if pins.python != room.python or pinned != {each.key: each.digest.hex for each in wheels}:
        return True
    if pins.built and (pins.base, pins.debian, pins.build) != (room.base, room.debian, room.build):
        return True
    return bool(changed_folders((pins,), project.root, world.fetcher.store))


def _based(project: Project, platform: str, world: World, old: Old, lookup: Lookup) -> tuple[BaseImage, Interpreter]:
    """The base image for *platform* and its Python. What is known is not asked again."""
    settings = project.settings.python
    wanted = base_image.Asked(base_name(project), Platform.parse(platform), settings.version, settings.system_packages)
    known = old.base(platform, wanted)
    if known is not None and not old.everything:
        return known.base, known.python
    source, root = lookup.found()
    found = base_image.resolve(wanted, root, source, world.fetcher.store, world.reporter, known)
    return found.base, found.python


def _debian(
    project: Project, platform: str, world: World, pins: PlatformLock | None, old: Old
) -> tuple[tuple[DebianPackage, ...], tuple[DebianPackage, ...], Interpreter]:
    """The packages of the base, those that building needs beside them, and the base's Python."""
    architecture = debian.ARCHITECTURES[platform]
    settings = project.settings.base
    assert settings.debian is not None
    pinned = (*pins.debian, *pins.build) if pins else ()
    bases = debian.resolve(
        settings.debian,
        settings.packages,
        (architecture,),
        mirrors=world.mirrors(),
        fetcher=world.fetcher,
        now=world.now,
        keep=[each for each in pinned if each.name not in old.packages],
        upgrade=old.everything,
        build=project.settings.python.build.packages,
    )
    base = bases[architecture]
    return old.seen(platform, base.packages), old.seen(platform, base.build), base.python


def _python(
    project: Project,
    room: PlatformLock,
    now: Input,
    world: World,
    old: Old,
    wheels: tuple[LocalWheel, ...],
    brought: tuple[BroughtPackage, ...],
    benches: Benches,
) -> tuple[PythonPackage, ...]:
    pins = old.pins(room.platform)
    settings = project.settings
    request = Request(
        requires=project.requires,
        constraints=project.constraints,
        runtime=settings.runtime.package,
        closure=settings.runtime.closure,
        python=room.python,
        platform=room.platform,
        wheels=wheels,
        brought=brought,
        keep=pins.packages if pins else (),
        upgrade=old.everything,
        upgrade_packages=old.packages,
    )
    builder = Builder(
        room,
        benches,
        Origins.of(project, world),
        before=pins,
        asked=old.lock.input if old.lock is not None and pins is not None else None,
        keeps=old.keeps,
        allowed=frozenset(now.allow_unreproducible),
        resources=addresses(project),
    )
    return python_sources.resolve(request, builder, now.build_from_source)


def _assembly(project: Project, epoch: str) -> Assembly:
    compression = project.settings.layers.compression
    return Assembly(version=ASSEMBLY_VERSION, compression=compression, compressor=describe(compression), epoch=epoch)


def _epoch(platforms: tuple[PlatformLock, ...]) -> str:
    """The newest moment of what is pinned: of a base, a wheel's upload, a Debian package's snapshot."""
    bases = [each.base.created for each in platforms if each.base is not None and each.base.created]
    uploads = [each.upload_time for platform in platforms for each in platform.packages if each.upload_time]
    snapshots = [_rfc3339(each.snapshot) for platform in platforms for each in platform.debian]
    return max([_OLDEST, *bases, *uploads, *snapshots])


def _rfc3339(snapshot: str) -> str:
    """``20260912T075541Z`` as ``2026-09-12T07:55:41Z``."""
    day, _, time = snapshot.partition("T")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:6]}Z"


def _require_one_base(project: Project) -> None:
    """Debian packages are for bases that are made of them; packages of the base, for bases that are images."""
    settings = project.settings
    if settings.base.debian is None and settings.base.packages:
        names = ", ".join(settings.base.packages)
        raise ResolveError(
            f"[base] packages ({names}) are for a base made of Debian packages; this one is {base_name(project)}",
            'write `debian = "trixie"` beside them in image.toml, or choose a base image that has them',
        )
    if settings.base.debian is None and settings.python.build.packages:
        names = ", ".join(settings.python.build.packages)
        raise ResolveError(
            f"[python.build] packages ({names}) need [base] debian; this base is {base_name(project)}",
            'write `[base]` with `debian = "trixie"` in image.toml, or choose a base image that has compilers',
        )
    if settings.base.debian is not None and settings.python.system_packages:
        raise ResolveError(
            "[python] system-packages is for base images; this base is made of Debian packages",
            "leave it out of image.toml: what the service needs is resolved and pinned",
        )


def _tell_brought(
    brought: tuple[BroughtPackage, ...], chosen: tuple[PythonPackage, ...], platform: str, world: World
) -> None:
    """Say what is installed although the base has it."""
    names = {each.name for each in chosen} - _PACKAGERS
    twice = [each for each in brought if each.name in names]
    if twice:
        world.reporter.info(
            f"{platform}: the base has {base_image.names(twice)} too; [python] system-packages = true would use those"
        )


def _tell_moved(lock: Lock, sources: Sources, world: World) -> None:
    """Say when a base's name leads elsewhere now. That changes nothing; who cannot be asked now, can be later."""
    base = next((each.base for each in lock.platforms if each.base is not None), None)
    if base is None or world.fetcher.offline:
        return
    try:
        current = sources(base.original).current()
    except FetchError as error:
        world.reporter.debug(f"{base.original} could not be asked for: {error.message}")
        return
    if current is not None and str(current) != base.root:
        world.reporter.warn(
            f"{base.original} has moved: locked is {base.root}, it is {current} now",
            "the image stays as it is; `pesto-repro lock -U` takes the new one, and renews every pin",
        )


def _require_python(project: Project, interpreter: Interpreter) -> None:
    wanted = project.settings.python.version
    if wanted not in (None, interpreter.minor):
        raise ResolveError(
            f"python.version is {wanted}, but the base {project.settings.base.debian} has Python {interpreter.version}",
            "leave python.version out, or choose the base that has it: bookworm has 3.11, trixie 3.13",
        )


def _require_known(names: tuple[str, ...], lock: Lock) -> None:
    """``-P NAME`` of a package that is not locked is a slip."""
    known = {name for name, _ in versions(lock)}
    for name in names:
        if name not in known:
            raise ResolveError(
                f"-P {name}: no such package is in the lock{did_you_mean(name, known)}",
                "-P renews the pin of a package that is there; to add one, require it",
            )


def _check_service(
    project: Project, locked: PlatformLock, world: World, wheels: tuple[LocalWheel, ...], benches: Benches
) -> None:
    """The project's schemas against the runtime's own definitions, which only its wheel knows."""
    runtime = next(each for each in locked.packages if each.name == RUNTIME)
    if runtime.source is not None:
        Builder(locked, benches, Origins.of(project, world), resources=addresses(project)).bring(runtime)
    with _open_wheel(runtime, world, wheels) as stream:
        found = service_problems(project.documents, read_definitions(stream))
    if found:
        raise ProjectError(Problem(f"pesto/api/{name}.json", dotted(path), text) for name, path, text in found)


def _open_wheel(package: PythonPackage, world: World, wheels: tuple[LocalWheel, ...]) -> BinaryIO:
    for each in wheels:
        if each.key == package.resource and package.source is None:
            return each.path.open("rb")
    fetcher, wheel = world.fetcher, package.wheel
    fetcher.blob(wheel.digest, wheel.size, lambda: index_room.urls(package, world.indexes()[0], fetcher), wheel.name)
    return fetcher.store.open(wheel.digest)
