"""What all rows share: the prepared folder, the projects and peers, each made when a row first needs it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from measure import Contestant, Done, execute, say
from peers import HERE, Buildah, Uv, present
from projects import WITH_RESOURCE, Kind, Ours

CRANE = "github.com/google/go-containerregistry/cmd/crane@latest"
UPSTREAM, EXPERT = "buildah", "buildah, expert's Dockerfile"
ROOM = 20_000_000_000


@dataclass(slots=True)
class Setting:
    """Downloads lie in *prepared*, all else in *scratch*, which goes away."""

    prepared: Path
    scratch: Path
    rounds: int
    peaks: dict[str, int] = field(default_factory=dict)
    """The most memory that a process of ours took, by kind of project."""
    _ours: dict[str, Ours] = field(default_factory=dict)
    _peers: dict[str, list[Buildah]] = field(default_factory=dict)

    def ours(self, kind: Kind) -> Ours:
        """Our project of *kind*, downloaded and locked."""
        if kind.name not in self._ours:
            self._ours[kind.name] = Ours(kind, self.prepared, self.scratch)
        return self._ours[kind.name]

    def ready(self, kind: Kind) -> Ours:
        """The same, built once, so that something can be unchanged."""
        ours = self.ours(kind)
        if not ours.archive.exists() or not ours.store.exists():
            ours.forget()
            self.noted(kind, ours.build("first"))
        return ours

    def dockerfiles(self, kind: Kind, *, built: bool = True) -> list[Buildah]:
        """buildah with both Dockerfiles, with the layers and archives of a build if *built*; none where it is not."""
        if not (present("buildah") and present("mmdebstrap")):
            return []
        if kind.name not in self._peers:
            ours = self.ours(kind)
            files = {UPSTREAM: HERE / "Dockerfile.upstream", EXPERT: HERE / "Dockerfile.expert"}
            self._peers[kind.name] = [Buildah(name, file, ours) for name, file in files.items()]
        for each in self._peers[kind.name] if built else ():
            if not each.archive.exists():
                say(f"{kind.title}: {each.name}: {each.build().seconds:.2f} s (to have its layers)")
        return self._peers[kind.name]

    def noted(self, kind: Kind, done: Done) -> Done:
        """Remember the memory that a build of ours took."""
        self.peaks[kind.title] = max(self.peaks.get(kind.title, 0), done.peak)
        return done

    def floor(self, kind: Kind) -> Contestant:
        """Inflate and hash what *kind* is made of, and copy its archive."""
        ours = self.ours(kind)
        files = [*ours.downloads["wheels"], *ours.downloads["debs"]]
        copy = ours.folder / "copy.tar"

        def run(_: int) -> Done:
            read = execute([sys.executable, HERE / "floor.py", *files], ours.folder)
            return read.then(execute(["cp", ours.archive, copy], ours.folder))

        return Contestant("the floor", run, lambda _: copy.unlink(missing_ok=True))

    def room(self) -> bool:
        """Whether the large file's project fits."""
        has = (self.prepared / "resource.bin").exists()
        return has or shutil.disk_usage(self.prepared).free > ROOM

    def crane(self) -> str | None:
        """crane: of this machine, or built once by its go; None where neither is possible."""
        built = self.prepared / "go/bin/crane"
        if present("crane"):
            return "crane"
        if not built.exists() and present("go") and not (self.prepared / "go").exists():
            self._build_crane()
        return str(built) if built.exists() else None

    def _build_crane(self) -> None:
        say("building crane, once")
        go = self.prepared / "go"
        go.mkdir()
        settings = {"GOPATH": go / "path", "GOCACHE": go / "cache", "GOBIN": go / "bin"}
        env = {name: str(path) for name, path in settings.items()} | {"GOFLAGS": "-modcacherw"}
        script = f"go install {CRANE} || echo 'crane cannot be built here' >&2"
        execute(["sh", "-c", script], self.prepared, env)


def uv(ours: Ours) -> Contestant:
    """``uv pip install``, tar and gzip."""
    peer = Uv(ours)
    return Contestant(peer.name, lambda _: peer.build(), lambda _: peer.forget())


def downloaders() -> dict[str, str]:
    """Shell commands that load what the file "addresses" names into the folder they run in."""
    found = {}
    if present("aria2c"):
        how = "-q -j 16 -x 4 --file-allocation=none"
        found["aria2c"] = f"awk '{{print; print \" out=\" NR}}' ../addresses > ../list && aria2c {how} -i ../list"
    if present("curl"):
        script = """awk '{print "url = \\"" $0 "\\""; print "output = " NR}' ../addresses > ../list"""
        found["curl --parallel"] = f"{script} && curl -sSfL --parallel --parallel-max 16 -K ../list"
    return found


def total(paths: Iterable[Path]) -> int:
    """Their bytes."""
    return sum(path.stat().st_size for path in paths)


def kinds_with_room(setting: Setting, kinds: Iterable[Kind]) -> list[Kind]:
    """Those of *kinds* that fit on the disk."""
    return [kind for kind in kinds if kind is not WITH_RESOURCE or setting.room()]
