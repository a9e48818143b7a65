"""Addresses, and what of them may be shown.

An address may carry a user name and a password, and in its query or fragment a token or a signature. None of
these is ever part of a message, of a value's text or of a lock: there it is scheme, host, port and path. No
function here fails on what is no address: a typing error must not bring a password to light.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

# A port that is no number is the beginning of a password with "/", "?" or "#" in it.
_USERINFO = r"[^/?#]*|[^/?#:\[]*:(?!\d*(?:[/?#]|\Z)).*"
_PARTS = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*://)?(?:(?P<userinfo>{_USERINFO})@)?(?P<rest>[^?#]*)", re.IGNORECASE | re.DOTALL
)
# In a text, an address ends at white space or at what quotes it; punctuation at its end is the text's own.
_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^\s/?#]*@)?[^\s\"`<>]*?(?=[)\]}'.,;:]*(?:[\s\"`<>]|\Z))", re.IGNORECASE)


def public(address: str) -> str:
    """*address* as it may be shown: without user name, password, query and fragment.

    >>> public("https://me:secret@example.org/model.bin?token=secret")
    'https://example.org/model.bin'
    """
    scheme, _, rest = _parts(address)
    return scheme + rest


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """*text* with every address in it as it may be shown, and ``****`` in place of any of *secrets*.

    >>> redact("see https://me:secret@example.org/simple?key=1, or ask")
    'see https://example.org/simple, or ask'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "****")
    return _IN_TEXT.sub(lambda found: public(found[0]), text)


def userinfo(address: str) -> str:
    """The user name and password of *address* as written, ``user:password``; "" if it has none."""
    return _parts(address)[1]


def secrets_of(addresses: Iterable[str]) -> frozenset[str]:
    """The passwords of *addresses* (the user name where there is none: a token), as written and decoded."""
    found = set()
    for address in addresses:
        user, _, password = userinfo(address).partition(":")
        secret = password or user
        found |= {secret, unquote(secret), quote(unquote(secret), safe="")}
    return frozenset(found - {""})


def can_be_asked(address: str) -> bool:
    """Whether *address* is one of the web, with a host, or of a file."""
    try:
        parts = urlsplit(address)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket without its other, a port that is no number
        return False
    return parts.scheme == "file" or (parts.scheme in ("http", "https") and has_host)


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme with "://", user information, and host with path."""
    matched = _PARTS.match(address)
    assert matched is not None  # every part is optional
    return matched["scheme"] or "", matched["userinfo"] or "", matched["rest"]
