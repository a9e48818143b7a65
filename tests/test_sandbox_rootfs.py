"""Layers become a root: by the rules of layer.md, once, whole or not at all, and nothing leads out of it."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.build.entry import data
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, FetchError, MismatchError, PestoError
from pesto_repro.oci import Descriptor, Layer, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.registry.content import StoreContent
from pesto_repro.sandbox.cell import run
from pesto_repro.sandbox.engines import Engine
from pesto_repro.sandbox.merge import Directory, File, Node, Symlink, merge
from pesto_repro.sandbox.rootfs import Roots
from pesto_repro.sandbox.unpack import Entry
from pesto_repro.store import Store
from tests.images import make_layer, noise
from tests.sandbox_cells import engine, usr_cell

__all__ = ["engine"]  # a fixture


class Talk(Reporter):
    """Remembers what was said for those who ask for details."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def debug(self, message: str) -> None:
        self.said.append(message)


class Bench:
    """A store, and roots made of tars in it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.talk = Store(folder / "store"), Talk()
        self.roots = Roots(self.store, self.talk)
        self.content = StoreContent({}, self.store)

    def layer(self, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], lie: bool = False) -> Layer:
        """A layer in the store; with a *lie*, its diff_id is another's."""
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as archive:
            for each in members:
                info, content = each if isinstance(each, tuple) else (each, b"")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        tar = sink.getvalue()
        packed = gzip.compress(tar[:1000]) + gzip.compress(tar[1000:])
        digest = self.store.put(packed)
        diff_id = Digest.of(b"lie" if lie else tar)
        return Layer("", "", "", Descriptor(MediaType.LAYER_GZIP, digest, len(packed)), diff_id)

    def root(self, *layers: Layer) -> Path:
        return self.roots.root(layers, self.content)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with made.roots:
        yield made


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


def listed(root: Path) -> dict[str, str]:
    """Path -> content, link target or "/", without what every root is given."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return {name: text for name, text in found.items() if name not in ("etc", "etc/hosts", "etc/resolv.conf")}


def test_layers_of_every_compression_make_one_root(bench: Bench) -> None:
    """gzip in several members, zstd, none; our own layers' modes and bytes."""
    store = bench.store
    layers = [
        make_layer(store, "a", data("opt/a", noise(200_000)), compression="gzip"),
        make_layer(store, "b", data("opt/b", noise(90_000, 1)), compression="zstd"),
        make_layer(store, "c", data("usr/c", b"c"), compression="none"),
    ]
    root = bench.root(*layers, bench.layer((member("opt/d"), b"d" * 5000)))
    assert noise(200_000) == (root / "opt/a").read_bytes()
    assert noise(90_000, 1) == (root / "opt/b").read_bytes()
    assert (b"c", 0o644) == ((root / "usr/c").read_bytes(), stat.S_IMODE((root / "usr/c").stat().st_mode))
    assert b"d" * 5000 == (root / "opt/d").read_bytes()


def test_upper_layers_replace_and_hide(bench: Bench) -> None:
    """Whiteouts, opaque folders, files over folders and folders over files; a layer does not hide what is its own."""
    below = bench.layer(
        (member("keep"), b"1"),
        (member("gone"), b"1"),
        (member("tree/deep/file"), b"1"),
        (member("opaque/old"), b"1"),
        (member("was-file"), b"1"),
        (member("was-folder/x"), b"1"),
        (member("again"), b"1"),
    )
    above = bench.layer(
        member(".wh.gone"),
        member("tree/.wh.deep"),
        (member("opaque/new"), b"2"),
        member("opaque/.wh..wh..opq"),
        folder("was-file"),
        (member("was-folder"), b"2"),
        (member("again"), b"2"),
        member(".wh.again"),
        member(".wh.never-there"),
        member("none/.wh.never-there"),
    )
    expected = {
        "again": "2",
        "keep": "1",
        "opaque": "/",
        "opaque/new": "2",
        "tree": "/",
        "was-file": "/",
        "was-folder": "2",
    }
    assert expected == listed(bench.root(below, above))


