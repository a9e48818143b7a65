"""How fast is a push, beside skopeo's of the same archive to the same registry? ``make bench-push`` answers.

The archive has 500 MB in layers of different sizes that nothing makes smaller, as gzip, so that neither side
compresses anything. The registry is Debian's docker-registry on this machine, with its files in a temporary folder,
emptied before each first push. Both sides push in turns, so that a busy machine slows both.

Rules: what is timed is the wall clock of whole processes; emptying the registry is not; a round of all cases warms up
and is thrown away; a push after which the registry does not have what it should have stops the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from measure import Done, execute

from pesto_repro.build.entry import data
from pesto_repro.oci import Image, Layer
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.images import make_image, make_layer, sparse_layer
from tests.judges import judge

RESULTS = Path(__file__).resolve().parent / "PUSH.md"
COMMAND = "make bench-push"
MEGABYTES = (180, 110, 80, 40, 30, 15, 10, 10, 8, 6, 5, 3, 2, 1)
"""The layers' sizes: 500 in all."""
CHANGED = 5
"""The size of the layer that changes, in MB."""
LARGE = 2_000_000_000
MEMORY_TARGET = 80


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry that runs: *host* is its address, *folder* where its files are."""

    host: str
    folder: Path

    def empty(self) -> None:
        shutil.rmtree(self.folder / "docker", ignore_errors=True)

    def blobs(self) -> set[str]:
        """The digests, in hex, of all that it has."""
        return {path.parent.name for path in self.folder.glob("docker/registry/v2/blobs/sha256/*/*/data")}


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table: what is pushed, whether the registry is empty before, how many times faster we aim to be."""

    title: str
    target: float | None
    archive: Path
    image: Image
    empty: bool


