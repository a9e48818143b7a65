"""Lock and build every example anew, and write down the digests: ``python scripts/golden.py [--upgrade]``.

``tests/test_golden.py`` holds every build against ``tests/golden.json``. Changing a digest there is a deliberate act:
say in the commit why the same lock makes another image, or that the lock is another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

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


def digest(example: tuple[str, ...], *options: str) -> str:
    """Build one example from its lock into a folder that is thrown away; the image's digest."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/image.tar"
        found: str = json.loads(run("build", example, "--json", "-q", "-o", output, *options))["digest"]
        return found


def main(arguments: list[str]) -> None:
    """Lock, build, write down."""
    upgrade = ["--upgrade"] if "--upgrade" in arguments else []
    found = {}
    for example in EXAMPLES:
        run("lock", example, "-q", *upgrade)
        found[" ".join(example)] = digest(example)
        print(" ".join(example), found[" ".join(example)], flush=True)
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
