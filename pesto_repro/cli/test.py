"""``test``: a service and its project's own tests, by PESTO's rules; no engine, no root, no daemon."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from pesto_repro.cli.console import show, show_json
from pesto_repro.cli.locked import read
from pesto_repro.cli.options import Target, target_command
from pesto_repro.cli.rooted import Rooted, rooted
from pesto_repro.cli.run import START_TIMEOUT, service_log, show_tail
from pesto_repro.errors import EXIT_FAILURE, PestoError
from pesto_repro.project import read_project
from pesto_repro.sandbox.cell import Mount
from pesto_repro.service import report
from pesto_repro.service.client import remote
from pesto_repro.service.payload import File, inline
from pesto_repro.service.pictures import Decode, decoder
from pesto_repro.service.serving import serving
from pesto_repro.service.suite import Examiner, Result, Suite, Verdict, read_suite

REMOTE = "PESTO_REMOTE_SERVICE_URL"
_RESOURCES = Path("pesto/tests/resources")
_MOUNTED = "/tmp/pesto-tests"
"""Where the service sees the tests' files."""


@dataclass(frozen=True, slots=True)
class _How:
    """How to test."""

    tls: bool
    start_timeout: float
    timeout: float | None
    offline: bool


@click.command()
@target_command
@click.option("--ssl", "tls", is_flag=True, help="TLS, with a certificate for this run alone.")
@click.option("--resources", type=click.Path(path_type=Path), help="The tests; default: the project's own.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdict as JUnit's XML, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder for pictures that differ.")
@click.option("--start-timeout", type=float, default=START_TIMEOUT, show_default=True, help="Seconds to be healthy in.")
@click.option("--timeout", type=float, help="Seconds for an answer; default: as long as it takes.")
@click.option("--offline", is_flag=True, help="Build a project without the network.")
def test(
    target: Target,
    tls: bool,
    resources: Path | None,
    junit: Path | None,
    output: Path | None,
    start_timeout: float,
    timeout: float | None,
    offline: bool,
) -> int:
    """Test the service of an image, or of a project built from its lock: exit code 0 if all is as expected, else 1.

    What it says of itself is compared with expected_describe.json, what it answers to each test_*/input with
    test_*/output. The tests are the project's own; those of an image are in the project in the current folder, or
    where --resources says. With PESTO_REMOTE_SERVICE_URL the service at that address is tested, and none is started.

    \b
    pesto-repro test hello-service
    pesto-repro test hello-service -p stateful --junit report.xml
    cd hello-service && pesto-repro test dist/hello-service-1.0.0.oci.tar
    """
    suite = _suite(target, resources, tls)
    how = _How(tls, start_timeout, timeout, offline)
    url = os.environ.get(REMOTE)
    name, results = _remote(url, suite, target, how) if url else _local(suite, target, how)
    pictures = output or Path("dist", f"{_filename(name)}.test")
    with _writing(pictures):
        pairs = report.write_pictures(results, pictures)
    if junit is not None:
        with _writing(junit):
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_bytes(report.junit(results, pairs, name))
    if target.session.json:
        show_json({"service": name, **report.document(results, pairs)})
    else:
        show(report.text(results, pairs))
    return EXIT_FAILURE if any(each.verdict is Verdict.FAILED for each in results) else 0


def _local(suite: Suite, target: Target, how: _How) -> tuple[str, list[Result]]:
    """Start the service, and test it."""
    console = target.session.console
    with rooted(target, offline=how.offline) as found, service_log(console) as log:
        mount = Mount(suite.resources.absolute(), _MOUNTED)
        cell = replace(found.cell, mounts=(*found.cell.mounts, mount))
        with serving(cell, found.command, log, tls=how.tls, timeout=how.timeout) as service:
            service.client.wait_healthy(how.start_timeout)
            examiner = Examiner(service.client, _mounted(suite.resources), decoder(found.cell))
            results = list(examiner.run(suite))
        if any(each.problems for each in results):
            show_tail(log, console)
    return found.name, results


def _remote(url: str, suite: Suite, target: Target, how: _How) -> tuple[str, list[Result]]:
    """Test the service at *url*. The image is needed only where pictures must be decoded."""
    target.session.console.info(f"testing the service at {url} (${REMOTE})")
    client = remote(url, how.timeout)
    with _lazy_decoder(target, how) as decode:
        client.wait_healthy(how.start_timeout)
        return url, list(Examiner(client, inline, decode, anywhere=True).run(suite))


@contextmanager
def _lazy_decoder(target: Target, how: _How) -> Iterator[Decode]:
    with ExitStack() as stack:

        @cache
        def found() -> Rooted:
            return stack.enter_context(rooted(target, offline=how.offline))

        yield lambda data: decoder(found().cell)(data)


def _mounted(resources: Path) -> Callable[[File], str]:
    """A file's address, as the service sees it. PESTO's addresses are paths as they are, nothing is quoted."""
    return lambda file: f"file://{_MOUNTED}/{file.path.relative_to(resources).as_posix()}"


def _suite(target: Target, resources: Path | None, tls: bool) -> Suite:
    request = target.session.request
    if target.is_project:
        root, changed = read(request).root, _changed(request.path, request.profiles)
    else:
        root, changed = Path(), {}
        if (root / "pesto").is_dir():
            changed = _changed(root, request.profiles)
        elif resources is None:
            raise PestoError(
                f"{target.text} is an image, and the current folder is no PESTO project with tests for it",
                "name the folder of the tests with --resources, or go to the project's folder",
            )
    chosen = resources or root / _RESOURCES
    if not target.is_project:
        target.session.console.info(f"testing {target.text} with the tests in {chosen}")
    return read_suite(chosen, request.profiles, changed, tls=tls)


def _changed(path: Path, profiles: Sequence[str]) -> Mapping[str, Any]:
    """What *profiles* change of the project's description."""
    if not profiles:
        return {}
    before = read_project(path).documents["description"]
    after = read_project(path, profiles).documents["description"]
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PestoError(f"{path} cannot be written: {error.strerror or error}") from None


def _filename(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
