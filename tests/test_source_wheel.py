"""Wheels as builds hand them over: judged as hostile, then in one canonical form."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import struct
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.tags import parse_tag

from pesto_repro.build.wheels import Place, installed
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.source import wheel as judges
from pesto_repro.source.again import differences
from pesto_repro.source.repack import File, repack
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.source.wheel import judge
from pesto_repro.store import Store

NOTHING = Digest.of(b"")
SOURCE = Unpacked("sdist", "a-1.0.tar.gz", NOTHING, 0, NOTHING, package="A", version="1")
NAME = "a-1.0-py3-none-any.whl"
INFO = "a-1.0.dist-info"
METADATA = (
    b"Metadata-Version: 2.1\nName: A\nVersion: 1.0\nRequires-Python: >=3.8\nRequires-Dist: b\nRequires-Dist: c>1\n"
)
WHEEL = b"Wheel-Version: 1.0\nGenerator: hand 7\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
TAGS = frozenset([*parse_tag("py3-none-any"), *parse_tag("cp313-cp313-linux_x86_64")])

Members = Mapping[str, bytes]


def zipped(
    files: Members, order: Sequence[str] = (), date: int = 2026, how: int = 8, executables: Sequence[str] = ()
) -> bytes:
    """A wheel's bytes, in the way of some packager or other."""
    everything = {f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL, f"{INFO}/RECORD": b"", **files}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in order or everything:
            info = zipfile.ZipInfo(path, (date, 2, 3, 4, 5, 6))
            info.compress_type = how
            info.external_attr = (stat.S_IFREG | (0o775 if path in executables else 0o660)) << 16
            archive.writestr(info, everything[path])
    return buffer.getvalue()


def repacked(data: bytes, store: Store, name: str = NAME) -> tuple[Digest, tuple[File, ...]]:
    digest, size, files = repack(judge(name, io.BytesIO(data), SOURCE, TAGS), store)
    assert size == store.size(digest)
    return digest, files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


PATHS = (
    st.lists(st.sampled_from("abcdé, \"'x"), min_size=1, max_size=3).map("".join).filter(lambda s: s.strip(" ") == s)
)


@settings(max_examples=25)
@given(
    files=st.dictionaries(
        st.tuples(PATHS, PATHS).map(lambda two: f"pkg{two[0]}/{two[1]}.py"), st.binary(max_size=50), max_size=5
    ),
    data=st.data(),
)
def test_equal_files_give_equal_wheels(files: dict[str, bytes], data: st.DataObject) -> None:
    """Order, times, compression, permissions of the owner: none of them is in the canonical form."""
    names = [*files, f"{INFO}/METADATA", f"{INFO}/WHEEL", f"{INFO}/RECORD"]
    order = data.draw(st.permutations(names))
    how = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        digest, _ = repacked(zipped(files), store)
        assert digest == repacked(zipped(files, order, 1999, how), store)[0]
        with store.open(digest) as stream:
            again = stream.read()
        assert digest == repacked(again, store)[0]
        with zipfile.ZipFile(io.BytesIO(again)) as archive:
            assert archive.testzip() is None
            assert files == {name: archive.read(name) for name in archive.namelist() if not name.startswith(INFO)}


def test_the_canonical_form(store: Store) -> None:
    """Sorted, stored, one time, two modes, metadata last, RECORD at the end; this digest is for ever."""
    files = {"z.py": b"Z = 1\n", "a/run": b"#!/bin/sh\n", "a/é,.txt": b"", "a-1.0.data/scripts/x": b"x"}
    digest, found = repacked(zipped(files, executables=["a/run"]), store)
    with store.open(digest) as stream:
        archive = zipfile.ZipFile(stream)
        infos = archive.infolist()
        record = archive.read(f"{INFO}/RECORD").decode()
        assert archive.read(f"{INFO}/WHEEL") == WHEEL
    names = [
        "a-1.0.data/scripts/x",
        "a/run",
        "a/é,.txt",
        "z.py",
        *(f"{INFO}/{each}" for each in ("METADATA", "WHEEL", "RECORD")),
    ]
    assert names == [info.filename for info in infos] == [each.path for each in found]
    assert {(1980, 1, 1, 0, 0, 0)} == {info.date_time for info in infos}
    assert {0} == {info.compress_type for info in infos}
    assert ["a/run"] == [info.filename for info in infos if info.external_attr >> 16 == 0o100755]
    assert {0o100755, 0o100644} == {info.external_attr >> 16 for info in infos}
    hashed = base64.urlsafe_b64encode(hashlib.sha256(b"Z = 1\n").digest()).rstrip(b"=").decode()
    assert f"z.py,sha256={hashed},6" in record.splitlines()
    assert '"a/é,.txt",sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0' in record.splitlines()
    assert f"{INFO}/RECORD,," == record.splitlines()[-1]
    assert str(digest) == "sha256:594b1390666d7c8a1d486c913862f9866cace9a45f558287ee88fc261fb5e141"


def test_what_an_installer_or_compiler_wrote_is_left_out(store: Store) -> None:
    """It would say where it was, or nobody vouches for it."""
    written = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s")
    more = {f"{INFO}/{name}": b"x" for name in written} | {"a/__pycache__/m.cpython-313.pyc": b"x", "old.pyc": b"x"}
    assert repacked(zipped({"a/m.py": b"", **more}), store)[0] == repacked(zipped({"a/m.py": b""}), store)[0]


