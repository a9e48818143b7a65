"""Archives from outside: every form, in any order, gives the same entries; what would do harm is refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from pesto_repro.build import archive, tree
from pesto_repro.build.maker import Inputs
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.plan import Pinned, Step


@dataclass(frozen=True)
class Member:
    """One member to be put into an archive."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""


MEMBERS = (
    Member("model/", kind=tarfile.DIRTYPE, mode=0o700),
    Member("model/weights.bin", b"\0\1" * 50_000, mode=0o600),
    Member("model/run.sh", b"#!/bin/sh\n", mode=0o750),
    Member("model/latest", kind=tarfile.SYMTYPE, target="weights.bin", mode=0o777),
    Member("modèle/" + "n" * 120, b"long"),
)
FORMS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip", ".TAR.GZ", ".Zip")
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.xz": lzma.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def tarred(*members: Member) -> bytes:
    """A tar of them, with times and owners that must not matter."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as found:
        for number, each in enumerate(members):
            info = tarfile.TarInfo(each.name)
            info.mode, info.type, info.linkname, info.size = each.mode, each.kind, each.target, len(each.content)
            info.mtime, info.uid, info.uname = number, number, "somebody"
            found.addfile(info, io.BytesIO(each.content))
    return stream.getvalue()


def zipped(*members: Member) -> bytes:
    """The same as a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as found:
        for each in members:
            info = zipfile.ZipInfo(each.name, (1999, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            kinds = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.FIFOTYPE: stat.S_IFIFO}
            info.external_attr = (kinds.get(each.kind, stat.S_IFREG) | each.mode) << 16
            found.writestr(info, each.target.encode() if each.kind == tarfile.SYMTYPE else each.content)
    return stream.getvalue()


def packed(form: str, *members: Member) -> bytes:
    form = form.lower()
    return zipped(*members) if form == ".zip" else _PACKERS[form](tarred(*members))


@contextlib.contextmanager
def made(name: str, content: bytes, to: str = "opt/m") -> Iterator[Callable[[], bytes]]:
    """What makes the layer of the archive *content*."""
    with ExitStack() as stack:
        inputs = Inputs(lambda digest: io.BytesIO(content), io.BytesIO, stack)
        step = Step("archive", "my model", "resources", {"to": to}, (Pinned(name, Digest.of(content)),))

        def make() -> bytes:
            sink = io.BytesIO()
            write_tar(arrange(archive.entries(step, inputs)), sink)
            return sink.getvalue()

        yield make


def layer(name: str, content: bytes, to: str = "opt/m") -> bytes:
    with made(name, content, to) as make:
        return make()


def listed(content: bytes) -> list[tuple[str, str, int, str, bytes]]:
    """Name, kind, mode, target and content of all paths of a layer."""
    with tarfile.open(fileobj=io.BytesIO(content)) as found:
        return [(each.name, each.type.decode(), each.mode, each.linkname, _content(found, each)) for each in found]


def _content(found: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    stream = found.extractfile(info) if info.isfile() else None
    return stream.read() if stream else b""


def refusal(name: str, content: bytes) -> str:
    """The message with which an archive is refused."""
    with pytest.raises(BuildError) as caught:
        layer(name, content)
    return caught.value.message


# -- what is taken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_layer(form: str) -> None:
    """In any order, with repeated members, with "./" before every name; permissions are normalised."""
    names = [*MEMBERS[::-1], MEMBERS[1], Member("./")]
    dotted = [Member(f"./{each.name}", each.content, each.mode, each.kind, each.target) for each in MEMBERS]
    first = layer("m" + form, packed(form, *MEMBERS))
    assert [
        ("opt", "5", 0o755, "", b""),
        ("opt/m", "5", 0o755, "", b""),
        ("opt/m/model", "5", 0o755, "", b""),
        ("opt/m/model/latest", "2", 0o777, "weights.bin", b""),
        ("opt/m/model/run.sh", "0", 0o755, "", b"#!/bin/sh\n"),
        ("opt/m/model/weights.bin", "0", 0o644, "", b"\0\1" * 50_000),
        ("opt/m/modèle", "5", 0o755, "", b""),
        ("opt/m/modèle/" + "n" * 120, "0", 0o644, "", b"long"),
    ] == listed(first)
    assert layer("m.tar", tarred(*MEMBERS)) == first
    with pytest.warns(UserWarning, match="Duplicate name") if form.lower() == ".zip" else contextlib.nullcontext():
        assert first == layer("m" + form, packed(form, *names[:-1], Member("./", kind=tarfile.DIRTYPE)))
    assert first == layer("m" + form, packed(form, *dotted))


@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_an_archive_may_land_in_the_root(form: str) -> None:
    """``to`` is "" then."""
    assert ["a"] == [each[0] for each in listed(layer("m" + form, packed(form, Member("a", b"x")), to=""))]


@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_of_two_members_of_one_name_the_last_counts(form: str) -> None:
    """As it does for whoever unpacks."""
    with pytest.warns(UserWarning, match="Duplicate name") if form == ".zip" else contextlib.nullcontext():
        content = packed(form, Member("a", b"old"), Member("./a", b"middle"), Member("a", b"new", mode=0o755))
    assert [("a", "0", 0o755, "", b"new")] == listed(layer("m" + form, content, to=""))


def test_a_hard_link_becomes_a_file() -> None:
    """Also a link to a link, and with the executable bit of the file it names."""
    content = tarred(
        Member("a", b"content", mode=0o755),
        Member("b", kind=tarfile.LNKTYPE, target="a"),
        Member("c", kind=tarfile.LNKTYPE, target="b"),
    )
    assert [(name, "0", 0o755, "", b"content") for name in "abc"] == listed(layer("m.tar", content, to=""))


def test_an_empty_archive() -> None:
    """Nothing in, nothing out."""
    assert [] == listed(layer("m.tar", tarred()))
    assert [] == listed(layer("m.zip", zipped()))


def test_links_that_stay_inside() -> None:
    """Up and down again is fine, as long as it does not leave."""
    found = listed(layer("m.tar", tarred(Member("a/b", kind=tarfile.SYMTYPE, target="../c/./d")), to=""))
    assert ("a/b", "2", 0o777, "../c/./d", b"") in found


# -- what is refused ---------------------------------------------------------------------------------------------


def test_all_refused_members_are_listed() -> None:
    """At once, sorted, each with its reason; what is harmless is not named."""
    content = tarred(
        Member("fine"),
        Member("/etc/passwd"),
        Member("../up"),
        Member("a/../../up"),
        Member("device", kind=tarfile.CHRTYPE),
        Member("block", kind=tarfile.BLKTYPE),
        Member("pipe", kind=tarfile.FIFOTYPE),
        Member("suid", mode=0o4755),
        Member("sgid", mode=0o2755),
        Member("folder", mode=0o2755, kind=tarfile.DIRTYPE),
        Member("absolute", kind=tarfile.SYMTYPE, target="/etc"),
        Member("d/escaping", kind=tarfile.SYMTYPE, target="../../etc"),
        Member("d/inside", kind=tarfile.SYMTYPE, target="../etc"),
        Member("hard", kind=tarfile.LNKTYPE, target="/etc/shadow"),
        Member("later", kind=tarfile.LNKTYPE, target="last"),
        Member("self", kind=tarfile.LNKTYPE, target="self"),
        Member("hard-to-link", kind=tarfile.LNKTYPE, target="d/inside"),
        Member("last"),
    )
    assert (
        "m.tar has members that are refused:\n"
        "  '../up': leaves the folder it is unpacked into\n"
        "  '/etc/passwd': an absolute path\n"
        "  'a/../../up': leaves the folder it is unpacked into\n"
        "  'absolute': a link to the absolute path '/etc'\n"
        "  'block': a device, pipe or socket\n"
        "  'd/escaping': a link to '../../etc', outside the folder it is unpacked into\n"
        "  'device': a device, pipe or socket\n"
        "  'hard': a hard link to '/etc/shadow', which is no file before it\n"
        "  'hard-to-link': a hard link to 'd/inside', which is no file before it\n"
        "  'later': a hard link to 'last', which is no file before it\n"
        "  'pipe': a device, pipe or socket\n"
        "  'self': a hard link to 'self', which is no file before it\n"
        "  'sgid': has a set-user-ID or set-group-ID bit\n"
        "  'suid': has a set-user-ID or set-group-ID bit"
    ) == refusal("m.tar", content)


def test_all_refused_members_of_a_zip_are_listed() -> None:
    """Those that a tar may have, and those that only a zip has."""
    content = zipped(
        Member("fine"),
        Member("/etc/passwd"),
        Member("../up"),
        Member("dir\\file"),
        Member("C:\\windows"),
        Member("pipe", kind=tarfile.FIFOTYPE),
        Member("suid", mode=0o4755),
        Member("absolute", kind=tarfile.SYMTYPE, target="/etc"),
        Member("encrypted"),
        Member("strange"),
    )
    content = _patched(_patched(content, b"encrypted", flags=1), b"strange", method=97)
    assert (
        "m.zip has members that are refused:\n"
        "  '../up': leaves the folder it is unpacked into\n"
        "  '/etc/passwd': an absolute path\n"
        "  'C:\\\\windows': a backslash in its name\n"
        "  'absolute': a link to the absolute path '/etc'\n"
        "  'dir\\\\file': a backslash in its name\n"
        "  'encrypted': is encrypted\n"
        "  'pipe': a device, pipe or socket\n"
        "  'strange': compression method 97 is not known\n"
        "  'suid': has a set-user-ID or set-group-ID bit"
    ) == refusal("m.zip", content)


def _patched(content: bytes, name: bytes, flags: int | None = None, method: int | None = None) -> bytes:
    """The zip with other words in the central directory's entry of *name* (APPNOTE.TXT 4.3.12)."""
    start = content.rindex(name) - 46
    assert b"PK\1\2" == content[start : start + 4]
    found = bytearray(content)
    if flags is not None:
        found[start + 8 : start + 10] = flags.to_bytes(2, "little")
    if method is not None:
        found[start + 10 : start + 12] = method.to_bytes(2, "little")
    return bytes(found)


def test_links_that_leave_by_other_links_are_refused() -> None:
    """What a path looks like is not where it leads; nor does a circle lead anywhere."""
    content = tarred(
        Member("passwd", kind=tarfile.SYMTYPE, target="p/q/../../etc/passwd"),
        Member("p/q", kind=tarfile.SYMTYPE, target="."),
        Member("p/inside", kind=tarfile.SYMTYPE, target="q/q/passwd"),
        Member("round", kind=tarfile.SYMTYPE, target="about"),
        Member("about", kind=tarfile.SYMTYPE, target="round"),
    )
    assert (
        "m.tar has members that are refused:\n"
        "  'about': a link to 'round', by other links outside the folder or in a circle\n"
        "  'passwd': a link to 'p/q/../../etc/passwd', by other links outside the folder or in a circle\n"
        "  'round': a link to 'about', by other links outside the folder or in a circle"
    ) == refusal("m.tar", content)


def test_a_file_below_a_link_is_refused() -> None:
    """Whoever unpacks it would write where the link points."""
    content = tarred(Member("a", kind=tarfile.SYMTYPE, target="b"), Member("a/passwd"))
    assert (
        "these paths cannot be in one layer:\n  opt/m/a/passwd: my model: opt/m/a is a symlink, not a directory"
        == refusal("m.tar", content)
    )


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    """As an expected failure: image tools disagree on such names."""
    content = tarred(Member("caf\udce9"))
    assert (
        "these paths cannot be in one layer:\n"
        "  my model: 'opt/m/caf\\udce9' has a name or target that is not UTF-8" == refusal("m.tar", content)
    )


# -- what is broken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_archive(form: str, part: float) -> None:
    """Wherever it was cut: an expected failure that names the resource and the file."""
    content = packed(form, Member("large", bytes(range(256)) * 4000), Member("last", b"x"))
    cut = content[: int(len(content) * part)]
    assert refusal("m" + form, cut).startswith(f"m{form} cannot be unpacked: ")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_archive(form: str) -> None:
    """A page of HTML that a server sent instead, for one."""
    content = b"<!doctype html><p>Not found" * 100
    assert refusal("m" + form, content).startswith(f"m{form} cannot be unpacked: ")


def _with_version_needed(content: bytes, version: int) -> bytes:
    """The zip as if its first member needed *version* to be extracted (APPNOTE.TXT 4.4.3)."""
    start = content.index(b"PK\1\2")
    return content[: start + 6] + version.to_bytes(2, "little") + content[start + 8 :]


def test_a_zip_whose_parts_cannot_be_understood() -> None:
    """A name or a target that is not UTF-8, a version to come, an extra field that is cut, an odd tar size."""
    name = zipped(Member("é")).replace("é".encode(), b"\xe9\xe9")
    target = zipped(Member("link", kind=tarfile.SYMTYPE, target="\x00\x00"))
    assert "m.zip cannot be unpacked: 'utf-8' codec can't decode byte 0xe9 in position 0: " in refusal("m.zip", name)
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as found:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        found.writestr(link, b"\xff")
    assert "m.zip cannot be unpacked: 'utf-8' codec can't decode byte 0xff in position 0: " in refusal(
        "m.zip", stream.getvalue()
    )
    assert "m.zip cannot be unpacked: zip file version 9.9" == refusal("m.zip", _with_version_needed(target, 99))


def test_an_archive_that_ends_early_says_so() -> None:
    """The standard library raises an error without a word there."""
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as found:
        found.writestr("large", b"x" * 5000)
    content = stream.getvalue()
    start = content.index(b"PK\1\2")
    entry = bytearray(content[start:])
    for field in (20, 24):  # compressed and uncompressed size, beyond the end of the file
        entry[field : field + 4] = (1 << 20).to_bytes(4, "little")
    assert "m.zip cannot be unpacked: it ends too early" == refusal("m.zip", content[:start] + entry)


@pytest.mark.parametrize("form", [".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip"])
def test_a_flipped_bit(form: str) -> None:
    """Checksums of the archive's own are looked at, also of what is read late."""
    content = bytearray(packed(form, Member("large", bytes(range(256)) * 4000)))
    content[len(content) // 3] ^= 16
    assert refusal("m" + form, bytes(content)).startswith(f"m{form} ")


@pytest.mark.parametrize("form", [".tar", ".tar.gz", ".tar.zst", ".zip"])
def test_a_large_archive_does_not_take_memory(form: str, tmp_path: Path) -> None:
    """200 MB of zeros are unpacked with the memory of a small program."""
    path = tmp_path / f"m{form}"
    _write_large(path, 200 << 20)
    script = """
import resource, sys, tempfile
from contextlib import ExitStack
from pathlib import Path
from pesto_repro.build import archive
from pesto_repro.build.compress import LayerWriter
from pesto_repro.build.maker import Inputs
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.plan import Pinned, Step
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ExitStack() as stack, open("/dev/null", "wb") as sink:
    inputs = Inputs(lambda digest: path.open("rb"), lambda: tempfile.TemporaryFile(dir=path.parent), stack)
    step = Step("archive", "x", "x", {"to": "x"}, (Pinned(path.name, Digest.of(b"")),))
    writer = LayerWriter("zstd", sink)
    write_tar(arrange(archive.entries(step, inputs)), writer)
    writer.close()
print(writer.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    size, kibibytes = map(int, done.stdout.split())
    assert (200 << 20) < size
    assert kibibytes < 80 << 10


def _write_large(path: Path, size: int) -> None:
    """One member of zeros, without taking memory here."""
    with path.open("wb") as raw, ExitStack() as stack:
        if path.name.endswith(".zip"):
            found = stack.enter_context(zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED))
            member = stack.enter_context(found.open("large", "w"))
            for _ in range(size >> 20):
                member.write(bytes(1 << 20))
            return
        stream: object = raw
        if path.name.endswith(".gz"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1))
        if path.name.endswith(".zst"):
            stream = stack.enter_context(zstandard.ZstdCompressor().stream_writer(raw, closefd=False))
        tar = stack.enter_context(tarfile.open(fileobj=stream, mode="w|"))  # type: ignore[call-overload]
        info = tarfile.TarInfo("large")
        info.size = size
        with Path("/dev/zero").open("rb") as zeros:
            tar.addfile(info, zeros)


# -- trees and single files --------------------------------------------------------------------------------------


def _inputs(stack: ExitStack, *contents: bytes) -> Inputs:
    found = {Digest.of(each): each for each in contents}
    return Inputs(lambda digest: io.BytesIO(found[digest]), io.BytesIO, stack)


@pytest.mark.parametrize(("root", "prefix"), [("opt/hello", "opt/hello/"), ("", "")])
def test_a_tree(root: str, prefix: str) -> None:
    """Files with their executable bit, links with their target, at the root that the step says."""
    rows = [["a.py", Digest.of(b"a").hex, 1, False, None], ["bin/run", Digest.of(b"run").hex, 3, True, None]]
    step = Step("tree", "x", "algorithm", {"root": root, "files": [*rows, ["link", "", 0, False, "a.py"]]})
    with ExitStack() as stack:
        sink = io.BytesIO()
        write_tar(arrange(tree.entries(step, _inputs(stack, b"a", b"run"))), sink)
    assert [
        (f"{prefix}a.py", "0", 0o644, "", b"a"),
        (f"{prefix}bin", "5", 0o755, "", b""),
        (f"{prefix}bin/run", "0", 0o755, "", b"run"),
        (f"{prefix}link", "2", 0o777, "a.py", b""),
    ] == [each for each in listed(sink.getvalue()) if each[0] not in ("opt", "opt/hello")]


def test_an_empty_directory_of_a_tree() -> None:
    """Its path ends with a slash."""
    step = Step("tree", "x", "resources", {"root": "opt", "files": [["cache/today/", "", 0, False, None]]})
    with ExitStack() as stack:
        found = arrange(tree.entries(step, _inputs(stack)))
    assert [(path, "directory") for path in ("opt", "opt/cache", "opt/cache/today")] == [
        (each.path, each.kind) for each in found
    ]


@pytest.mark.parametrize(("root", "expected"), [("opt/data", ["opt", "opt/data"]), ("", [])])
def test_an_empty_tree(root: str, expected: list[str]) -> None:
    """The folder is there all the same."""
    with ExitStack() as stack:
        found = arrange(tree.entries(Step("tree", "x", "x", {"root": root, "files": []}), _inputs(stack)))
    assert expected == [each.path for each in found]


def test_a_single_file() -> None:
    """At its place, never executable."""
    step = Step("file", "weights", "resources", {"to": "opt/w.bin"}, (Pinned("w.bin", Digest.of(b"w")),))
    with ExitStack() as stack:
        sink = io.BytesIO()
        write_tar(arrange(tree.file_entries(step, _inputs(stack, b"w"))), sink)
    assert ("opt/w.bin", "0", 0o644, "", b"w") == listed(sink.getvalue())[-1]