def test_links_are_followed_inside_the_root_only(bench: Bench, tmp_path: Path) -> None:
    """A parent that is a link of a lower layer leads where it leads inside; nothing is written outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    below = bench.layer(
        folder("usr/lib"),
        link("lib", "usr/lib"),
        link("up", "../../.."),
        link("out", str(outside)),
        link("abs", "/usr"),
    )
    above = bench.layer(
        (member("lib/a"), b"a"), (member("up/b"), b"b"), (member("out/c"), b"c"), (member("abs/lib/d"), b"d")
    )
    root = bench.root(below, above)
    place = outside.relative_to("/").as_posix()
    found = listed(root)
    assert ("a", "b", "c", "d") == (found["usr/lib/a"], found["b"], found[f"{place}/c"], found["usr/lib/d"])
    assert [] == list(outside.iterdir())


def test_a_folder_takes_the_place_of_a_link(bench: Bench) -> None:
    """An entry of its own for the folder replaces the link, as engines do."""
    root = bench.root(
        bench.layer(folder("usr"), link("lib", "usr")), bench.layer(folder("lib"), (member("lib/a"), b"a"))
    )
    assert {"usr": "/", "lib": "/", "lib/a": "a"} == listed(root)


def test_hard_links(bench: Bench) -> None:
    """Two names of one file, in one layer and to a lower one; to a symlink too."""
    below = bench.layer((member("a"), b"1"), member("b", tarfile.LNKTYPE, "./a"), link("s", "a"))
    above = bench.layer(member("c", tarfile.LNKTYPE, "a"), member("t", tarfile.LNKTYPE, "/s"))
    root = bench.root(below, above)
    assert {"a": "1", "b": "1", "c": "1", "s": "-> a", "t": "-> a"} == listed(root)
    assert 1 == len({(root / name).stat().st_ino for name in "abc"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: member("../evil"), "a layer has the path '../evil', which leads out of it"),
        (lambda: member("a/../../evil"), "a layer has the path 'a/../../evil', which leads out of it"),
        (
            lambda: member("evil", tarfile.LNKTYPE, "../../etc/shadow"),
            "a layer has the path '../../etc/shadow', which leads out of it",
        ),
        (
            lambda: member("evil", tarfile.LNKTYPE, "/etc/shadow"),
            "/evil is a hard link to /etc/shadow, which is no file of the image",
        ),
        (lambda: member("file/below"), "/file/below leads through a file"),
        (lambda: member("loop/below"), "/loop leads through links that go in circles"),
        (lambda: folder("d/" * 2000), f"/{'d/' * 128} lies deeper than 256 folders"),
    ],
)
def test_what_no_layer_may_have(bench: Bench, make: Callable[[], tarfile.TarInfo], message: str) -> None:
    """Paths and links that lead out, and such as no file system has."""
    below = bench.layer(member("file"), link("loop", "loop"))
    with pytest.raises(BuildError) as caught:
        bench.root(below, bench.layer(make()))
    assert message == caught.value.message
    assert [] == list((bench.store.root / "roots").glob("*"))


def test_links_do_not_make_a_root_deeper(bench: Bench) -> None:
    """Each name is short enough, what they lead to is not; all that is allowed can be made, and removed."""
    deep, rest = "/".join("d" * 255), "/".join("e" * 100)
    below = bench.layer(folder(deep), link("down", deep))
    path = bench.root(below)
    assert (path / deep).is_dir()
    shutil.rmtree(path)
    with pytest.raises(BuildError) as caught:
        bench.root(below, bench.layer(folder(f"down/{rest}")))
    assert f"/down/{rest[:-2]} lies deeper than 256 folders" == caught.value.message


def test_what_an_ordinary_user_cannot_have(bench: Bench) -> None:
    """Setuid bits are dropped, devices and pipes left out and told of; we can read all, nobody else writes."""
    layer = bench.layer(
        member("su", mode=0o4755),
        member("secret", mode=0),
        member("open", mode=0o666),
        folder("closed", 0),
        member("closed/in"),
        folder("tmp", 0o1777),
        member("null", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    )
    root = bench.root(layer)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("su", "secret", "open", "closed", "tmp")}
    assert {"su": 0o755, "secret": 0o400, "open": 0o644, "closed": 0o700, "tmp": 0o1755} == modes
    assert not (root / "null").exists()
    assert not (root / "pipe").exists()
    note = "/{} is left out of the root file system: a device or a pipe"
    assert [note.format("null"), note.format("pipe")] == bench.talk.said


def test_every_root_has_hosts(bench: Bench) -> None:
    """localhost has an address; an image's own file stays."""
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
    bare, full = bench.layer(folder("usr")), bench.layer((member("etc/hosts"), b"own"))
    assert hosts == (bench.root(bare) / "etc/hosts").read_text()
    assert "own" == (bench.root(bare, full) / "etc/hosts").read_text()