def test_a_canonical_wheel_installs_like_the_original(store: Store) -> None:
    """The same files in the same places; only RECORD's order is another."""
    place = Place("site", "prefix", "/python")
    data = zipped({"a.py": b"A", "a-1.0.data/scripts/run": b"#!python\nx", f"{INFO}/entry_points.txt": b""})
    digest, _ = repacked(data, store)
    with ExitStack() as stack, store.open(digest) as stream:
        ours = {each.path: each.size for each in installed(NAME, stream, place, stack)}
        theirs = {each.path: each.size for each in installed(NAME, io.BytesIO(data), place, stack)}
    assert ours == theirs


def test_what_is_said_of_a_wheel(store: Store) -> None:
    """Its name in normal form, its requirements as they are."""
    found = judge(NAME, io.BytesIO(zipped({})), SOURCE, TAGS)
    assert (found.name, found.version, found.requires_dist, found.requires_python) == (
        "a",
        "1.0",
        ("b", "c>1"),
        ">=3.8",
    )


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("a-1.0-cp312-cp312-linux_x86_64.whl", {}, " has tags that the image's Python does not accept"),
        (NAME, {f"{INFO}/METADATA": b"Name: a\nVersion: x"}, " has the metadata of a x"),
        (NAME, {f"{INFO}/METADATA": b""}, " has the metadata of none None"),
        (
            NAME,
            {f"{INFO}/METADATA": METADATA + b"Requires-Dist: b >> 1\n"},
            " requires 'b >> 1', which is no requirement",
        ),
        (f"a-1.0-{'.'.join('abcd' * 100)}-none-any.whl", {}, "' is no name of a wheel"),
        (NAME, {"/x": b""}, "'/x' is not a relative path"),
        (NAME, {"a/../../x": b""}, "'a/../../x' leaves its directory"),
    ],
)
def test_wheels_that_lie_are_refused(name: str, files: Members, message: str, store: Store) -> None:
    """In their name, in their metadata, in their paths."""
    with pytest.raises(BuildError) as caught:
        repacked(zipped(files), store, name)
    assert message in caught.value.message


def test_missing_metadata_is_refused() -> None:
    """A wheel without WHEEL or METADATA is none."""
    for missing in ("WHEEL", "METADATA"):
        order = [f"{INFO}/{each}" for each in ("WHEEL", "METADATA", "RECORD") if each != missing]
        with pytest.raises(BuildError, match=rf"has no {INFO}/{missing}$"):
            judge(NAME, io.BytesIO(zipped({}, order)), SOURCE, TAGS)


def test_bombs_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files, too many bytes, too much metadata."""
    data = zipped({"zeros": bytes(1 << 16), **{f"{number}.py": b"" for number in range(20)}})
    for limit, value, message in (
        ("MAX_FILES", 10, "has 24 files, more than 10"),
        ("MAX_UNPACKED", (1 << 16) - 1, "more than 0 GiB when it is unpacked"),
        ("_MAX_TEXT", 10, "WHEEL is larger than 10 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(judges, limit, value)
            with pytest.raises(BuildError) as caught:
                judge(NAME, io.BytesIO(data), SOURCE, TAGS)
            assert message in caught.value.message


def test_a_member_that_is_more_than_it_declares_is_refused(store: Store) -> None:
    """What counts is what the directory says: reading stops there, and the CRC is wrong."""
    data = bytearray(zipped({"zeros": bytes(5000)}))
    at = data.rindex(b"PK\1\2")
    at = next(each for each in _directory(data) if data[each + 46 : each + 51] == b"zeros")
    struct.pack_into("<I", data, at + 24, 10)
    with pytest.raises(BuildError, match=r"is not a sound wheel: Bad CRC-32 for file 'zeros'"):
        repacked(bytes(data), store)


def test_a_member_that_is_less_than_it_declares_is_refused(store: Store) -> None:
    """Python's zipfile does not mind; what is written with that size would be no zip file."""
    data = bytearray(zipped({"zeros": bytes(5000)}))
    at = next(each for each in _directory(data) if data[each + 46 : each + 51] == b"zeros")
    struct.pack_into("<I", data, at + 24, 6000)
    message = r"is not a sound wheel: zeros has 5000 bytes, not the 6000 that it declares$"
    with pytest.raises(BuildError, match=message):
        repacked(bytes(data), store)


def _directory(data: bytes | bytearray) -> list[int]:
    """Where the entries of a zip's central directory begin."""
    return [at for at in range(len(data)) if data[at : at + 4] == b"PK\1\2"]


def test_differences_are_named(store: Store) -> None:
    """RECORD only if nothing else differs, for it always does."""
    one, _ = repacked(zipped({"a.py": b"1", "b.py": b"", "run": b""}), store)
    other, _ = repacked(zipped({"a.py": b"2", "c.py": b"", "run": b""}, executables=["run"]), store)
    assert differences(one, other, store) == (
        *("a.py differs", "b.py is missing the second time", "c.py is there the second time only", "run differs"),
    )
    assert differences(one, one, store) == ()
