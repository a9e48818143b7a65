"""``run``: an image's service, one request to it, or another command in it; no engine, no root, no daemon."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import click

from pesto_repro.cli.console import Console, show, show_json
from pesto_repro.cli.options import Target, target_command
from pesto_repro.cli.rooted import Rooted, rooted
from pesto_repro.errors import EXIT_FAILURE, PestoError
from pesto_repro.sandbox.cell import Cell, Mount, start
from pesto_repro.sandbox.forward import Forwarder
from pesto_repro.service.client import PORT, ServiceError
from pesto_repro.service.compare import Blob, as_json
from pesto_repro.service.serving import Service, serving

START_TIMEOUT = 60.0
"""Seconds until a service must be healthy, unless told otherwise."""
_TAIL = 20


@click.command()
@target_command
@click.option("--host", default="127.0.0.1", show_default=True, help="The address of this machine to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
@click.option("--network", is_flag=True, help="Let it use the network; without, it has none but its port.")
@click.option("--ssl", "tls", is_flag=True, help="TLS, with a certificate for this run alone.")
@click.option(
    "-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable of its environment."
)
@click.option("--mount", "mounts", multiple=True, metavar="DIR:TARGET[:rw]", help="Show it a file or folder of ours.")
@click.option("--process", "payload", metavar="FILE", help="Send this request, write the answer, stop; - is stdin.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file for the answer; default: stdout.")
@click.option("--start-timeout", type=float, default=START_TIMEOUT, show_default=True, help="Seconds to be healthy in.")
@click.option("--timeout", type=float, help="Seconds for an answer of --process; default: as long as it takes.")
@click.option("--offline", is_flag=True, help="Build a project without the network.")
@click.option("--key", type=click.Path(path_type=Path), help="The public key that must have signed a registry's image.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    target: Target,
    host: str,
    port: int,
    network: bool,
    tls: bool,
    variables: tuple[str, ...],
    mounts: tuple[str, ...],
    payload: str | None,
    output: Path | None,
    start_timeout: float,
    timeout: float | None,
    offline: bool,
    key: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run the service of an image, or of a project built from its lock, without Docker and without root.

    \b
    pesto-repro run hello-service                      until Ctrl-C; prints its address
    pesto-repro run dist/hello-service-1.0.0.oci.tar --port 9000
    pesto-repro run registry.example/team/hello-service:1.0.0 --process payload.json -o answer.json
    pesto-repro run registry.example/team/hello-service:1.0.0 --key team.pub
    pesto-repro run hello-service -- python3 -V        another command; its exit code
    """
    if command and payload is not None:
        raise click.UsageError("--process and a command exclude each other")
    if target.session.request.profiles and not target.is_project:
        raise PestoError(
            f"{target.text} is an image: its profiles were chosen when it was built", "leave -p out, or name a project"
        )
    if key is not None and target.is_project:
        raise PestoError(
            f"--key is for a registry's image, and {target.text} is a project",
            "leave it out; `[trust] base-key` of image.toml demands a signature of the base image",
        )
    request = _payload(payload) if payload is not None else None
    extra = tuple(map(_mount, mounts))
    settings = dict(map(_variable, variables))
    console = target.session.console
    with rooted(target, offline=offline, key=key) as found:
        cell = replace(
            found.cell, env={**found.cell.env, **settings}, mounts=(*found.cell.mounts, *extra), network=network
        )
        if command:
            return _command(cell, command)
        _require_service(found)
        found = replace(found, cell=cell)
        if network:
            _require_free()
        if request is not None:
            _process(found, request, output, console, tls=tls, patience=start_timeout, timeout=timeout)
            return 0
        return _serve(found, (host, port), target, tls=tls, patience=start_timeout)


@contextmanager
def service_log(console: Console) -> Iterator[IO[bytes]]:
    """Where a service writes that is only asked something: shown with ``-v``, and its end if the service fails."""
    if console.verbose:
        yield sys.stderr.buffer
        return
    with tempfile.TemporaryFile() as log:
        try:
            yield log
        except ServiceError:
            show_tail(log, console)
            raise


