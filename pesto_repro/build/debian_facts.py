"""What the system files of a base need to know of each Debian package: its paths, a few small files, its libraries.

To unpack a package takes longer than all that is made of what it says. So whoever unpacks one puts what it says on
the shelf: the step that makes its files does, and the step of the system files, which comes last, finds it there.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from pesto_repro.build import debian_certificates, ldcache
from pesto_repro.build.deb import Deb, Member, read
from pesto_repro.build.maker import Inputs
from pesto_repro.plan.root import LINKS, USER, real
from pesto_repro.plan.step import Pinned

_PASSWD = f"nonroot:x:{USER}:{USER}:nonroot:/home/nonroot:/usr/sbin/nologin\n"
_GROUP = f"nonroot:x:{USER}:\n"
ACCOUNTS = {
    "usr/share/base-passwd/passwd.master": ("etc/passwd", _PASSWD),
    "usr/share/base-passwd/group.master": ("etc/group", _GROUP),
}
COPIES = {
    "usr/share/base-files/profile": "etc/profile",
    "usr/share/base-files/motd": "etc/motd",
    "usr/share/base-files/dot.profile": "root/.profile",
    "usr/share/base-files/dot.bashrc": "root/.bashrc",
    "usr/share/base-files/nsswitch.conf": "etc/nsswitch.conf",
    "usr/share/libc-bin/nsswitch.conf": "etc/nsswitch.conf",
    "usr/share/readline/inputrc": "etc/inputrc",
}
"""What a package installs as a first configuration (install_from_default in its postinst)."""
_KIND = "debian-facts-1"


@dataclass(frozen=True, slots=True)
class Facts:
    """A package's *postinst*, its paths (those of :func:`_wanted` with their content) and shared libraries by path."""

    postinst: str
    members: tuple[Member, ...]
    libraries: Mapping[str, ldcache.Library]


def facts(pinned: Pinned, inputs: Inputs) -> Facts:
    """Those of one package: from the shelf, else out of the package. Raises BuildError."""
    text = inputs.shelf.find(_KIND, pinned.digest)
    if text is None:
        with inputs.open(pinned.digest) as stream, inputs.scratch() as scratch:
            deb = read(stream, pinned.name, scratch, lambda path: _wanted(path) or _is_library(path))
            text = put_aside(pinned, deb, inputs)
    return _read(text)


def put_aside(pinned: Pinned, deb: Deb, inputs: Inputs) -> str:
    """Put the facts of *deb* on the shelf; them as they stand there."""
    document = {
        "postinst": deb.control.get("postinst", b"").decode("utf-8", "replace"),
        "members": [_member(each) for each in deb.members],
    }
    text = json.dumps(document, separators=(",", ":"))
    inputs.shelf.put(_KIND, pinned.digest, text)
    return text


def merged(path: str) -> str:
    """Where *path* really lies: ``lib/x`` is ``usr/lib/x``."""
    return real(path, LINKS)


def _wanted(path: str) -> bool:
    path = merged(path)
    return path in ACCOUNTS or path in COPIES or path.startswith((debian_certificates.SOURCE, "etc/ld.so.conf"))


def _is_library(path: str) -> bool:
    return ldcache.is_library_name(posixpath.basename(path))


def _member(member: Member) -> list[object]:
    """One path as the shelf has it: its content, or what its library says, if that is of interest."""
    found: list[object] = [member.path, member.kind, member.mode, member.uid, member.gid, member.target]
    if member.kind != "file":
        return found
    if _wanted(member.path):
        return [*found, member.read().decode("latin-1")]
    if _is_library(member.path):
        with member.open() as stream:
            library = ldcache.library(stream)
        return [*found, None, library.machine, library.soname] if library else found
    return found


def _read(text: str) -> Facts:
    document = json.loads(text)
    members, libraries = [], {}
    for path, kind, mode, uid, gid, target, *more in document["members"]:
        content = more[0].encode("latin-1") if more and more[0] is not None else None
        scratch = None if content is None else io.BytesIO(content)
        members.append(Member(path, kind, mode, uid, gid, len(content or b""), target, scratch, 0))
        if len(more) > 1:
            libraries[path] = ldcache.Library(more[1], more[2])
    return Facts(document["postinst"], tuple(members), libraries)
