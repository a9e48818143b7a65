"""Who we are, for one repository: the Authorization header of each request, and the answer to a challenge (401).

* A bearer token is asked for with the scope that the request needs (pull, or pull and push), kept by scope, and renewed
  before it expires: a token that may only pull is never tried for a push.
* A credential is given to the registry's own host and to the token service that this host names, never without TLS
  where the registry itself has it.
* What a registry refuses after it was told everything is one error at once: a wrong password gets no better.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from pesto_repro.errors import RegistryError
from pesto_repro.registry.access import Credential

CLIENT_ID = "pesto-repro"
LIFETIME = 60
"""Seconds. Token authentication: "(Optional) The duration in seconds since the token was issued that it will remain
valid. When omitted, this defaults to 60 seconds."
"""
_FRESH = 0.7
"""The part of its life after which a token is renewed: clocks differ, and requests take their time."""
_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z]+)\s+(?=[A-Za-z]+\s*=|$)|(?:^|,)\s*(Basic|Negotiate)\s*(?=,|$)")
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

Scopes = Mapping[str, frozenset[str]]
"""What is to be done, by repository: {"team/app": {"pull", "push"}}."""


class DeniedError(RegistryError):
    """The registry knows who we are, as far as we can say, and refuses."""


class Reply(NamedTuple):
    """A token service's answer."""

    status: int
    body: bytes


Ask = Callable[[str, str, Mapping[str, str], bytes | None], Reply]
"""(method, address, headers, body) -> Reply; retries what may pass. Raises RegistryError."""


