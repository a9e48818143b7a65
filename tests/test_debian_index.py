"""Debian's indices: signatures, checksums and dates are verified; stanzas are found by what they offer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, MismatchError, ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.lock.model import DebianPackage
from pesto_repro.progress import Reporter
from pesto_repro.resolve.debian_index import Index, debian_keys, index, obtain, release
from pesto_repro.resolve.debian_relation import Relation
from pesto_repro.store import Store
from tests.debian_archive import Archive, stanza

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HINT = "the mirror is broken, or is not Debian's: try another one"


class Warnings(Reporter):
    """Remembers what it was warned of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, message: str, hint: str | None = None) -> None:
        self.heard.append(message)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "mirror")


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(tmp_path / "store"), Warnings(), sleep=lambda _: None)


def in_release(archive: Archive, suite: str = "trixie") -> Path:
    return archive.root / "debian" / "dists" / suite / "InRelease"


def test_a_signed_suite_is_read(archive: Archive, fetcher: Fetcher) -> None:
    """From the signature down to the pin of one package, through the address that holds the checksum."""
    archive.publish("trixie", {"amd64": [stanza("a", "2.0-1", architecture="all")]})
    found = release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    path, digest, _ = found.packages("amd64")
    assert f"main/binary-amd64/by-hash/SHA256/{digest.hex}" == path
    obtain(found, "amd64", archive.mirrors, fetcher)
    (record,) = index(found, "amd64", fetcher.store.open).named("a")
    assert (
        DebianPackage(
            name="a",
            version="2.0-1",
            architecture="all",
            filename="pool/main/a_2.0-1_all.deb",
            size=7,
            sha256=Digest.of(b"a 2.0-1 all").hex,
            suite="trixie",
            snapshot="20260912T075541Z",
        )
        == record.pin()
    )


def test_a_changed_release_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    """One other byte under the signature."""
    archive.publish("trixie", {"amd64": []})
    path = in_release(archive)
    path.write_bytes(path.read_bytes().replace(b"12 Sep", b"13 Sep"))
    with pytest.raises(FetchError) as caught:
        release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    reason = "Signature verification failed: no valid signatures found"
    assert f"file://{path} is not signed by a key of Debian's archive: {reason}" == caught.value.message
    assert HINT == caught.value.hint


def test_somebody_elses_signature_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    """Well signed, but not by Debian."""
    archive.publish("trixie", {"amd64": []})
    with pytest.raises(FetchError, match="is not signed by a key of Debian's archive"):
        release("trixie", archive.mirrors, fetcher, now=NOW)


def test_an_unsigned_release_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    """Plain text in the place of a signed one."""
    archive.publish("trixie", {"amd64": []})
    in_release(archive).write_text("Codename: trixie\n")
    with pytest.raises(FetchError, match="is not signed by a key of Debian's archive"):
        release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)


def test_text_around_the_signed_text_is_not_read(archive: Archive, fetcher: Fetcher) -> None:
    """Whatever stands before or after what was signed does not count."""
    archive.publish("trixie", {"amd64": []})
    path = in_release(archive)
    path.write_bytes(b"Codename: sid\nSHA256:\n\n" + path.read_bytes() + b"\nDate: never\n")
    found = release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    assert ("trixie", "20260912T075541Z") == (found.suite, found.snapshot)


def test_another_suites_release_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    """A mirror cannot answer with an older, well signed suite."""
    archive.publish("trixie", {"amd64": []}, codename="bookworm")
    with pytest.raises(FetchError) as caught:
        release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    url = f"file://{in_release(archive)}"
    assert f"{url} is the release file of 'bookworm', not of 'trixie'" == caught.value.message


def test_an_index_with_another_checksum_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    """Packages.xz must be the one that the release speaks of."""
    archive.publish("trixie", {"amd64": [stanza("a")]})
    found = release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    path, digest, _ = found.packages("amd64")
    (archive.root / "debian/dists/trixie" / path).write_bytes(b"other")
    with pytest.raises(MismatchError, match="Debian's index of trixie for amd64 is not what was pinned"):
        obtain(found, "amd64", archive.mirrors, fetcher)
    assert not fetcher.store.has(digest)


