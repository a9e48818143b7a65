"""A token server, as the distribution's documentation on token authentication describes it, for a real registry."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.judges import judge
from tests.registry_proxy import body_of, serving

SERVICE, ISSUER = "test registry", "test tokens"
IDENTITY = "c4n4ry-identity-t0ken"
LEEWAY = 60
"""docker-registry takes a token for so many seconds after its end: tokens here end that much earlier."""


@dataclass
class TokenServer:
    """Grants everything to *user*; to anyone, pulling from repositories whose name starts with "public/"."""

    folder: Path
    user: str
    password: str
    lifetime: int = 5
    says_lifetime: bool = True
    """Otherwise a client cannot know when to renew, and is refused in the middle."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The scopes of each token asked for, as one text."""
    granted: list[str] = field(default_factory=list)
    """Every token that was given away."""

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def make_keys(self) -> Path:
        """A key and its certificate; the certificate's path."""
        certificate = self.folder / "token.pem"
        command = (
            f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens "
            f"-keyout {self.folder}/token.key -out {certificate}"
        )
        subprocess.run([judge("openssl"), *command.split()], check=True, capture_output=True)
        return certificate

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request: GET with basic authentication, or POST with a refresh token."""
        text = urlsplit(handler.path).query if handler.command == "GET" else b"".join(body_of(handler)).decode()
        form = parse_qs(text)
        scopes = [scope for each in form.get("scope", []) for scope in each.split()]
        self.asked.append(" ".join(scopes))
        known = self._known(handler, form)
        if known is None:
            return _reply(handler, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
        _reply(handler, 200, self._grant(scopes, known))

    def _known(self, handler: BaseHTTPRequestHandler, form: dict[str, list[str]]) -> bool | None:
        """True for the user, False for nobody, None for somebody else."""
        if handler.command == "POST":
            right = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [IDENTITY]
            return True if right else None
        header = handler.headers.get("Authorization")
        if header is None:
            return False
        expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return True if header == f"Basic {expected}" else None

    def _grant(self, scopes: list[str], known: bool) -> dict[str, Any]:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            public = ["pull"] if name.startswith("public/") else []
            allowed = [each for each in actions.split(",") if known or each in public]
            access.append({"type": kind, "name": name, "actions": allowed})
        token = self._token(access)
        self.granted.append(token)
        return {"token": token} | ({"expires_in": self.lifetime} if self.says_lifetime else {})

    def _token(self, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        der = base64.b64encode(_der(self.folder / "token.pem")).decode()
        claims = {
            **{"iss": ISSUER, "sub": self.user, "aud": SERVICE, "jti": uuid.uuid4().hex, "access": access},
            **{"iat": now, "nbf": now - LEEWAY, "exp": now + self.lifetime - LEEWAY},
        }
        signed = f"{_text({'typ': 'JWT', 'alg': 'RS256', 'x5c': [der]})}.{_text(claims)}"
        command = [judge("openssl"), "dgst", "-sha256", "-sign", f"{self.folder}/token.key"]
        signature = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_base64url(signature)}"


def _der(certificate: Path) -> bytes:
    return base64.b64decode("".join(certificate.read_text().splitlines()[1:-1]))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(value: object) -> str:
    return _base64url(json.dumps(value).encode())


def _reply(handler: BaseHTTPRequestHandler, status: int, value: object) -> None:
    body = json.dumps(value).encode()
    handler.send_response_only(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextlib.contextmanager
def token_server(folder: Path, user: str, password: str) -> Iterator[TokenServer]:
    """A token server on a free port, while the context lasts."""
    server = TokenServer(folder, user, password)
    server.make_keys()
    with serving(server.answer) as server.port:
        yield server
