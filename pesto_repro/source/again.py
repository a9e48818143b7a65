"""Building again: twice when locking, to see whether it comes out equal, and elsewhere, where it must."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from pesto_repro.digest import Digest
from pesto_repro.errors import MismatchError, ResolveError
from pesto_repro.lock.model import Pin, PythonPackage
from pesto_repro.source.repack import contents
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.source.workbench import Built, Workbench
from pesto_repro.store import Store

_SHOWN = 20


def build_twice(
    bench: Workbench, source: Unpacked, requires: Sequence[PythonPackage], *, allow: Collection[str] = ()
) -> Built:
    """The wheel of *source*, if two builds in two cells give the same one; of the packages *allow*, the first anyhow.

    Raises ResolveError that names the files that differ.
    """
    one, other = bench.build(source, requires), bench.build(source, requires)
    if (one.filename, one.digest) == (other.filename, other.digest):
        return one
    if one.name in allow:
        return replace(one, reproducible=False)
    found = differences(one.digest, other.digest, bench.shop.store) or ("its file name",)
    raise ResolveError(
        "\n  ".join([f"{one.name} {one.version} does not come out equal when it is built twice:", *_some(found)]),
        f'take another version, or accept it: [python] allow-unreproducible = ["{one.name}"] in image.toml',
    )


def rebuild(
    bench: Workbench, source: Unpacked, requires: Sequence[PythonPackage], expected: Pin, files: Sequence[str] = ()
) -> Built:
    """The wheel *expected*, built anew. *files* are those of ``Built.files`` when it was locked, if they are known.

    Raises MismatchError that names both digests, and the files that differ as far as these are known.
    """
    built = bench.build(source, requires)
    if (built.filename, built.digest) == (expected.name, expected.digest):
        return built
    store = bench.shop.store
    if store.has(expected.digest):
        found = differences(expected.digest, built.digest, store)
    else:
        found = tuple(_changes(_by_path(files), _by_path(built.files))) if files else ("in which files is not known",)
    head = f"{expected.name} was built from {source.label}, but is not what was locked: "
    raise MismatchError(
        "\n  ".join([f"{head}expected {expected.digest}, {built.filename} has {built.digest}", *_some(found)]),
        f"the new one is kept at {store.path(built.digest)}; take the locked one from a store or a bundle that has it, "
        f"or lock again with -P {built.name}",
    )


def differences(one: Digest, other: Digest, store: Store) -> tuple[str, ...]:
    """The files in which two canonical wheels of *store* differ, for people."""
    return tuple(_changes(contents(one, store), contents(other, store)))


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """RECORD repeats what the others say: it is named only if nothing else differs."""
    paths = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    told = [path for path in paths if not path.endswith(".dist-info/RECORD")] or paths
    for path in told:
        if path not in after:
            yield f"{path} is missing the second time"
        elif path not in before:
            yield f"{path} is there the second time only"
        else:
            yield f"{path} differs"


def _by_path(files: Sequence[str]) -> dict[str, str]:
    return {path: known for known, _, path in (each.partition(" ") for each in files)}


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
