"""What a Debian suite offers: signed, checked, and read only as far as asked.

A suite's ``InRelease`` is signed text that holds the checksums of its ``Packages.xz``; nothing but the
verified text is used. ``Packages`` is 50 MB of stanzas: it is held as bytes, with the offsets of each name
and of each provided name, and a stanza becomes fields when somebody asks for it.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.resources import files
from typing import BinaryIO

import pysequoia

from pesto_repro.addresses import public
from pesto_repro.digest import CHUNK, Digest
from pesto_repro.errors import FetchError, ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors, paragraphs
from pesto_repro.lock.model import DebianPackage
from pesto_repro.progress import Reporter
from pesto_repro.resolve.debian_relation import Clause, Relation, clauses, relations

COMPONENT = "main"
Key = pysequoia.Cert
"""An OpenPGP certificate: a key that signs suites."""
_ENTRY = re.compile(rb"^(Package|Provides):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Release:
    """The verified statements of one suite's ``InRelease``; *checksums* by path: digest and size."""

    suite: str
    snapshot: str
    by_hash: bool
    checksums: Mapping[str, tuple[Digest, int]]
    valid_until: datetime | None = None

    def packages(self, architecture: str) -> tuple[str, Digest, int]:
        """The path below the suite's folder, the digest and the size of an architecture's ``Packages.xz``."""
        path = f"{COMPONENT}/binary-{architecture}/Packages.xz"
        if path not in self.checksums:
            raise ResolveError(f"Debian's suite {self.suite} has no packages for {architecture}")
        digest, size = self.checksums[path]
        if self.by_hash:
            # Debian wiki, DebianRepository/Format: "indices acquisition via hashsums (by-hash)"
            path = f"{COMPONENT}/binary-{architecture}/by-hash/SHA256/{digest.hex}"
        return path, digest, size


@dataclass(frozen=True, slots=True)
class Record:
    """One stanza of ``Packages``: a package of one version."""

    suite: str
    snapshot: str
    fields: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        return self.fields["package"]

    @property
    def version(self) -> str:
        return self.fields["version"]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def needs(self) -> tuple[Clause, ...]:
        """Pre-Depends and Depends. Recommends are nobody's need."""
        return tuple(clause for name in ("pre-depends", "depends") for clause in clauses(self.fields.get(name, "")))

    @property
    def excludes(self) -> tuple[Relation, ...]:
        """Conflicts and Breaks."""
        return tuple(each for name in ("conflicts", "breaks") for each in relations(self.fields.get(name, "")))

    @property
    def provides(self) -> tuple[Relation, ...]:
        return relations(self.fields.get("provides", ""))

    def satisfies(self, relation: Relation) -> bool:
        """Whether this package meets *relation*, by its name or by what it provides.

        Debian Policy 7.5: "If a relationship field has a version number attached, only real packages will be
        considered ... unless the virtual package provides a version".
        """
        if relation.name == self.name:
            return relation.allows(self.version)
        offered = (each for each in self.provides if each.name == relation.name)
        if not relation.operator:
            return any(True for _ in offered)
        return any(each.version and relation.allows(each.version) for each in offered)

    def pin(self) -> DebianPackage:
        """The package as the lock writes it."""
        return DebianPackage(
            name=self.name,
            sha256=self.fields["sha256"],
            size=int(self.fields["size"]),
            version=self.version,
            architecture=self.fields["architecture"],
            filename=self.fields["filename"],
            suite=self.suite,
            snapshot=self.snapshot,
        )


class Index:
    """The packages of one suite for one architecture. Holds *text* and offsets; parses what is asked for."""

    def __init__(self, suite: str, snapshot: str, text: bytes | bytearray) -> None:
        self.suite, self.snapshot, self._text = suite, snapshot, text
        self._named: dict[bytes, tuple[int, ...]] = {}
        self._provided: dict[bytes, tuple[int, ...]] = {}
        for match in _ENTRY.finditer(text):
            if match[1] == b"Package":
                self._add(self._named, match[2].strip(), match.start())
            else:
                for part in match[2].split(b","):
                    self._add(self._provided, part.partition(b"(")[0].strip(), match.start())

    def named(self, name: str) -> tuple[Record, ...]:
        """The packages called *name*, in the order of the file."""
        return tuple(map(self._record, self._named.get(name.encode(), ())))

    def providers(self, name: str) -> tuple[Record, ...]:
        """The packages whose Provides names *name*, in the order of the file."""
        return tuple(map(self._record, self._provided.get(name.encode(), ())))

    def names(self) -> Iterable[str]:
        return (name.decode() for name in self._named)

    @staticmethod
    def _add(table: dict[bytes, tuple[int, ...]], name: bytes, offset: int) -> None:
        table[name] = (*table.get(name, ()), offset)

    def _record(self, offset: int) -> Record:
        start = self._text.rfind(b"\n\n", 0, offset) + 1
        end = self._text.find(b"\n\n", offset)
        stanza = self._text[start : end if end >= 0 else None].decode()
        return Record(self.suite, self.snapshot, next(paragraphs(stanza)))


