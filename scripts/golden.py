"""Lock and build every example anew, and write down the digests: ``python scripts/golden.py [--upgrade]``.

``tests/test_golden.py`` holds every build against ``tests/golden.json``. Changing a digest there is a deliberate act:
say in the commit why the same lock makes another image, or that the lock is another.

Every layer is made by the code as it is: of the usual store only the downloads are used.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pesto_repro.cli.world import store_at

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden.json"
EXAMPLES = (
    ("hello-service",),
    ("hello-service", "p1"),
    ("hello-service", "p2"),
    ("hello-service", "p1", "p2"),
    ("hello-service", "p2", "p1"),
    ("hello-service", "stateful"),
    ("cloud-mask",),
    ("cloud-mask", "fast"),
)
"""Each example and the profiles it is built with."""


def run(command: str, example: tuple[str, ...], *options: str) -> str:
    """One command of the tool on one example; its stdout."""
    name, *profiles = example
    words = [command, f"examples/{name}", *(["-p", *profiles] if profiles else []), *options]
    tool = [sys.executable, "-m", "pesto_repro"]
    return subprocess.run([*tool, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def fresh_store(usual: Path) -> Iterator[Path]:
    """A store that knows no layer, with the downloads of *usual* in it; it is thrown away."""
    usual.mkdir(parents=True, exist_ok=True)
    records = (json.loads(path.read_text().partition("\n")[0]) for path in usual.glob("records/layer/*"))
    made = {record["digest"].removeprefix("sha256:") for record in records}
    with tempfile.TemporaryDirectory(dir=usual.parent, prefix="golden-") as folder:
        blobs = Path(folder, "blobs/sha256")
        blobs.mkdir(parents=True)
        for path in usual.glob("blobs/sha256/*"):
            if path.name not in made:
                (blobs / path.name).hardlink_to(path)
        yield Path(folder)


def digest(example: tuple[str, ...], *options: str) -> str:
    """Build one example from its lock into a folder that is thrown away; the image's digest.

    What the store of *options* knows is not made again.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/image.tar"
        found: str = json.loads(run("build", example, "--json", "-q", "-o", output, *options))["digest"]
        return found


def main(arguments: list[str]) -> None:
    """Lock, build, write down."""
    upgrade = ["--upgrade"] if "--upgrade" in arguments else []
    found = {}
    with fresh_store(store_at(None).root) as store:
        for example in EXAMPLES:
            run("lock", example, "-q", "--store", str(store), *upgrade)
            found[" ".join(example)] = digest(example, "--store", str(store))
            print(" ".join(example), found[" ".join(example)], flush=True)
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
