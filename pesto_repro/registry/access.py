"""How registries may be reached, as one frozen value: the command line makes it, the client obeys it.

A credential goes to the host it was found for, over TLS, and to nobody else. No text of a value shows one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 60.0
"""Seconds a registry may be silent."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A *user* and a *password*; or an *identity_token* (OAuth 2's refresh token), which stands for both."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.user!r}, ****)"


def nobody(host: str) -> Credential | None:
    """No credential for any *host*."""
    return None


@dataclass(frozen=True, slots=True)
class Access:
    """*credentials* gives what is known for a host ("host:port"); it is asked when the host wants to know.

    *authorities* is a file of certificate authorities to trust in place of the usual ones. Hosts in *plain_http*
    are spoken to without TLS; so is this machine itself (localhost, 127.0.0.1, ::1) where no TLS answers.
    *timeout* is in seconds without an answer.
    """

    credentials: Callable[[str], Credential | None] = nobody
    authorities: Path | None = None
    plain_http: frozenset[str] = frozenset()
    timeout: float = TIMEOUT
