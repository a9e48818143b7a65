"""What does an empty runner cost, with a cache registry that is warm? ``make bench-cache`` answers.

The template's image is built once with ``--cache-write``. Then a runner without home and store builds and pushes it to
the same registry, beside ``skopeo copy`` of the same archive to an empty repository of it. Bytes are counted by a proxy
in front of the registry, in a run of its own; what is timed talks to the registry directly.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measure import Done, execute
from push import _machine

from tests import upstream
from tests.registries import LiveRegistry, running

RESULTS = Path(__file__).resolve().parent / "CACHE.md"
SETTINGS = '[base]\ndebian = "trixie"\n'
RECEIVED_TARGET = 2_000_000


@dataclass(frozen=True, slots=True)
class Bench:
    """The project, the archive of its image, and the registry that has its steps."""

    folder: Path
    project: Path
    archive: Path
    registry: LiveRegistry

    def runner(self, number: int, host: str) -> tuple[Done, dict[str, object]]:
        """A new empty runner builds and pushes: what it cost, and what it printed."""
        home, printed = self.folder / f"home-{number}", self.folder / f"printed-{number}"
        home.mkdir()
        words = ["build", str(self.project), "-q", "--json", "--store", str(home / "store")]
        words += ["--cache", f"{host}/cache/steps", "--push", f"{host}/team/algo-{number}:1"]
        script = f'export HOME="{home}"; exec "$@" > "{printed}"'
        done = execute(["sh", "-c", script, "sh", sys.executable, "-m", "pesto_repro", *words], self.folder)
        return done, json.loads(printed.read_text())

    def skopeo(self, number: int) -> Done:
        """``skopeo copy`` of the archive to a repository that has nothing."""
        target = f"docker://{self.registry.direct}/skopeo/algo-{number}:1"
        command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{self.archive}", target]
        return execute(command, self.folder)


def prepared(folder: Path, registry: LiveRegistry) -> Bench:
    """Lock, build, and fill the cache."""
    project = upstream.render(upstream.download(folder), folder)
    (project / "pesto/build/image.toml").write_text(SETTINGS)
    archive = folder / "image.tar"
    tool = [sys.executable, "-m", "pesto_repro"]
    common = [str(project), "-q", "--store", str(folder / "store")]
    subprocess.run([*tool, "lock", *common], check=True, stdout=subprocess.DEVNULL)
    words = ["build", *common, "-o", str(archive), "--cache", f"{registry.direct}/cache/steps", "--cache-write"]
    subprocess.run([*tool, *words], check=True, stdout=subprocess.DEVNULL)
    return Bench(folder, project, archive, registry)


def received(bench: Bench) -> tuple[int, int, int]:
    """(bytes, requests, steps made) of one empty runner, counted on the way."""
    bench.registry.forget()
    _, printed = bench.runner(0, bench.registry.host)
    platforms = printed["platforms"]
    assert isinstance(platforms, list)
    made = sum(not layer["cached"] for platform in platforms for layer in platform["layers"])
    requests = bench.registry.requests()
    return sum(each.received for each in requests), len(requests), made


def report(bench: Bench, runs: int) -> str:
    """The results as Markdown."""
    size, requests, made = received(bench)
    ours = [bench.runner(number, bench.registry.direct)[0] for number in range(1, runs + 1)]
    theirs = [bench.skopeo(number) for number in range(1, runs + 1)]
    we, they = (statistics.median(done.seconds for done in each) for each in (ours, theirs))
    verdict = "met" if size < RECEIVED_TARGET and not made else "**missed**"
    return (
        f"The image: {bench.archive.stat().st_size / 1e6:.0f} MB.\n\n"
        "| an empty runner with a warm cache | | aim | |\n|---|--:|--:|---|\n"
        f"| received, kB | {size / 1e3:.0f} | under {RECEIVED_TARGET / 1e3:.0f} | {verdict} |\n"
        f"| requests | {requests} | | |\n"
        f"| steps made | {made} | 0 | {verdict} |\n"
        f"| build --push, s | {we:.2f} | | |\n"
        f"| skopeo copy of the finished archive, s | {they:.2f} | | |\n\n"
        f"Median of {runs} runs each. {_machine()}\n"
    )


def main() -> None:
    """Run the comparison; print the table."""
    parser = argparse.ArgumentParser(description="Measure an empty runner with a warm cache registry.")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    parser.add_argument("--folder", type=Path, help="where temporary files go (they take 2 GB)")
    arguments = parser.parse_args()
    missing = [tool for tool in ("docker-registry", "skopeo") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"error: the comparison needs {' and '.join(missing)}\nhint: run `make bench-deps`")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        (folder / "registry").mkdir()
        with running(folder / "registry") as registry:
            table = report(prepared(folder, registry), arguments.runs)
    print(table, end="")
    if arguments.write:
        RESULTS.write_text(
            f"# An empty runner, last measured\n\nWritten by `make bench-cache BENCH_ARGS=--write`.\n\n{table}"
        )


if __name__ == "__main__":
    main()