def test_an_unknown_architecture_is_refused(archive: Archive, fetcher: Fetcher) -> None:
    archive.publish("trixie", {"amd64": []})
    found = release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    with pytest.raises(ResolveError) as caught:
        found.packages("m68k")
    assert "Debian's suite trixie has no packages for m68k" == caught.value.message


@pytest.mark.parametrize(("day", "warnings"), [(21, 1), (23, 0)])
def test_an_expired_release_is_told(archive: Archive, fetcher: Fetcher, day: int, warnings: int) -> None:
    """Valid-Until in the past is a warning, for a point release may be all that a mirror has."""
    archive.publish("trixie", {"amd64": []}, extra=f"Valid-Until: Sat, {day} Nov 2026 00:53:03 UTC\n")
    release("trixie", archive.mirrors, fetcher, now=NOW, keys=archive.keys)
    told = "Debian's index of trixie was valid until 2026-11-21 00:53 UTC: the mirror may lack updates"
    assert isinstance(fetcher.reporter, Warnings)
    assert [told] * warnings == fetcher.reporter.heard


def test_a_second_mirror_helps_out(archive: Archive, fetcher: Fetcher) -> None:
    """A mirror that lacks the suite is passed over."""
    archive.publish("trixie", {"amd64": []})
    both = type(archive.mirrors)(("file:///nonexistent/debian", *archive.mirrors.main), ())
    assert "trixie" == release("trixie", both, fetcher, now=NOW, keys=archive.keys).suite


def test_debians_keys_are_those_of_the_suites_that_can_be_bases() -> None:
    """Six keys: automatic, security and release, of bookworm and trixie."""
    assert [
        "05ab90340c0c5e797f44a8c8254cf3b5aec0a8f0",
        "04b54c3cdca79751b16bc6b5225629df75b188bd",
        "41587f7db8c774bccf131416762f67a0b2c39de4",
        "4d64fec119c2029067d6e791f8d2585b8783d481",
        "5e04a1e3223a19a20706e20f9904613d4cce68c6",
        "b8b80b5b623eab6ad8775c45b7c5d7d6350947f8",
    ] == sorted((key.fingerprint for key in debian_keys()), key=lambda each: (each[:2] != "05", each))


def test_stanzas_are_found_by_name_and_by_what_they_provide() -> None:
    """Also the first and the last one, several of a name, and provides with versions or on two lines."""
    text = "\n".join(
        [
            stanza("first", provides="virtual (= 2), other"),
            stanza("twice", "1"),
            stanza("twice", "2"),
            "Package: last\nVersion: 3\nProvides: other,\n virtual",
        ]
    )
    found = Index("trixie", "", text.encode())
    assert ["1", "2"] == [each.version for each in found.named("twice")]
    assert ["first", "last"] == [each.name for each in found.providers("virtual")]
    assert ["first", "last"] == [each.name for each in found.providers("other")]
    assert ("3",) == tuple(each.version for each in found.named("last"))
    assert () == found.named("virtual")
    assert ["first", "twice", "last"] == list(found.names())


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        (Relation("a"), True),
        (Relation("a", ">=", "1"), True),
        (Relation("a", ">>", "1"), False),
        (Relation("plain"), True),
        (Relation("plain", ">=", "0"), False),
        (Relation("versioned", "<<", "3"), True),
        (Relation("versioned", "=", "3"), False),
    ],
)
def test_only_a_versioned_provides_meets_a_versioned_relation(relation: Relation, expected: bool) -> None:
    """Debian Policy 7.5."""
    (record,) = Index("s", "", stanza("a", provides="plain, versioned (= 2)").encode()).named("a")
    assert expected == record.satisfies(relation)
