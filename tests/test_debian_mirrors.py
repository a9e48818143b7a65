"""Where Debian lies: what is stated, what apt's sources say, and the addresses of a pinned package."""

from __future__ import annotations

import pytest

from pesto_repro.errors import FetchError
from pesto_repro.fetch.debian import Mirrors, mirrors, paragraphs, urls
from pesto_repro.lock.model import DebianPackage

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.test/debian/
Suites: trixie trixie-updates
Components: main contrib

Types: deb
URIs: http://mirror.test/debian-security
Suites: trixie-security
Components: main
"""
ONE_LINE = """\
# deb http://commented.test/debian trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://line.test/debian trixie main contrib # why
deb-src http://source.test/debian trixie main
deb cdrom:[Debian]/ trixie main
"""
OTHERS = """\
deb http://line.test/ubuntu noble main universe
deb http://tools.test/linux/debian trixie stable
deb http://database.test/apt trixie-pgdg main
"""
PLAIN = Mirrors(("http://mirror.test/debian",), ("http://mirror.test/debian-security",))


def package(suite: str) -> DebianPackage:
    return DebianPackage(
        name="a",
        sha256="0" * 64,
        size=1,
        version="1",
        architecture="all",
        filename="pool/a.deb",
        suite=suite,
        snapshot="20260912T075541Z",
    )


def test_what_is_stated_goes_first() -> None:
    """`[base] mirror`, then the environment's value, then apt's sources."""
    texts = [DEB822]
    assert "http://a.test/x" == mirrors("http://a.test/x", "http://b.test/y", texts).main[0]
    assert "http://b.test/y" == mirrors(None, "http://b.test/y", texts).main[0]
    assert mirrors("  ", "", texts) == PLAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEB822, PLAIN),
        (DEB822.partition("\n\n")[0], PLAIN),
        (ONE_LINE, Mirrors(("http://line.test/debian",), ("http://line.test/debian-security",))),
        (
            "deb http://odd.test/mirror bookworm main",
            Mirrors(("http://odd.test/mirror",), ("http://odd.test/mirror-security",)),
        ),
    ],
)
def test_apt_sources_are_read_in_both_formats(text: str, expected: Mirrors) -> None:
    """deb822 and one-line; security is derived where no suite says where it lies."""
    assert expected == mirrors(None, None, [OTHERS, text])


@pytest.mark.parametrize("text", ["", OTHERS, DEB822.replace("Types: deb", "Enabled: no\nTypes: deb")])
def test_nothing_of_debian_is_an_error_that_says_what_to_set(text: str) -> None:
    """Other vendors' sources, and sources that are switched off, are not Debian's."""
    with pytest.raises(FetchError) as caught:
        mirrors(None, None, [text])
    assert (
        "no Debian mirror is known: neither `[base] mirror` nor $PESTO_REPRO_DEBIAN_MIRROR is set,"
        " and no apt source of this machine is Debian's",
        "set `[base] mirror` in image.toml or $PESTO_REPRO_DEBIAN_MIRROR to a Debian mirror's address",
    ) == (caught.value.message, caught.value.hint)


def test_a_package_lies_in_the_archive_of_its_suite_and_in_the_snapshot_of_its_time() -> None:
    """Archives of snapshots come last, whatever the order they were named in."""
    found = mirrors("http://old.test/archive/debian/{snapshot} http://mirror.test/debian", None, ())
    assert [
        "http://mirror.test/debian/pool/a.deb",
        "http://old.test/archive/debian/20260912T075541Z/pool/a.deb",
    ] == urls(package("trixie-updates"), found)
    assert [
        "http://mirror.test/debian-security/pool/a.deb",
        "http://old.test/archive/debian-security/20260912T075541Z/pool/a.deb",
    ] == urls(package("trixie-security"), found)


def test_a_security_mirror_can_be_named() -> None:
    """An address with debian-security in its path is not a place of the main archive."""
    found = mirrors("http://a.test/debian http://b.test/debian-security", None, ())
    assert Mirrors(("http://a.test/debian",), ("http://b.test/debian-security",)) == found


def test_snapshots_alone_cannot_say_what_is_current() -> None:
    """To lock, a mirror without {snapshot} is needed."""
    found = mirrors("http://old.test/debian/{snapshot}", None, ())
    with pytest.raises(FetchError) as caught:
        found.current("trixie")
    assert (
        "every mirror for trixie is an archive of snapshots: http://old.test/debian/{snapshot}" == caught.value.message
    )
    assert "add a mirror without {snapshot} to `[base] mirror` or $PESTO_REPRO_DEBIAN_MIRROR" == caught.value.hint


def test_a_mirror_s_password_is_never_told() -> None:
    """Neither in a message nor in the text of a value."""
    found = mirrors("https://bob:canary@old.test/debian/{snapshot}?canary", None, ())
    with pytest.raises(FetchError) as caught:
        found.current("trixie")
    expected = "every mirror for trixie is an archive of snapshots: https://old.test/debian/{snapshot}"
    assert (expected, "Mirrors()") == (caught.value.message, repr(found))


@pytest.mark.parametrize("uri", ["https://me:canary@[bad/debian", "ftp://me:canary@[bad/debian", "[bad/debian"])
def test_what_is_no_address_is_told_with_its_place(uri: str) -> None:
    """Whoever stated it; a source of apt's that is none is no source."""
    shown = uri.replace("me:canary@", "")
    for where, first, second in (("[base] mirror", uri, None), ("$PESTO_REPRO_DEBIAN_MIRROR", None, uri)):
        with pytest.raises(FetchError) as caught:
            mirrors(first, second, ())
        assert f"{where} is no address: {shown}" == caught.value.message
    assert mirrors(None, None, [f"deb {uri} trixie main", DEB822]) == PLAIN


def test_paragraphs_keep_continued_lines() -> None:
    """Debian Policy 5.1: names are case-insensitive, values go on in indented lines."""
    text = "Package: a\nDescription: short\n long\n .\n\n\nPACKAGE: b\n"
    assert [{"package": "a", "description": "short\nlong\n."}, {"package": "b"}] == list(paragraphs(text))
