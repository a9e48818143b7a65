"""Reading .debs, and the layer that they become."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.build import debs
from pesto_repro.build.deb import Deb, read
from pesto_repro.build.entry import Entry
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.errors import BuildError
from pesto_repro.store import Store
from tests.debian_archive import Item, ar, content, deb, folder, hard, inputs, link, step, tar


def opened(data: bytes, label: str = "a.deb") -> Deb:
    return read(BytesIO(data), label, BytesIO())


def layer(tmp_path: Path, packages: dict[str, bytes]) -> dict[str, tarfile.TarInfo]:
    """The headers of the layer that *packages* become, in its order."""
    store, sink = Store(tmp_path), BytesIO()
    with inputs(store) as given_inputs:
        write_tar(arrange(debs.entries(step("debs", store, packages), given_inputs)), sink)
    with tarfile.open(fileobj=BytesIO(sink.getvalue())) as archive:
        return {info.name: info for info in archive}


def package_entries(members: Iterable[Item]) -> dict[str, Entry]:
    return {each.path: each for each in debs.package_entries(opened(deb("a", members)))}


@pytest.mark.parametrize("packed", ["", ".gz", ".xz", ".zst"])
def test_a_package_is_read_however_it_is_packed(packed: str) -> None:
    """Fields, scripts, paths and contents; a content can be opened again and again, and from its middle."""
    members = [
        folder("./"),
        folder("./usr/", gid=8),
        content("./usr/a", b"one", 0o4755),
        content("./usr/b", b"two"),
    ]
    found = opened(deb("a", members, scripts={"postinst": b"#!/bin/sh\n"}, packed=packed, depends="libc6"))
    assert ("a", "libc6", b"#!/bin/sh\n") == (found.name, found.fields["depends"], found.control["postinst"])
    assert [("usr", "directory", 0o755, 8), ("usr/a", "file", 0o4755, 0), ("usr/b", "file", 0o644, 0)] == [
        (each.path, each.kind, each.mode, each.gid) for each in found.members
    ]
    two = found.members[2]
    assert [b"two", b"two"] == [two.read(), two.read()]
    with closing(two.open()) as stream:
        stream.seek(1)
        assert b"wo" == stream.read()


def test_only_what_is_wanted_is_kept() -> None:
    """The rest is listed, but its bytes go nowhere."""
    scratch = BytesIO()
    data = deb("a", [content("./big", b"x" * 9999), content("./small", b"small")])
    found = read(BytesIO(data), "a.deb", scratch, lambda path: path == "small")
    assert (["big", "small"], b"small") == ([each.path for each in found.members], scratch.getvalue())


def test_several_packages_share_a_scratch_file() -> None:
    scratch = BytesIO()
    found = [read(BytesIO(deb(name, [content(name, name.encode())])), name, scratch) for name in ("a", "b")]
    assert [b"a", b"b", b"a"] == [found[n].members[0].read() for n in (0, 1, 0)]


WHOLE = deb("a", [content("./a", b"x" * 4000)], packed=".gz").rstrip(b"\n")  # the last byte may be mere padding


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no ar archive"),
        (b"PK\3\4", "it is no ar archive"),
        (ar({}), "its format version is '', not 2.0"),
        (ar({"debian-binary": b"3.0\n"}), "its format version is '3.0', not 2.0"),
        (ar({"debian-binary": b"2.0\n"}), "it has no control.tar packed as gz, xz or zst"),
        (ar({"debian-binary": b"2.0\n", "control.tar": tar([])}), "it has no control file"),
        (
            ar(
                {
                    "debian-binary": b"2.0\n",
                    "control.tar": tar([content("control", b"Package: a\n")]),
                    "data.tar": tar([]),
                }
            ),
            "its control file lacks Package, Version or Architecture",
        ),
        (
            ar({"debian-binary": b"2.0\n", "control.tar": tar([content("control", b"Package: a\n")])}),
            "it has no data.tar packed as gz, xz or zst",
        ),
        (WHOLE[:100], "a header of its ar archive is broken"),
    ],
)
def test_what_is_no_package_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(BuildError) as caught:
        opened(data, "broken.deb")
    assert f"broken.deb is not a Debian package that can be read: {reason}" == caught.value.message


@given(st.integers(0, len(WHOLE) - 1))
def test_a_package_cut_off_anywhere_is_refused(length: int) -> None:
    """Never another exception, never half a package."""
    with pytest.raises(BuildError, match=r"^cut\.deb is not a Debian package that can be read: "):
        opened(WHOLE[:length], "cut.deb")


def test_a_wrong_checksum_is_refused() -> None:
    """Also where it stands behind all that is of interest: gzip's CRC, RFC 1952 2.3.1."""
    with pytest.raises(BuildError, match=r"^bad\.deb is not a Debian package that can be read: CRC check failed"):
        opened(WHOLE[:-8] + bytes(byte ^ 1 for byte in WHOLE[-8:-4]) + WHOLE[-4:], "bad.deb")


