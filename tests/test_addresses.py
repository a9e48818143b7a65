"""What of an address may be shown: one rule, for one address and for a text with several."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.addresses import can_be_asked, public, redact, secrets_of, userinfo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@h/x", "https://h/x"),
        ("https://token@h:80/x?y=a@b", "https://h:80/x"),
        ("https://u:p@h:1/a/b?sig=1#x", "https://h:1/a/b"),
        ("git+ssh://git@h/x", "git+ssh://h/x"),
        ("https://me:p@w@h/x", "https://h/x"),
        ("https://h/x@1", "https://h/x@1"),
        ("https://h?token=t", "https://h"),
        ("http://me:pw@[bad/x?t", "http://[bad/x"),
        ("https://****:****@h/simple", "https://h/simple"),
        ("https://me:p/w?#x@h/simple", "https://h/simple"),
        ("https://[::1]:80/x@1", "https://[::1]:80/x@1"),
        ("https://h:80/x@1", "https://h:80/x@1"),
    ],
)
def test_one_address(text: str, expected: str) -> None:
    """Scheme, host, port and path stay, alone and in a text."""
    assert (expected, expected) == (public(text), redact(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a https://a:b@h and http://c:d@i", "a https://h and http://i"),
        ("(https://a:b@h/x?t=1) could not", "(https://h/x) could not"),
        ("Failed to fetch: `https://h/x?t=1#f`", "Failed to fetch: `https://h/x`"),
        ("['https://a:b@h/?t', 'https://i']", "['https://h/', 'https://i']"),
        ("see https://h/a?t=1, or https://h/b.", "see https://h/a, or https://h/b."),
        ("x @ https://me:pw@h/x.whl#sha256=aa ; extra", "x @ https://h/x.whl ; extra"),
        ("me@example.org asks? #1", "me@example.org asks? #1"),
    ],
)
def test_addresses_in_a_text(text: str, expected: str) -> None:
    """Each of them loses its secrets, the text around them nothing."""
    assert expected == redact(text)


def test_one_address_without_a_scheme() -> None:
    """A typing error does not bring a password to light."""
    assert "host/a" == public("me:secret@host/a")


@given(st.text("abc:/@%?# é\n", max_size=12), st.text("x /?&=", max_size=5))
def test_no_text_has_a_password(text: str, end: str) -> None:
    """Whatever the password is made of, as long as it can be written in an address."""
    secret = f"canary{text}"
    url = f"https://bob:{quote(secret, safe='')}@host/simple{end}"
    assert "canary" not in public(url)
    assert "canary" not in redact(f"at {url}")
    assert "canary" not in redact(f"it was {secret} or {quote(secret, safe='')} at {url}", secrets_of([url]))
    assert f"bob:{quote(secret, safe='')}" == userinfo(url)


@pytest.mark.parametrize("text", ["https://h", "http://[::1]:80/x", "https://me:pw@h/{snapshot}", "file:///a/b"])
def test_what_can_be_asked(text: str) -> None:
    """Web servers and files."""
    assert can_be_asked(text)


@pytest.mark.parametrize("text", ["https://[bad/x", "https://h:port/x", "https:///x", "ftp://h/x", "h/x", ""])
def test_what_cannot_be_asked(text: str) -> None:
    """No host, no port, no scheme that is known: told, not raised."""
    assert not can_be_asked(text)
