"""What is built: upstream's template project, alone, with large packages, and with a large local file. And: by us.

All downloads happen once, into a store that the prepared folder keeps; what is timed has a store of its own, which
:meth:`Ours.forget` fills anew with links to those downloads and nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from measure import Done, execute, link, say

from tests import upstream

SUITE = "trixie"
LARGE = """\
scipy opencv-python-headless pyarrow scikit-learn scikit-image onnxruntime pandas polars numba matplotlib duckdb
statsmodels geopandas pyogrio""".split()
RESOURCE = 5_000_000_000
_BLOCK = 50_000_000
_MAGIC = {b"PK": "wheels", b"!<": "debs"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A project to build: upstream's template with *requires*, and a file of *resource* bytes as a resource."""

    name: str
    title: str
    requires: tuple[str, ...] = ()
    resource: int = 0

    @property
    def settings(self) -> str:
        """Its image.toml."""
        layers = '[layers]\ncompression = "none"\n' if self.resource else ""
        return f'[base]\ndebian = "{SUITE}"\n[python]\nrequires = {json.dumps(list(self.requires))}\n{layers}'


TEMPLATE = Kind("template", "template image")
BIG = Kind("large", "1.5 GB image", tuple(LARGE))
WITH_RESOURCE = Kind("resource", "template image with a 5 GB file", resource=RESOURCE)


class Ours:
    """A project of one kind, in *scratch*; *prepared* keeps its downloads, its lock and its large file."""

    def __init__(self, kind: Kind, prepared: Path, scratch: Path) -> None:
        self.kind, self.prepared = kind, prepared
        self.warm = prepared / "store"
        self.folder = scratch / kind.name
        self.folder.mkdir()
        self.store, self.archive = self.folder / "store", self.folder / "ours.oci.tar"
        self.project = upstream.render(upstream.download(prepared), self.folder)
        (self.project / "pesto/build/image.toml").write_text(kind.settings)
        if kind.resource:
            self._add_resource()
        if kind.resource:
            self.store = self.warm  # it is built once: a store of its own would be another 5 GB
        self._lock()
        self.built = self._json(self.command("build", self.warm, "-o", self.archive, "--json"))
        self.steps: list[dict[str, Any]] = self._json(self.command("plan", self.warm, "--json"))["platforms"][0][
            "steps"
        ]

    # -- cases ---------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Keep downloads, forget every layer and record, and the archive."""
        self.archive.unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        for digest in sorted({digest for step in self.steps for digest in step["inputs"]}):
            name = Path("blobs", *digest.split(":"))
            if (self.warm / name).exists():
                link(self.warm / name, self.store / name)

    def edit(self, comment: str) -> None:
        """Change one line of the algorithm's code."""
        edit(self.project, comment)

    def build(self, case: str) -> Done:
        """Build up to a finished archive; stop the benchmark if that was another *case* than meant."""
        done = self.command("build", self.store, "-o", self.archive, "--json")
        self.built = self._json(done)
        reused = [layer["cached"] for layer in self.layers]
        holds = {"first": not any(reused), "unchanged": all(reused), "edited": any(reused) and not all(reused)}
        if not holds[case]:
            sys.exit(f"error: {case} ({self.kind.title}): {sum(reused)} of {len(reused)} layers were not made")
        return done

    def command(self, verb: str, store: Path, *options: str | Path) -> Done:
        """``pesto-repro VERB`` on the project with *store*."""
        return execute(tool(verb, self.project, *options, "--store", store), self.folder)

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Those of the last build."""
        found: list[dict[str, Any]] = self.built["platforms"][0]["layers"]
        return found

    @cached_property
    def downloads(self) -> dict[str, list[Path]]:
        """The wheels and the debs it is made of, in the prepared store."""
        found: dict[str, list[Path]] = {"wheels": [], "debs": []}
        for digest in sorted({digest for step in self.steps for digest in step["inputs"]}):
            path = self.warm / Path("blobs", *digest.split(":"))
            if path.exists():
                with path.open("rb") as file:
                    kind = _MAGIC.get(file.read(2))
                if kind is not None:
                    found[kind].append(path)
        return found

    @cached_property
    def vendored(self) -> tuple[Path, Path]:
        """A folder with the lock's wheels under their names, and requirements.txt with their hashes."""
        wheels, requirements = self.folder / "wheels", self.folder / "requirements.txt"
        how: list[str | Path] = ["--format", "requirements", "--vendor", wheels, "-o", requirements]
        self.command("export", self.warm, *how)
        return wheels, requirements

    def _lock(self) -> None:
        """The lock of the last run if there is one, so that equal things are compared."""
        kept = self.prepared / f"{self.kind.name}.lock.toml"
        place = self.project / f"lockfiles/{self.project.name}.lock.toml"
        place.parent.mkdir(exist_ok=True)
        if kept.exists():
            shutil.copy(kept, place)
        else:
            say(f"{self.kind.title}: downloading what it is made of, once")
        self.command("lock", self.warm)
        shutil.copy(place, kept)

    def _add_resource(self) -> None:
        file = self.prepared / "resource.bin"
        if not file.exists() or file.stat().st_size != self.kind.resource:
            say("writing the large file, once")
            execute([sys.executable, __file__, file, str(self.kind.resource)], self.folder)
        (self.project / "model").mkdir()
        link(file, self.project / "model/model.bin")
        path = self.project / "pesto/build/requirements.json"
        document = json.loads(path.read_text())
        document.setdefault("requirements", {})["model"] = {"from": "file://model/model.bin", "to": "/opt/model.bin"}
        path.write_text(json.dumps(document))

    def _json(self, done: Done) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def tool(*words: str | Path) -> list[str]:
    """Our command line."""
    return [sys.executable, "-m", "pesto_repro", *map(str, words)]


def edit(project: Path, comment: str) -> None:
    """Add one line, another one each time, to the algorithm's code."""
    with (project / "algorithm/process.py").open("a") as code:
        code.write(f"# {comment} {time.time_ns()}\n")  # buildah remembers what an earlier run has built


def write_noise(path: Path, size: int) -> None:
    """*size* bytes that no compressor of images makes smaller: one random block, many times, far apart."""
    with path.open("wb") as file:
        for piece in _noise(size):
            file.write(piece)


def _noise(size: int) -> Iterator[bytes]:
    block = b"".join(_random(number) for number in range(_BLOCK // 1_000_000))
    while size > 0:
        yield block[:size]
        size -= len(block)


def _random(number: int) -> bytes:
    return random.Random(number).randbytes(1_000_000)


if __name__ == "__main__":  # a process of its own: the peak memory of what is measured counts from the parent's
    write_noise(Path(sys.argv[1]), int(sys.argv[2]))
