"""Wheels made by hand, and a private package index: a real HTTP server that wants a password."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from pesto_repro.digest import Digest

CANARY = "c4n4ry-p4ss/w0rd"
"""A password that must not be seen anywhere; it has a character that an address must encode."""


def digest_of_file(path: Path) -> Digest:
    return Digest.of(path.read_bytes())


def make_wheel(
    folder: Path,
    filename: str,
    members: Mapping[str, bytes],
    *,
    dist_info: str | None = None,
    executables: Sequence[str] = (),
    record: str | None = None,
    metadata: str = "",
) -> Path:
    """A wheel *filename* of *members*, with the metadata it needs and a RECORD unless one is given."""
    name, version = filename.split("-")[:2]
    base = dist_info or f"{name}-{version}.dist-info"
    everything = {
        **members,
        f"{base}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{base}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    text = record if record is not None else "".join(map(_row, everything.items())) + f"{base}/RECORD,,\n"
    everything[f"{base}/RECORD"] = text.encode()
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / filename, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in everything.items():
            info = zipfile.ZipInfo(path)
            info.external_attr = (0o100755 if path in executables else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return folder / filename


def simple_wheel(folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> Path:
    """A wheel with one module, that requires *requires*."""
    metadata = "".join(f"Requires-Dist: {each}\n" for each in requires)
    return make_wheel(folder, f"{name}-{version}-{tag}.whl", {f"{name}.py": b""}, metadata=metadata)


def _row(item: tuple[str, bytes]) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(item[1]).digest()).rstrip(b"=").decode()
    return f"{item[0]},sha256={digest},{len(item[1])}\n"


@dataclass
class PrivateIndex:
    """The files of *folder*, offered by PEP 503 at *url* to whoever knows the *password*."""

    folder: Path
    password: str | None = None
    hashes: bool = True
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple/"

    @property
    def url_with_password(self) -> str:
        assert self.password is not None
        return f"http://bob:{self.password.replace('/', '%2F')}@127.0.0.1:{self.port}/simple/"

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        """The status and body of a request."""
        self.asked.append(path)
        expected = f"bob:{self.password}".encode()
        if self.password is not None and authorization != f"Basic {base64.b64encode(expected).decode()}":
            return 401, b"who are you?"
        if project := re.fullmatch(r"/simple/([^/]+)/", path):
            return self._page(project[1])
        wanted = self.folder / unquote(path).rpartition("/")[2]
        found = path.startswith("/files/") and wanted.is_file()
        return (200, wanted.read_bytes()) if found else (404, b"no such file")

    def _page(self, project: str) -> tuple[int, bytes]:
        files = [each for each in sorted(self.folder.iterdir()) if _project(each.name) == project]
        links = [f'<a href="../../files/{each.name}{self._hash(each)}">{each.name}</a>' for each in files]
        body = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        return (200, body.encode()) if files else (404, b"no such project")

    def _hash(self, path: Path) -> str:
        return f"#sha256={digest_of_file(path).hex}" if self.hashes else ""


def _project(filename: str) -> str:
    return re.sub(r"[-_.]+", "-", filename.split("-")[0]).lower()


@contextlib.contextmanager
def serving(folder: Path, password: str | None = None, *, hashes: bool = True) -> Iterator[PrivateIndex]:
    """A private index of the files in *folder* while the context lasts."""
    index = PrivateIndex(folder, password, hashes)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = index.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if "/simple/" in self.path else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
