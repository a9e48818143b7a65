"""Maker "debs": the files of some Debian packages, as dpkg would unpack them on a system with a merged /usr.

Nothing is run. Modes and owners are the package's. For scanners, ``/var/lib/dpkg/status.d/<package>`` holds
the control paragraph and ``<package>.md5sums`` the checksums, as in distroless images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pesto_repro.build.deb import Deb, Member, read
from pesto_repro.build.debian_facts import merged, put_aside
from pesto_repro.build.entry import Entry, data
from pesto_repro.build.maker import Inputs
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step
from pesto_repro.plan.root import LINKS


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """The paths of every package of *step*. Raises BuildError that lists all that is refused."""
    scratch = inputs.stack.enter_context(inputs.scratch())
    debs: list[Deb] = []
    for pinned in step.inputs:
        with inputs.open(pinned.digest) as stream:
            debs.append(read(stream, pinned.name, scratch))
            put_aside(pinned, debs[-1], inputs)
    refused = [f"{deb.label}: {reason}" for deb in debs for reason in _refusals(deb)]
    if refused:
        raise BuildError("\n  ".join(["Debian packages bring what cannot be in an image:", *sorted(refused)]))
    for deb in debs:
        yield from package_entries(deb)


def package_entries(deb: Deb) -> Iterator[Entry]:
    """The paths of one package, and what tells scanners of it."""
    yield from _anchored(_entry(each, deb.label) for each in deb.members)
    status = f"var/lib/dpkg/status.d/{deb.name}"
    yield data(status, deb.control["control"], origin=deb.label)
    if "md5sums" in deb.control:
        yield data(f"{status}.md5sums", deb.control["md5sums"], origin=deb.label)


def _entry(member: Member, origin: str) -> Entry:
    assert member.kind != "special"
    # base-files ships the links themselves: /bin -> usr/bin
    path = member.path if member.kind == "symlink" and member.path in LINKS else merged(member.path)
    target = merged(member.target) if member.kind == "hardlink" else member.target
    mode = 0o777 if member.kind == "symlink" else member.mode & 0o7777
    opener = member.open if member.kind == "file" else None
    return Entry(path, member.kind, mode, member.size, opener, target, member.uid, member.gid, origin)


def _anchored(found: Iterable[Entry]) -> Iterator[Entry]:
    """Of several names of one file the first by path parts carries the content: it is first in a layer."""
    entries = {each.path: each for each in found}
    names: dict[str, list[str]] = {}
    for entry in entries.values():
        if entry.kind == "hardlink":
            names.setdefault(_root(entry, entries), []).append(entry.path)
    for content, links in names.items():
        first, *others = sorted([content, *links], key=lambda path: path.split("/"))
        file = entries[content]
        entries[first] = replace(file, path=first)
        for other in others:
            entries[other] = replace(file, path=other, kind="hardlink", size=0, open=None, target=first)
    yield from entries.values()


def _root(entry: Entry, entries: dict[str, Entry]) -> str:
    """The path of the file that a hardlink is another name of."""
    while entry.kind == "hardlink":
        entry = entries[entry.target]
    return entry.path


def _refusals(deb: Deb) -> Iterator[str]:
    files: set[str] = set()
    for member in deb.members:
        if _escapes(member.path):
            yield f"{member.path!r} is not a path below the root"
        elif member.kind == "special":
            yield f"{member.path!r} is a device, a pipe or something else that is no file"
        elif member.kind == "hardlink" and merged(member.target) not in files:
            yield f"{member.path!r} is a hard link to {member.target!r}, which does not stand before it"
        elif member.kind in ("file", "hardlink"):
            files.add(merged(member.path))


def _escapes(path: str) -> bool:
    readable = path.isascii() or all(not 0xD800 <= ord(character) < 0xE000 for character in path)
    return not readable or any(part in ("", ".", "..") for part in path.split("/"))
