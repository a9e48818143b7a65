"""Upstream's own judge of a service, run as a program: ``python upstream_tester.py RESOURCES [PORT]``.

It runs with PESTO's wheel on its path, beside the service (port 8080), which it asks through port 4000, as
upstream's expected_describe.json names that port in every link. On stdout: what differs, by test, as JSON.
With PORT the service is there instead, and no port is opened: what would go to port 4000 goes there.

It must run in an empty folder: upstream's comparison takes a value for a file if a path of that name exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import urllib3.util.connection
from pesto.common.testing.payload_generator import PayloadGenerator  # type: ignore[import-not-found]
from pesto.common.testing.service_tester import ServiceTester  # type: ignore[import-not-found]

SERVICE, ASKED = 8080, 4000
PATIENCE = 30.0
"""Seconds until the service must be healthy."""


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.closing(target):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        service_reader, service_writer = await asyncio.open_connection("127.0.0.1", SERVICE)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, service_writer), _copy(service_reader, writer))


async def _forward(ready: threading.Event) -> None:
    server = await asyncio.start_server(_connect, "127.0.0.1", ASKED)
    ready.set()
    await server.serve_forever()


def _wait(tester: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not tester.validate_health():
        if time.monotonic() > end:
            raise SystemExit(f"the service is not healthy after {PATIENCE} seconds")
        time.sleep(0.1)


def differences(resources: Path) -> dict[str, Any]:
    """What upstream's tester finds for the description and for each test, in upstream's words."""
    tester = ServiceTester(f"http://localhost:{ASKED}")
    _wait(tester)
    expected = json.loads((resources / "expected_describe.json").read_text())
    found = {"describe": tester.validate_describe(expected)}
    generate = PayloadGenerator(images_as_base64=False).generate
    for test in sorted(resources.glob("test_*")):
        _, found[test.name] = tester.validate_process(generate(test / "input"), generate(test / "output"))
    return found


def _redirect(port: int) -> None:
    connect = urllib3.util.connection.create_connection

    def redirected(address: tuple[str, int], *rest: Any, **more: Any) -> Any:
        return connect(("127.0.0.1", port) if address[1] == ASKED else address, *rest, **more)

    urllib3.util.connection.create_connection = redirected


def main() -> None:
    if len(sys.argv) > 2:
        _redirect(int(sys.argv[2]))
    else:
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(_forward(ready)), daemon=True).start()
        ready.wait()
    with contextlib.redirect_stdout(sys.stderr):
        found = differences(Path(sys.argv[1]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
