"""Push to a registry on this machine: after one changed line, counted by a proxy, and the whole image. And others."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

from measure import Contestant, Done, execute, in_turns
from peers import present, void
from projects import Ours, tool
from report import Goal, Row, timed
from setting import Setting

from tests.registries import LiveRegistry, running

REQUESTS, BYTES = 10, 1.1
_numbers = itertools.count()


def pushes(setting: Setting, ours: Ours) -> Iterator[Row]:
    """The rows of one image; none where there is no registry to push to."""
    if not present("docker-registry"):
        return
    folder = ours.folder / "registry"
    with running(folder) as registry:
        yield _counted(setting, ours, registry)
        others = _others(setting, ours, registry)
        yield _changed(setting, ours, registry, others)
        yield _whole(setting, ours, registry, others)
    shutil.rmtree(folder)


def _counted(setting: Setting, ours: Ours, registry: LiveRegistry) -> Row:
    """What goes over the wire after one line: the most of all rounds."""
    name = f"{registry.host}/ours/algo:1"
    _push(ours, name)
    requests, sent, ratio = 0, 0, 0.0
    for _ in range(setting.rounds):
        layer = _another(ours)
        registry.forget()
        _push(ours, name)
        seen = registry.requests()
        requests, sent = max(requests, len(seen)), max(sent, sum(each.sent for each in seen))
        ratio = max(ratio, sum(each.sent for each in seen) / layer)
    missed = [f"{requests} requests"] if requests >= REQUESTS else []
    missed += [f"{ratio:.2f} times the layer"] if ratio >= BYTES else []
    return Row(
        f"push-requests-{ours.kind.name}",
        f"push after one line: {ours.kind.title}",
        f"under {REQUESTS} requests; bytes under {BYTES:g} times the layer",
        f"{requests} requests, {sent / 1e3:.1f} kB: {ratio:.2f} times the layer",
        setting.rounds,
        missed=tuple(missed),
    )


def _changed(setting: Setting, ours: Ours, registry: LiveRegistry, others: list[Contestant]) -> Row:
    """How long it takes; each pusher has a repository of its own, and a line of its own each time."""
    we = Contestant("ours", lambda _: _push(ours, f"{registry.direct}/ours/algo:1"), patient=True)
    everyone = [Contestant(e.name, e.run, lambda _: void(_another(ours)), patient=e.patient) for e in (we, *others)]
    times = in_turns(f"push after one line, {ours.kind.title}", everyone, setting.rounds)
    return timed(f"push-line-{ours.kind.name}", f"push after one line, time: {ours.kind.title}", Goal(), times)


def _whole(setting: Setting, ours: Ours, registry: LiveRegistry, others: list[Contestant]) -> Row:
    def empty(_: int) -> None:
        shutil.rmtree(registry.folder / "docker", ignore_errors=True)

    we = Contestant("ours", lambda _: _push(ours, f"{registry.direct}/ours/algo:1"), patient=True)
    everyone = [Contestant(each.name, each.run, empty, patient=each.patient) for each in (we, *others)]
    times = in_turns(f"push to an empty registry, {ours.kind.title}", everyone, setting.rounds)
    goal = Goal(faster={"skopeo copy": 1.3})
    return timed(f"push-whole-{ours.kind.name}", f"push to an empty registry: {ours.kind.title}", goal, times)


def _others(setting: Setting, ours: Ours, registry: LiveRegistry) -> list[Contestant]:
    """skopeo, and crane if there is one, on the same archive."""
    found = []
    if present("skopeo"):
        copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{ours.archive}"]
        found.append(_other("skopeo copy", ours, [*copy, f"docker://{registry.direct}/skopeo/algo:1"]))
    crane = setting.crane()
    if crane is not None:
        layout = ours.folder / "layout"  # crane reads layouts and docker's archives; ours is an OCI archive, too
        unpack = f"rm -rf {layout}; mkdir {layout}; tar -x -f {ours.archive} -C {layout}"
        push = [crane, "push", "--insecure", str(layout), f"{registry.direct}/crane/algo:1"]
        found.append(_other("crane push", ours, push, unpack))
    return found


def _other(name: str, ours: Ours, command: list[str], before: str = "") -> Contestant:
    """Another pusher; *before* is shell that is not timed."""

    def run(_: int) -> Done:
        if before:
            execute(["sh", "-ec", before], ours.folder)
        return execute(command, ours.folder)

    return Contestant(name, run)


def _push(ours: Ours, name: str) -> Done:
    return execute(tool("push", "-q", ours.archive, name), ours.folder)


def _another(ours: Ours) -> int:
    """Change a line and build; the size of the layer that changed."""
    ours.edit(f"push {next(_numbers)}")
    ours.build("edited")
    return sum(int(layer["size"]) for layer in ours.layers if not layer["cached"])
