"""Real registries for tests: Debian's docker-registry on a free port, behind a proxy that writes down every request.

``plain_registry``, ``htpasswd_registry``, ``tls_registry`` and ``token_registry`` are fixtures, each with a registry
of its own; ``running(...)`` gives as many as a test wants. All are marked ``judge`` by the tests that use them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.registry.access import Access, Credential
from tests.judges import judge
from tests.registry_proxy import Fault, Proxy, Request, proxied
from tests.token_server import ISSUER, SERVICE, TokenServer, token_server

USER = "ada"
CANARY = "c4n4ry:p4ss/w0rd"
"""The password; it must not be seen anywhere, and has characters that something may stumble over."""
HTPASSWD = "ada:$2y$04$abcdefghijklmnopqrstuuOgHAMWYkQPC7/aI/VU6po6RzPXmRmOi\n"
"""CANARY by bcrypt, as ``htpasswd -B`` writes it."""


@dataclass
class LiveRegistry:
    """A registry that runs. *host* is the proxy's, *direct* the registry's own (not to be counted, or for speed)."""

    host: str
    direct: str
    folder: Path
    proxy: Proxy
    authorities: Path | None = None
    secured: bool = False
    """Whether it wants USER and CANARY."""
    tokens: TokenServer | None = None

    def requests(self) -> list[Request]:
        """Every request seen so far, by method, path, status and bytes."""
        return list(self.proxy.seen)

    def forget(self) -> None:
        """Count from here."""
        self.proxy.seen.clear()

    def blobs(self) -> set[str]:
        """The digests of all that the registry has: layers, configs and manifests."""
        return {f"sha256:{path.parent.name}" for path in self.folder.glob("docker/registry/v2/blobs/sha256/*/*/data")}

    def spoil(self, *faults: Fault) -> None:
        """Let *faults* happen from now on."""
        self.proxy.faults[:] = faults

    def access(self, *, user: str = USER, password: str = CANARY, timeout: float = 20.0) -> Access:
        """What a client needs to talk to it; the password goes to nobody else."""
        own = Credential(user, password) if self.secured else None
        return Access(lambda host: own if host == self.host else None, self.authorities, frozenset(), timeout)

    def auth_file(self, path: Path) -> Path:
        """Write an auth.json with its password, as podman and skopeo read it (``--authfile``)."""
        auth = base64.b64encode(f"{USER}:{CANARY}".encode()).decode()
        path.write_text(json.dumps({"auths": {self.host: {"auth": auth}}}))
        return path


@contextlib.contextmanager
def running(folder: Path, *, htpasswd: bool = False, tls: bool = False, tokens: bool = False) -> Iterator[LiveRegistry]:
    """A registry that keeps its blobs in *folder*, while the context lasts."""
    program = judge("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(token_server(folder, USER, CANARY)) if tokens else None
        authorities = _make_certificates(folder) if tls else None
        config = _config(folder, port, htpasswd, tls, server)
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        log = stack.enter_context((folder / "registry.log").open("wb"))
        process = subprocess.Popen([program, "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
        stack.callback(_stop, process)
        _wait_for(port, process, folder / "registry.log")
        proxy = stack.enter_context(_proxy(f"127.0.0.1:{port}", folder, authorities))
        secured = htpasswd or tokens
        yield LiveRegistry(proxy.host, f"127.0.0.1:{port}", folder / "data", proxy, authorities, secured, server)


@pytest.fixture
def plain_registry(tmp_path: Path) -> Iterator[LiveRegistry]:
    """Anyone may do anything, without TLS."""
    with running(tmp_path / "plain-registry") as registry:
        yield registry


@pytest.fixture
def htpasswd_registry(tmp_path: Path) -> Iterator[LiveRegistry]:
    """Basic authentication: USER and CANARY."""
    with running(tmp_path / "htpasswd-registry", htpasswd=True) as registry:
        yield registry


@pytest.fixture
def tls_registry(tmp_path: Path) -> Iterator[LiveRegistry]:
    """TLS with an authority of its own (``.authorities``)."""
    with running(tmp_path / "tls-registry", tls=True) as registry:
        yield registry


@pytest.fixture
def token_registry(tmp_path: Path) -> Iterator[LiveRegistry]:
    """Bearer tokens that last 5 seconds, for USER and CANARY; anyone may pull what is below "public/"."""
    with running(tmp_path / "token-registry", tokens=True) as registry:
        yield registry


def _config(folder: Path, port: int, htpasswd: bool, tls: bool, server: TokenServer | None) -> Mapping[str, Any]:
    """The registry's configuration file."""
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "not secret"}
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
        "http": http,
    }
    if htpasswd:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}}
    if server is not None:
        bundle = f"{folder}/token.pem"
        config["auth"] = {
            "token": {"realm": server.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}
        }
    if tls:
        http["tls"] = {"certificate": f"{folder}/server.pem", "key": f"{folder}/server.key"}
    return config


def _proxy(upstream: str, folder: Path, authorities: Path | None) -> contextlib.AbstractContextManager[Proxy]:
    if authorities is None:
        return proxied(upstream)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return proxied(upstream, authorities=str(authorities), context=context)


def _make_certificates(folder: Path) -> Path:
    """An authority, and a certificate of it for this machine; the authority's path."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    _openssl(
        folder,
        f"req -x509 {key} -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem "
        "-addext keyUsage=critical,keyCertSign",
    )
    _openssl(folder, f"req {key} -subj /CN=registry -keyout server.key -out server.csr")
    (folder / "server.ext").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n"
    )
    _openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem",
    )
    return folder / "ca.pem"


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run([judge("openssl"), *arguments.split()], cwd=folder, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, f"docker-registry ended: {log.read_text()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"docker-registry does not listen: {log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)
