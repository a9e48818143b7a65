"""Who a command is inside a root: config.md of the image-spec, "User".

For Linux: "user", "uid", "user:group", "uid:gid", "uid:group", "user:gid". Names are looked up in the root's own
/etc/passwd and /etc/group; "If group/gid is not specified, the default group [...] of the given user/uid in
/etc/passwd and /etc/group from the container are applied."
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.paths import inside

_MAX_ID = 2**32 - 2
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class User:
    """Numbers, and the home folder that /etc/passwd names."""

    uid: int
    gid: int
    home: str = "/"


def find_user(root: Path, text: str) -> User:
    """The user that *text* names in *root*. Raises PestoError for one that is not there."""
    name, _, group = (text or "0").partition(":")
    known = _passwd(root, name)
    if known is None and not name.isdecimal():
        raise PestoError(f"the image has no user {name!r} in /etc/passwd", "name a user by its number")
    user = known or User(_number(name), 0)
    return User(user.uid, _gid(root, group), user.home) if group else user


def _passwd(root: Path, name: str) -> User | None:
    """passwd(5): name:password:UID:GID:GECOS:directory:shell."""
    for fields in _lines(root, "/etc/passwd", 6):
        if name in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            return User(_number(fields[2]), _number(fields[3]), fields[5] or "/")
    return None


def _gid(root: Path, group: str) -> int:
    """group(5): group_name:password:GID:user_list."""
    for fields in _lines(root, "/etc/group", 3):
        if group == fields[0] and fields[2].isdecimal():
            return _number(fields[2])
    if group.isdecimal():
        return _number(group)
    raise PestoError(f"the image has no group {group!r} in /etc/group", "name a group by its number")


def _number(text: str) -> int:
    if int(text) > _MAX_ID:
        raise PestoError(f"no user or group has the number {text}")
    return int(text)


def _lines(root: Path, path: str, least: int) -> Iterator[list[str]]:
    """The lines of a file of the root that have at least *least* fields; none without such a file."""
    try:
        with inside(root, path).open("rb") as stream:
            text = stream.read(_MAX_FILE).decode("utf-8", "surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= least:
            yield fields
