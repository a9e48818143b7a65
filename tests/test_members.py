"""What is deflated already is copied into a layer as a gzip member, and is the same layer all the same."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.build.compress import MEMBER, LayerWriter, decompressed
from pesto_repro.build.entry import Deflated, Entry, data
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.build.zipped import deflated
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError


def _noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def _zipped(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipFile:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(made)


def _entries(archive: zipfile.ZipFile) -> list[Entry]:
    return [
        replace(data(info.filename, archive.read(info)), deflated=deflated(archive, info))
        for info in archive.infolist()
    ]


def _layer(entries: list[Entry], *, copying: bool, compression: str = "gzip") -> tuple[Digest, bytes]:
    out = io.BytesIO()
    writer = LayerWriter(compression, out)
    write_tar(arrange(entries), writer, writer.copy if copying else lambda _: False)
    return writer.close(), out.getvalue()


@given(st.lists(st.integers(0, 3 * MEMBER), min_size=1, max_size=5), st.integers(0, 9))
def test_copying_makes_the_same_tar(sizes: list[int], seed: int) -> None:
    """The diff_id does not depend on who compressed what, and every reader gets the same bytes."""
    contents = {f"f{number}": _noise(size, seed) for number, size in enumerate(sizes)}
    with _zipped(contents) as archive:
        copied, blob = _layer(_entries(archive), copying=True)
        plain, other = _layer(_entries(archive), copying=False)
    assert plain == copied
    assert b"".join(decompressed([other], "gzip")) == b"".join(decompressed([blob], "gzip"))


def test_the_packager_s_stream_is_in_the_layer() -> None:
    """A large one as it is; a small one is compressed with its neighbours."""
    with _zipped({"large": _noise(2 * MEMBER), "small": _noise(MEMBER // 2)}) as archive:
        streams = {each.path: each.deflated.open().read() for each in _entries(archive) if each.deflated}
        _, blob = _layer(_entries(archive), copying=True)
    assert (True, False) == (streams["large"] in blob, streams["small"] in blob)


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_other_compressions_do_not_copy(compression: str) -> None:
    """A deflate stream is nothing to them."""
    with _zipped({"large": _noise(2 * MEMBER)}) as archive:
        one = _layer(_entries(archive), copying=True, compression=compression)
        assert _layer(_entries(archive), copying=False, compression=compression) == one


def test_what_is_stored_is_compressed() -> None:
    """There is no deflate stream to copy."""
    with _zipped({"large": _noise(2 * MEMBER)}, zipfile.ZIP_STORED) as archive:
        assert [None] == [each.deflated for each in _entries(archive)]


@pytest.mark.parametrize("lie", [{"crc": 1}, {"length": 5}, {"size": 2 * MEMBER - 7}])
def test_a_stream_that_is_not_what_its_archive_says(lie: dict[str, int]) -> None:
    """CRC, length and end are checked before the layer is anybody's."""
    with _zipped({"large": _noise(2 * MEMBER)}) as archive:
        (entry,) = _entries(archive)
        told = entry.deflated
        assert told is not None
        size = lie.get("size", told.size)
        cut = Deflated(
            lambda: io.BytesIO(told.open().read()[:size]),
            size,
            lie.get("length", told.length),
            lie.get("crc", told.crc),
        )
        writer = LayerWriter("gzip", io.BytesIO())
        with pytest.raises(BuildError) as caught:
            writer.copy(cut)
    assert "a deflated file is not what its archive says: the archive is broken" == caught.value.message


def test_a_stream_that_is_no_deflate_stream() -> None:
    """The message says so, without a traceback."""
    writer = LayerWriter("gzip", io.BytesIO())
    with pytest.raises(BuildError, match=r"^a deflated file is broken: "):
        writer.copy(Deflated(lambda: io.BytesIO(b"\xff" * 2 * MEMBER), 2 * MEMBER, 1, 1))


def test_a_header_that_is_cut_off() -> None:
    """The central directory may point anywhere."""
    with _zipped({"large": _noise(2 * MEMBER)}) as archive:
        (info,) = archive.infolist()
        told = deflated(archive, info)
        info.header_offset = 1 << 30
        assert told is not None
        with pytest.raises(BuildError) as caught:
            told.open()
    assert "a local header is cut off: the archive is broken" == caught.value.message


def test_golden_members() -> None:
    """These bytes are a promise, too: member, copied member, member."""
    stream = b"\x01" + (40000).to_bytes(2, "little") + (65535 - 40000).to_bytes(2, "little") + _noise(40000)
    content = _noise(40000)
    told = Deflated(lambda: io.BytesIO(stream), len(stream), len(content), zlib.crc32(content))
    entries = [data("a", b"a"), Entry("b", "file", 0o644, len(content), deflated=told), data("c", b"c" * 10000)]
    diff_id, blob = _layer(entries, copying=True)
    assert "sha256:396de9c22d71b4e385b97fc17b36e0a2bb91c84f2166dfe360978207c27d110e" == str(diff_id)
    assert "sha256:dbea708248dfba33ce68af60d2fc2d384acbdc79c914cedbe24d38645ee9770f" == str(Digest.of(blob))