@cache
def debian_keys() -> tuple[Key, ...]:
    """The keys that sign bookworm's and trixie's suites, as Debian publishes them."""
    return tuple(pysequoia.Cert.split_bytes(files(__package__).joinpath("debian_keys.asc").read_bytes()))


def release(
    suite: str,
    mirrors: Mirrors,
    fetcher: Fetcher,
    *,
    now: datetime,
    keys: Sequence[Key] | None = None,
) -> Release:
    """What *suite* states of itself, from the first mirror that has it.

    Raises FetchError where it cannot be had, or is not signed by one of *keys* (default: Debian's).
    """
    url, signed = _first(fetcher, [f"{each}/dists/{suite}/InRelease" for each in mirrors.current(suite)])
    label = public(url)
    text = verified(signed, label, debian_keys() if keys is None else keys)
    found = read_release(text, suite, label)
    if found.valid_until is not None and found.valid_until < now:
        _warn_expired(fetcher.reporter, found.suite, found.valid_until)
    return found


def verified(signed: bytes, label: str, keys: Sequence[Key]) -> str:
    """The text that one of *keys* has signed, and nothing around it."""
    try:
        # pysequoia calls back for the keys it may need, and raises unless one of them made a valid signature.
        result = pysequoia.verify(signed, store=lambda _: list(keys))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise FetchError(
            f"{label} is not signed by a key of Debian's archive: {reason}",
            "the mirror is broken, or is not Debian's: try another one",
        ) from None
    if not result.valid_sigs or result.bytes is None:
        raise FetchError(f"{label} is not signed by a key of Debian's archive: no valid signature")
    return bytes(result.bytes).decode()


def read_release(text: str, suite: str, label: str) -> Release:
    """The fields of a verified ``InRelease``; it must be that of *suite*, not another one's in its place."""
    fields = next(paragraphs(text), {})
    if fields.get("codename") != suite:
        raise FetchError(f"{label} is the release file of {fields.get('codename')!r}, not of {suite!r}")
    if "date" not in fields:
        raise FetchError(f"{label} has no Date")
    until = fields.get("valid-until")
    return Release(
        suite,
        _moment(fields["date"], label).strftime("%Y%m%dT%H%M%SZ"),
        fields.get("acquire-by-hash") == "yes",
        dict(_checksums(fields.get("sha256", ""))),
        _moment(until, label) if until else None,
    )


def obtain(release: Release, architecture: str, mirrors: Mirrors, fetcher: Fetcher) -> None:
    """Have the ``Packages.xz`` that *release* speaks of in the store."""
    path, digest, size = release.packages(architecture)
    base = mirrors.current(release.suite)
    addresses = [f"{each}/dists/{release.suite}/{path}" for each in base]
    fetcher.blob(digest, size, lambda: addresses, f"Debian's index of {release.suite} for {architecture}")


def index(release: Release, architecture: str, open_blob: Callable[[Digest], BinaryIO]) -> Index:
    """The suite's packages for *architecture*, of the ``Packages.xz`` that :func:`obtain` had stored."""
    _, digest, _ = release.packages(architecture)
    text = bytearray()
    with open_blob(digest) as packed, lzma.open(packed) as stream:
        while piece := stream.read(CHUNK):
            text += piece
    return Index(release.suite, release.snapshot, text)


def _first(fetcher: Fetcher, addresses: Sequence[str]) -> tuple[str, bytes]:
    failures = []
    for url in addresses:
        try:
            return url, fetcher.document(url)
        except FetchError as failure:
            failures.append(failure)
    raise failures[0]


def _checksums(value: str) -> Iterable[tuple[str, tuple[Digest, int]]]:
    for line in value.splitlines():
        match line.split():
            case [digest, size, path]:
                yield path, (Digest(digest), int(size))


def _moment(text: str, label: str) -> datetime:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        raise FetchError(f"{label} has a date that is none: {text!r}") from None


def _warn_expired(reporter: Reporter, suite: str, until: datetime) -> None:
    reporter.warn(
        f"Debian's index of {suite} was valid until {until:%Y-%m-%d %H:%M} UTC: the mirror may lack updates",
        "try another mirror",
    )