Pushing = Callable[[Path, str], Done]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Registry]:
    """A registry, while the context lasts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    files = folder / "registry"
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(files)}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "not secret"},
    }
    (folder / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "registry.log").open("wb") as log:
        command = [judge("docker-registry"), "serve", str(folder / "registry.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(port)
            yield Registry(f"127.0.0.1:{port}", files)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    sys.exit("error: docker-registry does not start")


def ours(folder: Path) -> Pushing:
    """``pesto-repro push``."""
    return lambda archive, name: execute(
        [sys.executable, "-m", "pesto_repro", "push", "-q", str(archive), name], folder
    )


def theirs(folder: Path) -> Pushing:
    """``skopeo copy``."""
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
    return lambda archive, name: execute([*command, f"oci-archive:{archive}", f"docker://{name}"], folder)


def compare(cases: Sequence[Case], registry: Registry, sides: Sequence[Pushing], runs: int) -> list[list[list[Done]]]:
    """By case, then by side: *runs* pushes, after one round that is thrown away."""
    found: list[list[list[Done]]] = [[[] for _ in sides] for _ in cases]
    for number in range(runs + 1):
        for side, pushing in enumerate(sides):
            for case, row in zip(cases, found, strict=True):
                done = _push(case, registry, pushing)
                print(f"round {number}: {case.title}: {('ours', 'skopeo')[side]} {done.seconds:.2f} s", file=sys.stderr)
                if number:
                    row[side].append(done)
    return found


def _push(case: Case, registry: Registry, pushing: Pushing) -> Done:
    if case.empty:
        registry.empty()
    done = pushing(case.archive, f"{registry.host}/bench/hello:1")
    lacking = {digest.hex for digest in (*case.image.documents(), *case.image.layers())} - registry.blobs()
    if lacking:
        sys.exit(f"error: {case.title}: the registry lacks {len(lacking)} of the image's blobs")
    return done


def prepared(folder: Path) -> tuple[tuple[Case, ...], Path]:
    """The archives to push, made in *folder*; and a layout with one large layer."""
    store = Store(folder / "store")
    layers = [_noise(store, number, size) for number, size in enumerate(MEGABYTES)]
    changed = [*layers[:-1], _noise(store, len(MEGABYTES), CHANGED)]
    first, second = _written(store, layers, folder / "first.tar"), _written(store, changed, folder / "second.tar")
    cases = (
        Case("500 MB to an empty registry", 1.0, folder / "first.tar", first, empty=True),
        Case("the same again", None, folder / "first.tar", first, empty=False),
        Case(f"with one other layer of {CHANGED} MB", None, folder / "second.tar", second, empty=False),
    )
    large = folder / "large.tar"
    _written(store, [sparse_layer(store, folder, LARGE)], large)
    return cases, large


def _noise(store: Store, number: int, megabytes: int) -> Layer:
    content = random.Random(number).randbytes(megabytes * 1_000_000)
    return make_layer(store, f"layer {number}", data(f"opt/{number}", content))


def _written(store: Store, layers: Sequence[Layer], path: Path) -> Image:
    image = make_image(tuple(layers))
    write_archive(image, "hello:1", path, store)
    return image


def report(cases: Sequence[Case], found: Sequence[Sequence[Sequence[Done]]], large: int, runs: int) -> str:
    """The results as Markdown."""
    peaks = [max(done.peak for row in found for done in row[side]) / 1e6 for side in (0, 1)]
    most = max(peaks[0], large / 1e6)
    lines = [
        "| | ours, s | skopeo, s | times faster | aim | |",
        "|---|--:|--:|--:|--:|---|",
        *(_row(case, *row) for case, row in zip(cases, found, strict=True)),
        "",
        f"Our peak memory: {peaks[0]:.0f} MB (skopeo: {peaks[1]:.0f} MB); with one layer of 2 GB {large / 1e6:.0f} MB; "
        f"aim: under {MEMORY_TARGET} MB, {_verdict(most < MEMORY_TARGET)}.",
        "",
        f"Median of {runs} pushes each, in turns, after one to warm up. {_machine()}",
    ]
    return "\n".join(lines) + "\n"


def _row(case: Case, ours: Sequence[Done], theirs: Sequence[Done]) -> str:
    we, they = (statistics.median(done.seconds for done in each) for each in (ours, theirs))
    aim, verdict = (f"{case.target:g}", _verdict(they / we >= case.target)) if case.target else ("", "")
    return f"| {case.title} | {we:.2f} | {they:.2f} | {they / we:.1f} | {aim} | {verdict} |"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _machine() -> str:
    skopeo = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cpus = f"{os.cpu_count()} CPUs ({platform.machine()})"
    return f"{cpus}, Python {platform.python_version()}, {skopeo}, {datetime.now(UTC):%Y-%m-%d}."


def document(table: str) -> str:
    """PUSH.md: the table, how it was made, and what it compares."""
    return f"""# The last comparison of pushing

Written by `{COMMAND} BENCH_ARGS=--write`; `make bench-deps` installs what it needs. Not to be edited.

{table}
`pesto-repro push` and `skopeo copy` of the same OCI archive to the same docker-registry on the same machine. Wall clock
of whole processes. All layers are gzip, so neither side compresses.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the speed of pushing with skopeo's.")
    parser.add_argument("--runs", type=int, default=5, help="pushes per case and side (default: 5)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    parser.add_argument("--folder", type=Path, help="where temporary files go (they take 4 GB)")
    return parser.parse_args()


def main() -> None:
    """Run the comparison; print the table."""
    arguments = _arguments()
    missing = [tool for tool in ("docker-registry", "skopeo") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"error: the comparison needs {' and '.join(missing)}\nhint: run `make bench-deps`")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch, running(Path(scratch)) as registry:
        folder = Path(scratch)
        with ProcessPoolExecutor(1) as pool:  # a child's peak memory counts from its parent's: keep ours small
            cases, large = pool.submit(prepared, folder).result()
        found = compare(cases, registry, (ours(folder), theirs(folder)), arguments.runs)
        registry.empty()
        peak = ours(folder)(large, f"{registry.host}/bench/large:1").peak
        table = report(cases, found, peak, arguments.runs)
    print(table, end="")
    if arguments.write:
        RESULTS.write_text(document(table))


if __name__ == "__main__":
    main()