def test_a_layer_that_is_another(bench: Bench) -> None:
    """A wrong diff_id: nothing is kept."""
    layer = bench.layer((member("a"), b"1"), lie=True)
    with pytest.raises(MismatchError, match="a layer has the diff_id"):
        bench.root(layer)
    assert [] == list((bench.store.root / "trees").iterdir())


def test_broken_layers(bench: Bench) -> None:
    """Bytes that are no gzip, or no tar, or of a type that is no layer: errors, not tracebacks."""
    for data_, kind in ((b"no gzip", MediaType.LAYER_GZIP), (b"no tar" * 100, MediaType.LAYER), (b"x", "text/plain")):
        digest = bench.store.put(data_)
        layer = Layer("", "", "", Descriptor(kind, digest, len(data_)), Digest.of(data_))
        with pytest.raises(PestoError):
            bench.root(layer)
    assert [] == list((bench.store.root / "trees").iterdir())


class Closed:
    """Content that must not be asked."""

    def document(self, descriptor: Descriptor) -> bytes:
        raise FetchError("asked")

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        raise FetchError("asked")


def test_roots_and_trees_are_made_once(bench: Bench) -> None:
    """A second time nothing is read; a root with one layer more shares the files of the others."""
    first, second = bench.layer((member("a"), b"1")), bench.layer((member("b"), b"2"))
    root = bench.root(first)
    assert root == bench.roots.root([first], Closed())
    bench.root(second)
    both = bench.roots.root([first, second], Closed())
    assert (root / "a").stat().st_ino == (both / "a").stat().st_ino


