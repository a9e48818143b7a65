"""Maker "debian-system": what maintainer scripts would have made of a Debian base, made as data instead.

The links of the merged /usr, accounts, certificate authorities, the loader's cache, alternatives, the files
that packages copy from their own defaults, time zone, folders with special permissions. Not made, because a
container's runtime does: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pesto_repro.build import debian_alternatives, debian_certificates, ldcache
from pesto_repro.build.deb import Member
from pesto_repro.build.debian_facts import ACCOUNTS, COPIES, Facts, facts, merged
from pesto_repro.build.entry import Entry, data, directory, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step
from pesto_repro.plan.root import MERGED_USR, SPECIAL

_MERGED = {"amd64": ("bin", "lib", "lib64", "sbin"), "arm64": ("bin", "lib", "sbin")}
"""The links of the merged /usr that every base has, by architecture (trixie's base-files brings them)."""
_DIRECTORIES = (
    *("mnt", "srv", "opt", "media", "etc/opt", "var/opt", "proc", "sys", "dev"),
    *(f"usr/local/{name}" for name in "bin etc games include lib sbin share share/man src".split()),
    *SPECIAL,
)
_TIME_ZONE = "Etc/UTC"
_SITECUSTOMIZE = b"# Empty sitecustomize.py to avoid a dangling symlink\n"
_PYTHON = re.compile(r"usr/bin/(python3\.\d+)")


@dataclass(frozen=True, slots=True)
class Root:
    """The paths that all packages bring together, where they really lie, and the packages themselves."""

    architecture: str
    packages: tuple[Facts, ...]
    members: Mapping[str, Member]
    libraries: Mapping[str, ldcache.Library]

    def file(self, path: str) -> Member | None:
        """The file at *path*, links followed; None if there is none."""
        for _ in range(40):  # as many links as Linux follows, path_resolution(7)
            member = self.members.get(path)
            if member is None or member.kind == "file":
                return member
            if member.kind not in ("symlink", "hardlink"):
                return None
            path = _resolved(path, member)
        return None


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """What the scripts of the packages of *step* would have made, for ``params["architecture"]``."""
    root = _root(step, inputs)
    made = [
        *_links(root),
        *_accounts(root),
        *_copies(root),
        *_directories(),
        *_time_zone(root),
        *_python(root),
    ]
    made += debian_certificates.entries(_certificates(root))
    made += debian_alternatives.entries(_alternatives(root), root.members)
    yield from made
    yield data("etc/ld.so.cache", _loader_cache(root, made))


def _root(step: Step, inputs: Inputs) -> Root:
    architecture = step.params["architecture"]
    if architecture not in _MERGED:
        raise BuildError(f"no Debian base can be made for {architecture}", f"use one of {', '.join(_MERGED)}")
    known = [facts(pinned, inputs) for pinned in step.inputs]
    members = {merged(each.path): each for one in known for each in one.members}
    libraries = {merged(path): each for one in known for path, each in one.libraries.items()}
    return Root(architecture, tuple(known), members, libraries)


def _links(root: Root) -> Iterator[Entry]:
    # base-files' postinst: /lib32 and the like are there if something lies in /usr/lib32
    others = (name for name in MERGED_USR if f"usr/{name}" in root.members)
    for name in sorted({*_MERGED[root.architecture], *others}):
        yield directory(f"usr/{name}")
        yield symlink(name, f"usr/{name}")
    yield symlink("var/run", "/run")
    yield symlink("var/lock", "/run/lock")
    yield symlink("var/spool/mail", "../mail")
    yield symlink("usr/local/man", "share/man")
    if "etc/dpkg/origins/debian" in root.members:
        yield symlink("etc/dpkg/origins/default", "debian")


def _accounts(root: Root) -> Iterator[Entry]:
    for source, (path, line) in ACCOUNTS.items():
        if member := root.file(source):
            yield data(path, member.read() + line.encode())


def _copies(root: Root) -> Iterator[Entry]:
    found = {path: member for source, path in COPIES.items() if (member := root.file(source))}
    for path, member in found.items():
        if path not in root.members:
            yield data(path, member.read())


def _directories() -> Iterator[Entry]:
    return map(directory, _DIRECTORIES)


def _time_zone(root: Root) -> Iterator[Entry]:
    if root.file(f"usr/share/zoneinfo/{_TIME_ZONE}"):
        yield symlink("etc/localtime", f"/usr/share/zoneinfo/{_TIME_ZONE}")
        yield data("etc/timezone", f"{_TIME_ZONE}\n".encode())


def _python(root: Root) -> Iterator[Entry]:
    """``python3`` where no package brings it, and what each interpreter's postinst makes."""
    names = [match[1] for path in root.members if (match := _PYTHON.fullmatch(path))]
    for name in names:
        if f"etc/{name}/sitecustomize.py" not in root.members:
            yield data(f"etc/{name}/sitecustomize.py", _SITECUSTOMIZE)
        yield directory(f"usr/local/lib/{name}/dist-packages")
    if len(names) == 1 and "usr/bin/python3" not in root.members:
        yield symlink("usr/bin/python3", names[0])


def _certificates(root: Root) -> dict[str, bytes]:
    source = debian_certificates.SOURCE
    return {
        path.removeprefix(source): member.read()
        for path, member in root.members.items()
        if path.startswith(source) and path.endswith(".crt") and member.kind == "file"
    }


def _alternatives(root: Root) -> Iterator[debian_alternatives.Alternative]:
    for package in root.packages:
        for each in debian_alternatives.offered(package.postinst):
            slaves = tuple((f"/{merged(link.lstrip('/'))}", name, path) for link, name, path in each.slaves)
            yield replace(each, link=f"/{merged(each.link.lstrip('/'))}", slaves=slaves)


def _loader_cache(root: Root, made: Sequence[Entry]) -> bytes:
    """``ld.so.cache`` over the packages' libraries and the links made for them."""
    links = {each.path: _as_member(each) for each in made if each.kind == "symlink"}
    complete = replace(root, members={**root.members, **links})
    configuration = {
        path: member.read()
        for path, member in root.members.items()
        if path.startswith("etc/ld.so.conf") and member.kind == "file"
    }
    return ldcache.cache(_libraries(complete, ldcache.directories(configuration)), root.architecture)


def _libraries(root: Root, places: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(soname, path) of the libraries that lie in *places*, each place once however it is spelt."""
    inside: dict[str, list[str]] = {}
    for path in sorted(root.members):
        inside.setdefault(posixpath.dirname(path), []).append(posixpath.basename(path))
    spelt = {merged(place): place for place in reversed(places)}
    for place in (each for each in places if spelt[merged(each)] == each):
        names = inside.get(merged(place), [])
        found = {soname: name for name in names if (soname := _soname(root, f"{merged(place)}/{name}"))}
        for soname, name in found.items():
            yield soname, f"/{place}/{soname if soname in names else name}"


def _soname(root: Root, path: str) -> str | None:
    name = posixpath.basename(path)
    if not ldcache.is_library_name(name):
        return None
    member = root.file(path)
    library = root.libraries.get(merged(member.path)) if member is not None else None
    if library is None or library.machine != ldcache.MACHINES[root.architecture]:
        return None
    return ldcache.entry_name(name, library.soname or name, root.members[path].kind == "symlink")


def _resolved(path: str, member: Member) -> str:
    """Where a link leads, below the root."""
    if member.kind == "hardlink":
        return merged(member.target)
    target = posixpath.join("/" + posixpath.dirname(path), member.target)
    return merged(posixpath.normpath(target).lstrip("/"))


def _as_member(entry: Entry) -> Member:
    return Member(entry.path, "symlink", entry.mode, entry.uid, entry.gid, 0, entry.target, None, 0)