def show_tail(log: IO[bytes], console: Console) -> None:
    """The last lines of *log*, on stderr."""
    if not log.readable():  # stderr: they were shown already
        return
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()[-_TAIL:]
    if lines:
        console.warn("\n  ".join(["the service's log ends with:", *lines]))


def _command(cell: Cell, command: tuple[str, ...]) -> int:
    running = start(cell, command, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
    try:
        code = running.wait()
    finally:
        running.stop()
    return EXIT_FAILURE if code is None else code


def _process(
    found: Rooted,
    request: Mapping[str, Any],
    output: Path | None,
    console: Console,
    *,
    tls: bool,
    patience: float,
    timeout: float | None,
) -> None:
    with service_log(console) as log, serving(found.cell, found.command, log, tls=tls, timeout=timeout) as service:
        service.client.wait_healthy(patience)
        console.debug(f"{found.name} is healthy")
        answer = service.client.process(request, service.client.describe())
    data = answer.data if isinstance(answer, Blob) else f"{json.dumps(as_json(answer), indent=2)}\n".encode()
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise PestoError(f"{output} cannot be written: {error.strerror or error}") from None
    console.info(f"{output}: the answer of {found.name}")


def _serve(found: Rooted, where: tuple[str, int], target: Target, *, tls: bool, patience: float) -> int:
    console = target.session.console
    with tempfile.TemporaryFile() as quiet:
        log: IO[bytes] = quiet if console.quiet else sys.stderr.buffer
        with serving(found.cell, found.command, log, tls=tls) as service:
            try:
                with _open_port(service, where, network=found.cell.network) as port:
                    service.client.wait_healthy(patience)
                    url = f"{'https' if tls else 'http'}://{_bracketed(where[0])}:{port}"
                    console.info(f"{found.name} listens at {url}; stop it with Ctrl-C")
                    if target.session.json:
                        show_json({"url": url, "image": found.name})
                    else:
                        show(url)
                    code = service.running.wait()
                raise ServiceError(f"the service ended with exit code {code}", "see its log")
            except ServiceError:
                show_tail(quiet, console)
                raise


@contextmanager
def _open_port(service: Service, where: tuple[str, int], *, network: bool) -> Iterator[int]:
    """The port of this machine that leads to *service*. On our network it listens itself, at one port."""
    if network and where[1] == PORT:
        yield PORT
        return
    with Forwarder(service.running, *where, PORT) as forwarder:
        yield forwarder.port


def _require_free() -> None:
    """On our network a service listens at PESTO's port; whoever has it would be taken for the service."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", PORT))
        except OSError as error:
            raise PestoError(
                f"port {PORT} of this machine is taken ({error.strerror}): with --network the service uses it itself",
                "stop what uses it, or leave --network out",
            ) from None


def _require_service(found: Rooted) -> None:
    if not found.command:
        raise PestoError(f"{found.name} has no command of its own", "say what to run: pesto-repro run IMAGE -- COMMAND")


def _payload(text: str) -> Mapping[str, Any]:
    """A request: the JSON object in the file *text*, on stdin if that is ``-``."""
    where = "stdin" if text == "-" else text
    try:
        found = json.loads(sys.stdin.buffer.read() if text == "-" else Path(text).read_bytes())
    except OSError as error:
        raise PestoError(f"{where} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise PestoError(f"{where} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise PestoError(f"{where} holds no JSON object", "a request names the service's parameters")
    return found


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"-e {text}: it should be NAME=VALUE")
    return name, value


def _mount(text: str) -> Mount:
    source, _, rest = text.partition(":")
    writable = rest.endswith(":rw")
    where = rest.removesuffix(":rw").removesuffix(":ro")
    if not source or not where.startswith("/"):
        raise click.UsageError(f"--mount {text}: it should be DIR:/TARGET, DIR:/TARGET:ro or DIR:/TARGET:rw")
    path = Path(source).absolute()
    if not path.exists():
        raise PestoError(f"--mount {text}: there is no {path}")
    return Mount(path, where, writable)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
