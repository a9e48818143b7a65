"""Pins wheels that are built from source: what they are built from, with what, and what comes out.

What is pinned stays as it is while nothing that it depends on changed: the source, the room, what it was built with.
What is new is built twice, in the sealed room of the platform that it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.requirements import Requirement

from pesto_repro.addresses import public, redact
from pesto_repro.digest import chunks
from pesto_repro.errors import ResolveError
from pesto_repro.fetch.artifacts import Artifacts, build_artifacts, platform_artifacts
from pesto_repro.lock.model import Input, Pin, PlatformLock, PythonPackage, Source
from pesto_repro.project.pyaddress import Address, address_of
from pesto_repro.resolve import python
from pesto_repro.resolve.failures import NO_WHEEL_HINT, NoWheels
from pesto_repro.resolve.origins import Benches, Origins, restore
from pesto_repro.resolve.request import LocalWheel, Metadata, Request, Sdist
from pesto_repro.source.archive import read_sdist
from pesto_repro.source.unpacked import Unpacked

_NOTHING = Pin(name="", sha256="0" * 64, size=0)


@dataclass(frozen=True, slots=True)
class _Old:
    """A package that was built from source before, and from what."""

    package: PythonPackage
    source: Source


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds for one platform.

    *room* is the platform as far as it is known: base, Python, Debian packages. *before* is what was pinned for it,
    *asked* what was asked then; *keeps* says whether the pin of a package is to stay. *allowed* are packages that need
    not come out equal; *resources* says where ``type: pip`` requirements lie, by key.
    """

    room: PlatformLock
    benches: Benches
    origins: Origins
    before: PlatformLock | None = None
    asked: Input | None = None
    keeps: Callable[[str], bool] = lambda name: True
    allowed: Collection[str] = ()
    resources: Mapping[str, str] = field(default_factory=dict)

    # -- what is built -------------------------------------------------------------------------------------------

    def sdist(self, chosen: Sdist) -> PythonPackage:
        """The package whose *chosen* source distribution lies on an index."""
        file, fetcher = chosen.file, self.origins.world.fetcher
        old = self._old(lambda package, source: (source.kind, package.name) == ("sdist", chosen.name))
        if old is not None and old.source.sha256 == file.sha256 and self._stays(old):
            return old.package
        fetcher.blob(file.digest, file.size, lambda: [chosen.url], file.name)
        source = read_sdist(fetcher.store, file.name, file.digest, package=chosen.name, version=chosen.version)
        return self._made(source, old, index=chosen.index, upload_time=chosen.upload_time)

    def local(self, file: LocalWheel) -> LocalWheel:
        """The wheel of a source distribution that the project brings."""
        old = self._old(lambda package, source: package.resource == file.key, brought=True)
        if old is not None and old.source.sha256 == file.digest.hex and self._stays(old):
            return self._wheel(old.package, file.key)
        self._keep(file)
        source = read_sdist(self.origins.world.fetcher.store, file.filename, file.digest)
        return self._wheel(self._made(source, old, resource=file.key), file.key)

    def address(self, address: Address) -> LocalWheel:
        """The wheel of a requirement by address."""
        place = (address.kind, public(address.location), address.subdirectory)
        old = self._old(lambda package, source: (source.kind, source.name, source.subdirectory) == place)
        made = self._folder(address, old) if address.kind == "directory" else self._repository(address, old)
        return self._wheel(made, None, address.extras)

    def _folder(self, address: Address, old: _Old | None) -> PythonPackage:
        source = self.origins.directory(address.location, address.name)
        if old is not None and old.source.digest == source.digest and self._stays(old):
            return old.package
        return self._made(source, old)

    def _repository(self, address: Address, old: _Old | None) -> PythonPackage:
        """The commit stays until its package is renewed, wherever the branch or tag has gone."""
        if old is None or not self.keeps(old.package.name) or not self._led_there(address):
            return self._made(self.origins.commit(address), old)
        return old.package if self._stays(old) else self._made(self.origins.commit(address, old.source.commit), old)

    def _made(self, source: Unpacked, old: _Old | None, **where: str | None) -> PythonPackage:
        """The package that *source* makes, built twice."""
        from pesto_repro.source.again import build_twice  # imported late: most locks have no sources

        reporter = self.origins.world.reporter
        requires = self._requires(source, old)
        bench = self.benches(self.room, self._artifacts(_draft(requires)).fetch)
        built = build_twice(bench, source, requires, allow=self.allowed)
        reporter.info(f"{built.name} {built.version} was built from source: {source.label}")
        if not built.reproducible:
            reporter.warn(
                f"{built.name} {built.version} does not come out equal: no other machine can build this wheel"
            )
        made = Source(
            kind=source.kind,
            name=source.name,
            sha256=source.digest.hex,
            size=source.size,
            commit=source.commit,
            subdirectory=source.subdirectory,
            requires=requires,
            files=built.files,
            reproducible=built.reproducible,
        )
        wheel = Pin(name=built.filename, sha256=built.digest.hex, size=built.size)
        return PythonPackage(name=built.name, version=built.version, **where, wheel=wheel, source=made)

    def _keep(self, file: LocalWheel) -> None:
        """Have a file of the project in the store, where sources are read from."""
        with file.path.open("rb") as stream, self.origins.world.fetcher.store.writer() as blob:
            for piece in chunks(stream):
                blob.write(piece)
            if blob.commit() != file.digest:
                raise ResolveError(f"{file.path} changed while it was being read", "run the command again")

    # -- what it is built with -----------------------------------------------------------------------------------

    def _requires(self, source: Unpacked, old: _Old | None) -> tuple[PythonPackage, ...]:
        """What *source* says that its build needs, pinned: first as it is written, then as its backend says."""
        pinned = old.source.requires if old is not None else ()
        static = self.benches(self.room, self._artifacts(_draft(())).fetch).static_requires(source)
        first = self._resolved(static, source, pinned)
        bench = self.benches(self.room, self._artifacts(_draft(first)).fetch)
        dynamic = bench.dynamic_requires(source, first)
        if set(dynamic) <= set(static):
            return first
        return self._resolved((*static, *dynamic), source, (*pinned, *first))

    def _resolved(
        self, requires: Sequence[str], source: Unpacked, pinned: Iterable[PythonPackage]
    ) -> tuple[PythonPackage, ...]:
        world, room = self.origins.world, self.room
        keep = {each.name: each for each in pinned if self.keeps(each.name)}
        request = Request(tuple(requires), (), "", "none", room.python, room.platform, keep=tuple(keep.values()))
        if not requires:
            return ()
        try:
            return python.resolve(request, *world.indexes(), world.fetcher.pin, world.reporter)
        except NoWheels as error:
            raise ResolveError(
                f"{source.label} is to be built from source, but what its build needs is there only as source, too:\n"
                f"{error.message}",
                NO_WHEEL_HINT,
            ) from None
        except ResolveError as error:
            error.message = f"{source.label} is to be built from source: {error.message}"
            raise

    # -- what is pinned ------------------------------------------------------------------------------------------

    def _old(self, matches: Callable[[PythonPackage, Source], bool], *, brought: bool = False) -> _Old | None:
        """What was pinned before of a source, whatever its version was; *brought* by a ``type: pip`` requirement."""
        for each in self.before.built if self.before is not None else ():
            if each.source is not None and brought == (each.resource is not None) and matches(each, each.source):
                return _Old(each, each.source)
        return None

    def _stays(self, old: _Old) -> bool:
        """Is everything as it was when *old* was built, and none of it to be renewed?"""
        now, before = self.room, self.before
        assert before is not None
        same = (now.base, now.python, now.debian, now.build) == (
            before.base,
            before.python,
            before.debian,
            before.build,
        )
        allowed = old.source.reproducible or old.package.name in self.allowed
        return (
            same and allowed and all(map(self.keeps, [old.package.name, *(each.name for each in old.source.requires)]))
        )

    def _led_there(self, address: Address) -> bool:
        """Was the same branch, tag or commit asked for before?"""
        texts = self.asked.requires if self.asked is not None else ()
        before = [each for each in map(address_of, texts) if each is not None]
        return (address.location, address.ref) in {(each.location, each.ref) for each in before}

    def _wheel(self, package: PythonPackage, key: str | None, extras: tuple[str, ...] = ()) -> LocalWheel:
        self.metadata(package)
        wheel, path = package.wheel, self.origins.world.fetcher.store.path(package.wheel.digest)
        return LocalWheel(key, wheel.name, path, wheel.digest, wheel.size, package.source, extras)

    def bring(self, package: PythonPackage) -> None:
        """Have the wheel of *package* in the store."""
        if not self.origins.world.fetcher.store.has(package.wheel.digest):
            fetch = self._artifacts(package).fetch
            restore(package, self.benches(self.room, fetch), self.origins, fetch)

    def metadata(self, package: PythonPackage) -> Metadata:
        """What the wheel of *package* says of itself. Raises ResolveError if it requires an address."""
        from pesto_repro.source.wheel import read_metadata  # imported late: most locks have no sources

        self.bring(package)
        with self.origins.world.fetcher.store.open(package.wheel.digest) as stream:
            message = read_metadata(package.wheel.name, stream)
        requires = tuple(str(each) for each in message.get_all("Requires-Dist", []))
        for text in requires:
            # uv would have to build what is required by address to know what that requires
            if Requirement(text).url is not None:
                raise ResolveError(
                    f"{package.name} requires {redact(text)}, an address",
                    "require that in the project itself, and by its name there",
                )
        extras = tuple(str(each) for each in message.get_all("Provides-Extra", []))
        return Metadata(package.name, package.version, requires, message["Requires-Python"], extras)

    def _artifacts(self, package: PythonPackage) -> Artifacts:
        """What the room, and building *package*, are made of."""
        world = self.origins.world
        found = {each.digest: each for each in build_artifacts(package, self.resources, world)}
        return Artifacts(world.fetcher, platform_artifacts(self.room, self.resources, world) | found)


def _draft(requires: tuple[PythonPackage, ...]) -> PythonPackage:
    """A package of which nothing is known but what it is built with."""
    source = Source(kind="directory", name="", sha256=_NOTHING.sha256, size=0, requires=requires)
    return PythonPackage(name="", version="", wheel=_NOTHING, source=source)
