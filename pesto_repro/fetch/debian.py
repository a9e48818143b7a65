"""Where Debian packages lie: mirrors, and the addresses of a pinned package below them.

The lock names no host, so whoever builds says where Debian is: ``[base] mirror`` first, then
``$PESTO_REPRO_DEBIAN_MIRROR``, then the machine's own apt sources where they are Debian's. The first two may
name several mirrors, separated by white space. One whose address contains ``{snapshot}`` is an archive of
past states: it serves packages that have left the others, but cannot say what is current.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pesto_repro.addresses import can_be_asked, public
from pesto_repro.errors import FetchError
from pesto_repro.lock.model import DebianPackage

SNAPSHOT = "{snapshot}"
_CODENAMES = frozenset("bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable".split())
_POCKETS = frozenset(["", "updates", "security", "backports"])
# sources.list(5): "deb [ option1=value1 option2=value2 ] uri suite [component1] [component2] [...]"
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)")


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Addresses of Debian's main archive and of its security archive, without trailing slash, best first.

    They may hold a password, which is neither in the text of a value nor in a message.
    """

    main: tuple[str, ...] = field(repr=False)
    security: tuple[str, ...] = field(repr=False)

    def of(self, suite: str) -> tuple[str, ...]:
        """The addresses that serve *suite*: "trixie-security" lies in the security archive."""
        return self.security if suite.endswith("-security") else self.main

    def current(self, suite: str) -> tuple[str, ...]:
        """Those of them that can say what is current. Raises FetchError if there is none."""
        found = tuple(each for each in self.of(suite) if SNAPSHOT not in each)
        if not found:
            raise FetchError(
                f"every mirror for {suite} is an archive of snapshots: {', '.join(map(public, self.of(suite)))}",
                f"add a mirror without {SNAPSHOT} to `[base] mirror` or $PESTO_REPRO_DEBIAN_MIRROR",
            )
        return found


@dataclass(frozen=True, slots=True)
class _Source:
    uri: str
    suite: str
    components: tuple[str, ...]


def mirrors(base_mirror: str | None, environment_value: str | None, apt_sources: Iterable[str]) -> Mirrors:
    """The mirrors to use: *base_mirror*, else *environment_value*, else those in apt's source files."""
    for where, stated in (("[base] mirror", base_mirror), ("$PESTO_REPRO_DEBIAN_MIRROR", environment_value)):
        if stated and stated.split():
            return _with_security(_checked(where, stated.split()))
    found = [each.uri for text in apt_sources for each in _sources(text) if _is_debian(each)]
    if not found:
        raise FetchError(
            "no Debian mirror is known: neither `[base] mirror` nor $PESTO_REPRO_DEBIAN_MIRROR is set,"
            " and no apt source of this machine is Debian's",
            "set `[base] mirror` in image.toml or $PESTO_REPRO_DEBIAN_MIRROR to a Debian mirror's address",
        )
    return _with_security(sorted(found, key=lambda uri: "debian" != _segments(uri)[-1]))


def urls(package: DebianPackage, where: Mirrors) -> list[str]:
    """Every address at which the pinned *package* may lie, archives of snapshots last."""
    candidates = sorted(where.of(package.suite), key=lambda each: SNAPSHOT in each)
    return [f"{each.replace(SNAPSHOT, package.snapshot)}/{package.filename}" for each in candidates]


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of Debian's control format as fields; their names, case-insensitive, in lower case.

    Debian Policy 5.1: "The fields' values may be continued by lines that start with a space or a tab";
    lines that start with # are comments in the files that allow them (sources, not indices).
    """
    for block in re.split(r"\n(?:[ \t]*\n)+", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line[1:]
            elif line[:1] != "#" and ":" in line:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def _checked(where: str, uris: list[str]) -> list[str]:
    for uri in uris:
        if not can_be_asked(uri):
            raise FetchError(f"{where} is no address: {public(uri)}", "write https://HOST/debian, or file:///FOLDER")
    return uris


def _with_security(uris: Iterable[str]) -> Mirrors:
    unique = list(dict.fromkeys(uri.rstrip("/") for uri in uris))
    security = [uri for uri in unique if "debian-security" in _segments(uri)]
    main = [uri for uri in unique if uri not in security]
    return Mirrors(tuple(main or map(_main_of, security)), tuple(security or map(_security_of, main)))


def _security_of(uri: str) -> str:
    """``/debian/{snapshot}`` -> ``/debian-security/{snapshot}``; of several the last, of none the end."""
    if "/debian/" in uri:
        return "/debian-security/".join(uri.rsplit("/debian/", 1))
    return f"{uri}-security"


def _main_of(uri: str) -> str:
    return "/debian".join(uri.rsplit("/debian-security", 1))


def _segments(uri: str) -> list[str]:
    return urlsplit(uri).path.strip("/").split("/")


def _is_debian(source: _Source) -> bool:
    """Whether a source is Debian's own: others' have other components, or suites that Debian has not."""
    if not can_be_asked(source.uri) or "main" not in source.components:
        return False
    codename, _, pocket = source.suite.partition("-")
    known = codename.partition("/")[0] in _CODENAMES and pocket in _POCKETS
    return known or _segments(source.uri)[-1] in ("debian", "debian-security")


def _sources(text: str) -> Iterator[_Source]:
    """The binary sources of one file of apt's, whichever of its two formats it has."""
    if re.search(r"^deb(-src)?\s", text, re.MULTILINE):
        yield from _one_line_sources(text)
    else:
        for fields in paragraphs(text):
            yield from _deb822_sources(fields)


def _one_line_sources(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        if match := _ONE_LINE.fullmatch(line.partition("#")[0].strip()):
            yield _Source(match["uri"], match["suite"], tuple(match["components"].split()))


def _deb822_sources(fields: Mapping[str, str]) -> Iterator[_Source]:
    # sources.list(5): "Enabled ... can be set to no to disable"
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
        "no",
        "false",
    ):
        return
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield _Source(uri, suite, tuple(fields.get("components", "").split()))