def test_paths_land_in_the_merged_usr() -> None:
    """Folders and files of /lib and the like move; the links that a package ships for them stay links."""
    found = package_entries(
        [
            folder("./bin/"),
            content("./bin/x", b"", 0o755),
            folder("./lib64/"),
            link("./lib64/ld.so", "/lib/ld.so"),
            folder("./library/"),
            folder("./var/lock/", 0o1777),
            link("./sbin", "usr/sbin"),
        ]
    )
    assert {
        "usr/bin": ("directory", ""),
        "usr/bin/x": ("file", ""),
        "usr/lib64": ("directory", ""),
        "usr/lib64/ld.so": ("symlink", "/lib/ld.so"),
        "library": ("directory", ""),
        "run/lock": ("directory", ""),
        "sbin": ("symlink", "usr/sbin"),
        "var/lib/dpkg/status.d/a": ("file", ""),
    } == {path: (each.kind, each.target) for path, each in found.items()}
    assert 0o1777 == found["run/lock"].mode


def test_the_first_name_of_a_hardlinked_file_has_the_content(tmp_path: Path) -> None:
    """By path parts, whichever name the package wrote first; across the merged /usr, and through chains."""
    members = [
        content("./usr/bin/z", b"content"),
        hard("./bin/a", "./usr/bin/z"),
        hard("./usr/bin/m", "./bin/a"),
    ]
    found = layer(tmp_path, {"a.deb": deb("a", members)})
    assert [("usr/bin/a", 7, ""), ("usr/bin/m", 0, "usr/bin/a"), ("usr/bin/z", 0, "usr/bin/a")] == [
        (name, info.size, info.linkname) for name, info in found.items() if name.startswith("usr/bin/")
    ]


def test_scanners_find_the_packages(tmp_path: Path) -> None:
    """As in distroless images: a control paragraph and the checksums for each."""
    found = layer(tmp_path, {"a.deb": deb("a", scripts={"md5sums": b"0  x\n"}), "b.deb": deb("b")})
    status = "var/lib/dpkg/status.d"
    assert [f"{status}/a", f"{status}/a.md5sums", f"{status}/b"] == [
        name for name, info in found.items() if info.isfile()
    ]


def test_modes_and_owners_are_the_packages(tmp_path: Path) -> None:
    members = [folder("./var/mail/", 0o2775, gid=8), Item("./usr/bin/su", b"x", mode=0o4755, uid=0, gid=0)]
    found = layer(tmp_path, {"a.deb": deb("a", members)})
    assert (0o2775, 8, 0o4755) == (found["var/mail"].mode, found["var/mail"].gid, found["usr/bin/su"].mode)


def test_what_cannot_be_in_an_image_is_refused_all_at_once(tmp_path: Path) -> None:
    """Devices, paths that escape, links to what is not there: of all packages of the step."""
    one = [
        Item("./dev/null", kind=tarfile.CHRTYPE),
        Item("./pipe", kind=tarfile.FIFOTYPE),
        content("../../a", b""),
    ]
    two = [content("/etc/x", b""), hard("./b", "./nowhere"), content("./a/../../b", b"")]
    with pytest.raises(BuildError) as caught:
        layer(tmp_path, {"one.deb": deb("one", one), "two.deb": deb("two", two)})
    assert [
        "Debian packages bring what cannot be in an image:",
        "  one.deb: '../../a' is not a path below the root",
        "  one.deb: 'dev/null' is a device, a pipe or something else that is no file",
        "  one.deb: 'pipe' is a device, a pipe or something else that is no file",
        "  two.deb: '/etc/x' is not a path below the root",
        "  two.deb: 'a/../../b' is not a path below the root",
        "  two.deb: 'b' is a hard link to 'nowhere', which does not stand before it",
    ] == caught.value.message.splitlines()


def test_the_order_of_packages_does_not_matter(tmp_path: Path) -> None:
    """Equal packages give an equal layer."""
    packages = {f"{name}.deb": deb(name, [folder("./usr/"), content(f"./usr/{name}", b"x")]) for name in "abc"}
    store, results = Store(tmp_path), []
    for order in (packages, dict(reversed(packages.items()))):
        sink = BytesIO()
        with inputs(store) as given_inputs:
            write_tar(arrange(debs.entries(step("debs", store, order), given_inputs)), sink)
        results.append(sink.getvalue())
    assert results[0] == results[1]
