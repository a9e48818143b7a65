"""A proxy between a client and a registry: it writes down every request, and spoils those that a test names."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 64 << 10
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade", "date", "server"}


@dataclass
class Request:
    """One request as seen: *sent* and *received* count the bytes of the bodies, *status* is 0 if not answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0
    sent: int = 0
    received: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


@dataclass
class Fault:
    """What happens to requests of *method* (a regular expression) whose path matches *path*, *times* times.

    The first *skip* such requests pass. Say one of the rest.
    """

    method: str
    path: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    """The answer, with *headers* and *body*; the registry does not hear of the request."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_request: int | None = None
    """The connection is reset after so many bytes of the request's body."""
    lost: bool = False
    """The registry does what is asked, but the connection is reset before its answer."""
    wait: float = 0.0
    """The answer comes so many seconds later."""
    silent: bool = False
    """No answer at all; the connection stays open."""
    cut_answer: int | None = None
    """The connection is reset after so many bytes of the answer's body."""
    alter: Callable[[bytes], bytes] | None = None
    """The answer's body becomes another one."""
    replace: Mapping[str, str] = field(default_factory=dict)
    """Headers of the registry's answer that become others; "" takes one away."""

    def hits(self, method: str, path: str) -> bool:
        """Whether it happens now; counts."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Proxy:
    """Hands requests on to the registry at *upstream* (host:port); with *authorities* both sides speak TLS."""

    def __init__(self, upstream: str, *, authorities: str | None = None) -> None:
        self.upstream, self.authorities = upstream, authorities
        self.seen: list[Request] = []
        self.faults: list[Fault] = []
        self.ended = threading.Event()
        self.port = 0
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def exchange(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        request = Request(handler.command, handler.path, dict(handler.headers.items()))
        with self._lock:
            self.seen.append(request)
            fault = next((each for each in self.faults if each.hits(request.method, request.path)), None)
        if fault is not None and self._spoiled(handler, request, fault):
            return
        connection = self._connect()
        try:
            response = self._ask(connection, handler, request)
            if fault is not None and fault.lost:
                response.read()
                return reset(handler)
            if fault is not None:
                self.ended.wait(fault.wait)
            self._answer(handler, request, response, fault)
        finally:
            connection.close()

    def _spoiled(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> bool:
        """Whether the request ended here."""
        if fault.silent:
            self.ended.wait()
        elif fault.cut_request is not None:
            handler.rfile.read(fault.cut_request)
        elif fault.status is not None:
            for piece in body_of(handler):
                request.sent += len(piece)
            request.status = fault.status
            handler.send_response_only(fault.status)
            for name, value in {"Content-Length": str(len(fault.body)), **fault.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(fault.body)
            return True
        else:
            return False
        reset(handler)
        return True

    def _connect(self) -> HTTPConnection:
        host, _, port = self.upstream.rpartition(":")
        if self.authorities is None:
            return HTTPConnection(host, int(port), timeout=60)
        context = ssl.create_default_context(cafile=self.authorities)
        return HTTPSConnection(host, int(port), timeout=60, context=context)

    def _ask(self, connection: HTTPConnection, handler: BaseHTTPRequestHandler, request: Request) -> HTTPResponse:
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        chunked = "chunked" in handler.headers.get("Transfer-Encoding", "").lower()
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        self._send_body(connection, handler, request, chunked)
        return connection.getresponse()

    def _send_body(
        self, connection: HTTPConnection, handler: BaseHTTPRequestHandler, request: Request, chunked: bool
    ) -> None:
        refused = False
        for piece in body_of(handler):
            request.sent += len(piece)
            if not refused:
                try:
                    connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                except (BrokenPipeError, ConnectionResetError):
                    refused = True  # the registry has answered already; the client may finish what it says
        if chunked and not refused:
            connection.send(b"0\r\n\r\n")

    def _answer(
        self, handler: BaseHTTPRequestHandler, request: Request, response: HTTPResponse, fault: Fault | None
    ) -> None:
        headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        pieces: Iterator[bytes] = iter(lambda: response.read(PIECE), b"")
        if fault is not None:
            headers = {k: v for k, v in {**headers, **fault.replace}.items() if v}
            if fault.alter is not None:
                whole = fault.alter(response.read())
                headers["Content-Length"] = str(len(whole))
                pieces = iter([whole])
        chunked = "Content-Length" not in headers and response.status not in (204, 304)
        request.status = response.status
        handler.send_response_only(response.status, response.reason)
        for name, value in headers.items():
            handler.send_header(name, value)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        limit = fault.cut_answer if fault is not None else None
        for piece in pieces:
            if limit is not None and request.received + len(piece) > limit:
                handler.wfile.write(piece[: limit - request.received])
                return hang_up(handler)
            request.received += len(piece)
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            handler.wfile.write(b"0\r\n\r\n")


def body_of(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """The request's body, in pieces, with or without a length."""
    if "chunked" in handler.headers.get("Transfer-Encoding", "").lower():
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            yield handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return
    left = int(handler.headers.get("Content-Length", 0))
    while left and (piece := handler.rfile.read(min(PIECE, left))):
        left -= len(piece)
        yield piece


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection with an RST: what was not read yet is lost, on both sides."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """End the connection after what was sent."""
    handler.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks, or never was TLS, is no news here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Without a shutdown of the socket, so that a reset is one."""
        self.close_request(request)


@contextlib.contextmanager
def serving(exchange: Callable[[BaseHTTPRequestHandler], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on a free port of this machine, while the context lasts; the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            if context is not None:  # the handshake is this thread's, not the accepting one's
                self.request.settimeout(10)
                self.request = context.wrap_socket(self.request, server_side=True)
                self.request.settimeout(None)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def do_any(self) -> None:
            exchange(self)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for requests."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def proxied(upstream: str, *, authorities: str | None = None, context: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy for the registry at *upstream*, while the context lasts."""
    proxy = Proxy(upstream, authorities=authorities)
    with serving(proxy.exchange, context) as proxy.port:
        try:
            yield proxy
        finally:
            proxy.ended.set()