@dataclass(frozen=True, slots=True, repr=False)
class Challenge:
    """RFC 9110, 11.6.1 "WWW-Authenticate": a scheme (in lower case) and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    scopes: Scopes
    header: str
    until: float

    def covers(self, scopes: Scopes) -> bool:
        return all(actions <= self.scopes.get(name, frozenset()) for name, actions in scopes.items())


@dataclass
class Authorizer:
    """Headers for requests to *host*. May be used by several threads; *clock* counts seconds."""

    host: str
    secure: bool
    credentials: Callable[[], Credential | None]
    ask: Ask
    clock: Callable[[], float]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: Credential | None = None
    _looked_up: bool = False
    _challenge: Challenge | None = None
    _tokens: list[_Token] = field(default_factory=list)
    _secrets: set[str] = field(default_factory=set)

    def header(self, scopes: Scopes) -> str | None:
        """The header for a request that needs *scopes*, as far as the registry has told what it wants."""
        with self._lock:
            return None if self._challenge is None else self._header(self._challenge, scopes)

    def answer(self, challenges: Iterable[Challenge], scopes: Scopes, tried: str | None) -> str:
        """The header for a second try, after 401 for *tried*. Raises RegistryError if there is nothing new to say."""
        with self._lock:
            challenge = _choose(challenges)
            if challenge is None:
                raise RegistryError(f"{self.host} wants an authentication that is not known here")
            self._challenge = challenge
            self._tokens = [each for each in self._tokens if each.header != tried]
            header = self._header(challenge, scopes)
            if header is None or header == tried:
                raise self._refused()
            return header

    def denied(self, scopes: Scopes) -> DeniedError:
        """What to say when the registry has been told all and still does not let us."""
        with self._lock:
            credential, challenge = self._credential(), self._challenge
        if credential is None or challenge is None or challenge.scheme == "basic":
            return self._refused()
        wanted = "; ".join(f"{' and '.join(sorted(actions))} {name}" for name, actions in sorted(scopes.items()))
        return DeniedError(f"{self.host} does not let {credential.user or 'you'} {wanted or 'in'}")

    def redact(self, text: str) -> str:
        """*text* without anything secret."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "****")
        return text

    # -- with the lock ---------------------------------------------------------------------------------------------

    def _refused(self) -> DeniedError:
        credential, hint = self._credential(), f"pesto-repro login {self.host}"
        if credential is None:
            return DeniedError(f"{self.host} wants to know who you are", hint)
        if credential.identity_token:
            return DeniedError(f"{self.host} refuses the identity token that is known for it", hint)
        return DeniedError(f"{self.host} refuses the user name {credential.user} or its password", hint)

    def _header(self, challenge: Challenge, scopes: Scopes) -> str | None:
        if challenge.scheme == "basic":
            credential = self._credential()
            return None if credential is None else self._basic(credential)
        now = self.clock()
        self._tokens = [each for each in self._tokens if each.until > now]
        for token in self._tokens:
            if token.covers(scopes):
                return token.header
        token = self._new_token(challenge.parameters, scopes)
        self._tokens.append(token)
        return token.header

    def _new_token(self, parameters: Mapping[str, str], scopes: Scopes) -> _Token:
        """Token authentication: "GET realm?service=...&scope=...", with basic authentication if there is a credential.

        The scope is ours, not the challenge's, which says what this one request needs.
        """
        asked = self.clock()
        status, body = self._ask_service(parameters, scopes)
        if status in (401, 403) or (status == 400 and self._credential() is not None):
            raise self._refused()
        if status != 200:
            raise RegistryError(f"the token service of {self.host} answers HTTP {status}")
        token, lifetime = _read_token(self.host, body)
        self._secrets.add(token)
        return _Token(scopes, f"Bearer {token}", asked + lifetime * _FRESH)

    def _ask_service(self, parameters: Mapping[str, str], scopes: Scopes) -> Reply:
        credential = self._credential()
        realm = self._realm(parameters, credential)
        service = [("service", parameters["service"])] if "service" in parameters else []
        wanted = [f"repository:{name}:{','.join(sorted(actions))}" for name, actions in sorted(scopes.items())]
        if credential is not None and credential.identity_token:
            # OAuth 2: "grant_type=refresh_token", "scope: ... space-separated"
            fields = [
                *(("grant_type", "refresh_token"), ("client_id", CLIENT_ID), *service),
                *(("scope", " ".join(wanted)), ("refresh_token", credential.identity_token)),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self.ask("POST", realm, headers, urlencode(fields).encode())
        query = urlencode([*service, *(("scope", each) for each in wanted)])
        address = f"{realm}{'&' if '?' in realm else '?'}{query}" if query else realm
        return self.ask("GET", address, {"Authorization": self._basic(credential)} if credential else {}, None)

    def _realm(self, parameters: Mapping[str, str], credential: Credential | None) -> str:
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"{self.host} names a token service that is no web address")
        if credential is not None and self.secure and parts.scheme != "https":
            raise RegistryError(f"{self.host} wants the password sent to {parts.netloc} without TLS")
        return realm

    def _credential(self) -> Credential | None:
        if not self._looked_up:
            self._known, self._looked_up = self.credentials(), True
            if self._known is not None:
                known = {self._known.password, self._known.identity_token, self._basic(self._known).split()[1]}
                self._secrets |= known - {""}
        return self._known

    def _basic(self, credential: Credential) -> str:
        return f"Basic {base64.b64encode(f'{credential.user}:{credential.password}'.encode()).decode()}"


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, in its order.

    >>> parse_challenges('Bearer realm="https://a.example/t",service="s"')[0].parameters["service"]
    's'
    """
    blank = re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: '"' + "x" * (len(match[0]) - 2) + '"', header)
    starts = list(_SCHEME.finditer(blank))
    ends = [*(each.start() for each in starts), len(header)][1:]
    return [
        Challenge((start[1] or start[2]).lower(), _parameters(header[start.end() : end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def _parameters(text: str) -> dict[str, str]:
    return {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(text)
    }


def _choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """A token where the registry has them (it opens less for less long), else the password."""
    known = {each.scheme: each for each in challenges}
    return known.get("bearer") or known.get("basic")


def _read_token(host: str, body: bytes) -> tuple[str, float]:
    """Token authentication: "token", or for OAuth 2 "access_token"; "when both are specified, they should be equal"."""
    try:
        document = json.loads(body)
        token = document.get("token") or document["access_token"]
        lifetime = float(document.get("expires_in") or LIFETIME)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RegistryError(f"the token service of {host} answers without a token") from None
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise RegistryError(f"the token service of {host} answers with a token that is none")
    return token, lifetime