def test_where_hard_links_fail_files_are_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file system, or too many links."""

    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    root = bench.root(bench.layer((member("a", mode=0o755), b"1")))
    assert (1, 0o755) == ((root / "a").stat().st_nlink, stat.S_IMODE((root / "a").stat().st_mode))


def test_what_a_killed_process_left_is_removed(bench: Bench) -> None:
    """Unfinished folders go with the next use, but not those that somebody is at work on."""
    trees = bench.store.root / "trees"
    for name in (".left", ".busy"):
        (trees / name).mkdir(parents=True)
    handle = os.open(trees / ".busy", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    bench.root(bench.layer((member("a"), b"1")))
    os.close(handle)
    assert [".busy"] == [path.name for path in trees.glob(".*")]


def test_roots_in_use_are_locked(bench: Bench) -> None:
    """Whoever would delete them has to wait until they are closed."""
    bench.root(bench.layer((member("a"), b"1")))
    bench.store.release()
    for expected in (False, True):
        with bench.store.unused("trees") as actual:
            assert expected == actual
        bench.roots.close()


def test_several_at_once(bench: Bench) -> None:
    """Each with a store of its own, as processes have: all get the whole root, and nothing unfinished is left."""
    layers = [make_layer(bench.store, name, data(f"opt/{name}", noise(400_000))) for name in "abc"]

    def one(_: int) -> list[int]:
        store = Store(bench.store.root)
        with Roots(store, Reporter()) as roots:
            return [path.stat().st_size for path in (roots.root(layers, StoreContent({}, store)) / "opt").iterdir()]

    with ThreadPoolExecutor(4) as pool:
        assert [[400_000] * 3] * 4 == list(pool.map(one, range(4)))
    assert [] == [*(bench.store.root / "trees").glob(".*"), *(bench.store.root / "roots").glob(".*")]


def test_a_command_cannot_change_the_trees(bench: Bench, engine: Engine) -> None:
    """A root is hard links to what other roots use: it stays as it is, whatever runs in it, as whomever."""
    layer = bench.layer(
        *(folder(name) for name in ("usr", "var/tmp", "run")),
        *(link(name, f"usr/{name}") for name in ("bin", "lib", "lib64")),
        (member("opt/data", mode=0o666), b"data"),
        (member("etc/passwd"), b"root:x:0:0::/:/bin/sh\n"),
    )
    root = bench.root(layer)
    before = (listed(root), (root / "opt/data").stat())
    script = "cd /opt; echo x > data; chmod 600 data; rm -f data; mv data e; touch data; ln data /tmp"
    for user in ("root", "65532:65532"):
        done = run(usr_cell(root, user=user), ["sh", "-c", script], engine=engine)
        assert (5, 1) == (done.stderr.count(b"Read-only file system"), done.stderr.count(b"cross-device"))
    assert before == (listed(root), (root / "opt/data").stat())


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


def flat(node: Directory, prefix: str = "") -> Iterator[tuple[str, Node]]:
    for name, child in node.children.items():
        yield prefix + name, child
        if isinstance(child, Directory):
            yield from flat(child, f"{prefix}{name}/")


@given(st.lists(st.lists(PATHS, unique=True, max_size=5), max_size=4))
def test_the_uppermost_file_wins(layers: list[list[str]]) -> None:
    """Of folders' files with the same path the last layer's is there, and nothing that no layer has."""
    named = [
        (Path(str(number)), [Entry("file", f"{path}/file", 0o644, path) for path in paths])
        for number, paths in enumerate(layers)
    ]
    expected = {entry.path: File(folder / entry.value) for folder, entries in named for entry in entries}
    assert expected == {path: node for path, node in flat(merge(named)) if isinstance(node, File)}


@given(st.lists(PATHS, unique=True, min_size=1, max_size=6))
def test_a_whiteout_of_all_leaves_nothing(paths: list[str]) -> None:
    """What a layer brought, one above it can take away: by name, or by an opaque root."""
    below = (Path("0"), [Entry("directory", path, 0o755) for path in paths])
    tops = sorted({path.split("/")[0] for path in paths})
    for above in ([Entry("file", f".wh.{name}") for name in tops], [Entry("file", ".wh..wh..opq")]):
        assert {} == merge([below, (Path("1"), above)]).children


@given(st.lists(st.tuples(PATHS, st.sampled_from(["/", "..", "a", "/b/c", "../../a", "a/../.."])), max_size=5), PATHS)
def test_links_never_leave_the_root(links: list[tuple[str, str]], path: str) -> None:
    """However links point, merging ends, with an error or with a tree that has the file."""
    layers = [(Path("0"), [Entry("symlink", each, value=text)]) for each, text in links]
    try:
        root = merge([*layers, (Path("1"), [Entry("file", f"{path}/file", 0o644, "0")])])
    except BuildError:
        return
    found = [node for name, node in flat(root) if name.rpartition("/")[2] == "file"]
    assert [File(Path("1/0"))] == found
    assert all(isinstance(node, (File, Symlink, Directory)) for _, node in flat(root))
