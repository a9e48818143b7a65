"""A PESTO service in memory: its resources and its habits, around a function that answers."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

OBJECT = {"type": "object", "properties": {}}


@dataclass
class Twin:
    """What the service is: *answer* computes, *asynchronous* says how it is given; *busy* requests are refused.

    A job's results are by name, as (media type, bytes); *jobs* wait for *polls* questions before they are done.
    """

    answer: Callable[[dict[str, Any]], Any] = lambda payload: payload
    asynchronous: bool = False
    busy: int = 0
    polls: int = 0
    results: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=lambda: OBJECT)
    output: Mapping[str, Any] = field(default_factory=lambda: OBJECT)
    hosts: list[str] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)

    def describe(self, origin: str) -> dict[str, Any]:
        links = {"self": {"href": f"{origin}/api/v1/describe", "method": "GET"}}
        return {
            "name": "twin",
            "asynchronous": self.asynchronous,
            "input": self.input,
            "output": self.output,
            "_links": links,
        }


@contextmanager
def serving(twin: Twin) -> Iterator[str]:
    """*twin* at an address of this machine's, which is given."""
    handler = type("Handler", (_Handler,), {"twin": twin})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    twin: Twin

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""

    def do_GET(self) -> None:
        twin, host = self.twin, self.headers["Host"]
        twin.hosts.append(host)
        path = self.path.partition("/api/v1")[2]
        origin = f"http://{host}"
        if path == "/health":
            self._send(b"OK", "text/plain")
        elif path == "/describe":
            self._json(twin.describe(origin))
        elif path == "/jobs/7/status":
            twin.polls -= 1
            self._json({"status": "DONE" if twin.polls < 0 else "RUNNING"})
        elif path == "/jobs/7/results":
            self._json(self._links(origin))
        elif path.startswith("/jobs/7/results/"):
            media_type, data = twin.results[path.rpartition("/")[2]]
            self._send(data, media_type)
        else:
            self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        twin = self.twin
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if twin.busy:
            twin.busy -= 1
            self._json({"detail": "a processing is already running"}, 429)
            return
        twin.received.append(payload)
        try:
            answer = twin.answer(payload)
        except ValueError as error:
            self._json({"detail": f"Error while processing, see logs for more details : {error}"}, 500)
            return
        # Without a port in the address it was asked at, a PESTO service writes "None".
        self._json({"link": "https://elsewhere:None/api/v1/jobs/7/status"} if twin.asynchronous else answer)

    def _links(self, origin: str) -> dict[str, Any]:
        """Results whose names end with a number are a list, in the order of their names as text."""
        found: dict[str, Any] = {}
        for name in sorted(self.twin.results):
            link = f"{origin}/api/v1/jobs/7/results/{name}"
            bare = name.rstrip("0123456789")
            if bare == name:
                found[name] = link
            else:
                found.setdefault(bare, []).append(link)
        return found

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, data: bytes, media_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
