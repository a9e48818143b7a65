"""Reading layers that nobody unpacks: what a container would see of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.digest import Digest
from pesto_repro.resolve.base_scan import Listing, Node, Root, remembered, scan
from pesto_repro.store import Store

MUSL = b"\0musl libc (x86_64)\nVersion %s\n\x001.2.5\0"


def member(name: str, **values: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


def directory(name: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.DIRTYPE)


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def layer(*members: tarfile.TarInfo | tuple[str, bytes]) -> Listing:
    """What is kept of a layer of *members*, as others write tars."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
            else:
                archive.addfile(member(each[0], size=len(each[1])), io.BytesIO(each[1]))
    buffer.seek(0)
    return scan(buffer)


def python(version: str, path: str = "./usr/bin/python3.11") -> tuple[str, bytes]:
    return path, b"/lib64/ld-linux-x86-64.so.2\0" + bytes(1 << 20) + f"Python-{version}\0".encode()


def test_a_later_layer_wins() -> None:
    """The interpreter is the one on top."""
    root = Root([layer(python("3.11.2")), layer(python("3.11.9", "usr/bin/python3.11"))])
    node = root.find("/usr/bin/python3.11")
    assert node is not None
    assert ("3.11.9", "/lib64/ld-linux-x86-64.so.2") == (node.fact("version"), node.fact("loader"))


@pytest.mark.parametrize(
    "above",
    [
        [member("usr/bin/.wh.python3.11")],
        [member("usr/.wh.bin")],
        [member(".wh.usr")],
        [member("usr/bin/.wh..wh..opq")],
        [member(".wh..wh..opq")],
        [link("usr/bin", "elsewhere")],
        [link("usr", "nowhere")],
        [link("usr/bin/python3.11", "gone")],
    ],
)
def test_what_a_layer_hides_is_gone(above: list[Any]) -> None:
    """layer.md, "Whiteouts": a path, a folder with all in it, all in a folder; or something else in its place."""
    assert Root([layer(python("3.11.2")), layer(*above)]).find("usr/bin/python3.11") is None


def test_whiteouts_hide_only_what_lies_below() -> None:
    """layer.md: "Whiteout files MUST only apply to resources in lower/parent layers", wherever they stand."""
    above = layer(python("3.11.9"), member("usr/bin/.wh..wh..opq"), member("usr/bin/.wh.python3.11"))
    node = Root([layer(python("3.11.2")), above]).find("usr/bin/python3.11")
    assert node is not None
    assert "3.11.9" == node.fact("version")


def test_a_directory_takes_the_place_of_a_link() -> None:
    """A folder in a later layer is a folder."""
    root = Root([layer(link("lib", "usr/lib")), layer(directory("./lib/"))])
    assert {} == root.links()


def test_links_are_followed_as_a_kernel_would() -> None:
    """Absolute, relative, upwards, chained, through folders; circles end."""
    root = Root(
        [
            layer(
                link("bin", "usr/bin"),
                link("usr/bin/python3", "/etc/alternatives/python"),
                link("etc/alternatives/python", "../../bin/python3.11"),
                link("a", "b"),
                link("b", "a"),
                python("3.11.2"),
            )
        ]
    )
    assert "usr/bin/python3.11" == root.real("/bin/python3")
    assert root.find("/bin/../bin/python3") is not None
    assert root.find("a/python3") is None
    assert "usr/bin" == root.links()["bin"]


def test_a_hard_link_is_what_it_links_to() -> None:
    """Official images have python3.11 and python3 as two names of one file."""
    root = Root([layer(python("3.11.7"), hardlink("./usr/bin/python3", "./usr/bin/python3.11"))])
    node = root.find("usr/bin/python3")
    assert node is not None
    assert "3.11.7" == node.fact("version")


@pytest.mark.parametrize(
    ("path", "content", "version"),
    [
        ("lib/x86_64-linux-gnu/libc.so.6", b"GNU C Library (X) stable release version 2.41.\nCopy", "2.41"),
        ("lib/libc-2.31.so", b"release version 2.30 stable release version 2.31.", "2.31"),
        ("lib/ld-musl-x86_64.so.1", MUSL, "1.2.5"),
        ("usr/local/lib/libpython3.12.so.1.0", b"x3.12.1\x003.12.13\0 3.12.14 ", "3.12.13"),
        ("usr/include/python3.10/patchlevel.h", b'#define PY_VERSION      \t"3.10.4+"\n', "3.10.4"),
        ("usr/bin/python3", b"\x003.13.0rc2\0", "3.13.0rc2"),
    ],
)
def test_versions_are_read_in_files(path: str, content: bytes, version: str) -> None:
    """Wherever in the file they lie, also across the pieces in which it is read."""
    for before in (0, (1 << 20) - 5, (1 << 20) - 40):
        (node,) = [each for each in layer((path, bytes(before) + content)).nodes if each.kind == "file"]
        assert version in dict.fromkeys(value for _, value in node.facts)


def test_names_that_leave_the_root_or_are_no_text() -> None:
    """Others' tars may say anything; nothing of it is more than a name."""
    found = layer(("../../usr/bin/python3", b""), ("/usr/bin/python", b""), link("usr/b\udcff", "x\udcff"))
    assert ["usr/bin/python3", "usr/bin/python", "usr/b?"] == [each.path for each in found.nodes]


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    """A layer is read once on a machine, whichever image it is a layer of."""
    store, digest = Store(tmp_path), Digest.of(b"layer")
    found = layer(python("3.11.2"), link("lib", "usr/lib"), member("a/.wh.b"), member("c/.wh..wh..opq"))
    assert found == remembered(digest, store, lambda: found)
    assert found == remembered(digest, store, lambda: Listing((Node("never", "file"),)))
    assert found == Listing.parse(found.document())
