"""What runs inside the room, by the room's own Python: it unpacks the source, calls one hook (PEP 517), hands on the
result.

It is never imported: its text is given to an interpreter that may be as old as 3.7. In: the source's tar on standard
input, the order as JSON in the only argument. Out: one line of JSON on standard output, and after it the bytes of the
wheel; whatever the build prints goes to standard error. Nothing here protects anybody: the code that is called can do
all that this script can, so whoever reads the answer believes none of it.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import IO, Any


def main(order: dict[str, Any]) -> None:
    answer = os.fdopen(os.dup(1), "wb")  # not inherited: what is started in the room has no way to it
    os.dup2(2, 1)
    unpack(Path(order["sources"]))
    Path(order["home"]).mkdir()
    os.chdir(Path(order["sources"], order["root"]))
    backend = load(order["backend"], order["path"])
    if order["hook"] == "build_wheel":
        hand_on_wheel(backend, Path(order["output"]), answer)
    else:
        hook = getattr(backend, order["hook"], None)
        # PEP 517: "If not defined, the default implementation is equivalent to return []"
        say(answer, {"requires": list(hook(None)) if hook is not None else []})
    answer.close()


def unpack(folder: Path) -> None:
    os.umask(0o022)
    folder.mkdir()
    trusting: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with os.fdopen(os.dup(0), "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        archive.extractall(folder, **trusting)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def load(name: str, path: list[str]) -> Any:
    """PEP 517: directories of backend-path go first; the source itself "must not" be importable otherwise."""
    sys.path[:] = [os.path.normpath(Path.cwd() / each) for each in path] + [each for each in sys.path if each]
    module, _, rest = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, rest.split(".")):
        found = getattr(found, attribute)
    return found


def hand_on_wheel(backend: Any, folder: Path, answer: IO[bytes]) -> None:
    """PEP 517: build_wheel "must return the basename (not the full path) of the .whl file it creates"."""
    folder.mkdir()
    name = backend.build_wheel(str(folder), None, None)
    left = sorted(each.name for each in folder.iterdir())
    if left != [name]:
        raise SystemExit(f"the backend says that it made {name!r}, but what it left is {left!r}")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise SystemExit(f"the backend made {name!r}, which is no regular file")
    say(answer, {"wheel": name})
    with path.open("rb") as stream:
        shutil.copyfileobj(stream, answer)


def say(answer: IO[bytes], value: dict[str, Any]) -> None:
    answer.write(json.dumps(value).encode() + b"\n")


main(json.loads(sys.argv[1]))
