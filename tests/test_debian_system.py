"""What maintainer scripts would have made: each file, and the loader's cache."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cmp_to_key
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.build import debian_alternatives, debian_system, ldcache
from pesto_repro.build.debian_alternatives import Alternative
from pesto_repro.build.debian_certificates import link_name
from pesto_repro.build.entry import Entry
from pesto_repro.build.maker import Inputs
from pesto_repro.build.realise import maker
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step
from pesto_repro.store import Store
from tests.debian_archive import content, deb, folder, inputs, link, step


def elf(soname: str = "", machine: int = 62) -> bytes:
    """A little-endian ELF-64 library that has nothing but a dynamic section (and says its *soname* there)."""
    strings = b"\0" + soname.encode() + b"\0"
    dynamic = b"".join(struct.pack("<qQ", *pair) for pair in [(5, 0x1000 + 176 + 48), (14, 1 if soname else 0), (0, 0)])
    if not soname:
        dynamic = struct.pack("<qQ", 0, 0) * 3
    total = 176 + len(dynamic) + len(strings)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0, total, total, 4096)
    segment = struct.pack("<IIQQQQQQ", 2, 4, 176, 0x1000 + 176, 0, len(dynamic), len(dynamic), 8)
    return header + load + segment + dynamic + strings


def cached(data: bytes) -> list[tuple[int, str, str]]:
    """The (flags, soname, path) entries of a cache, in its order."""
    magic, count, _, endianness = struct.unpack_from("<20sIIB", data)
    assert (b"glibc-ld.so.cache1.1", 2) == (magic, endianness)

    def text(offset: int) -> str:
        return data[offset : data.index(b"\0", offset)].decode()

    entries = [struct.unpack_from("<iIIIQ", data, 48 + 24 * number) for number in range(count)]
    return [(flags, text(key), text(value)) for flags, key, value, _, _ in entries]


def system(tmp_path: Path, packages: Mapping[str, bytes], architecture: str = "amd64") -> dict[str, Entry]:
    """The entries for a base of *packages*; contents are read while they can be."""
    store = Store(tmp_path)
    with inputs(store) as given_inputs:
        made = list(
            debian_system.entries(step("debian-system", store, packages, architecture=architecture), given_inputs)
        )
        write_tar(arrange(made), BytesIO())
    return {each.path: each for each in made}


def text(entries: Mapping[str, Entry], path: str) -> str:
    opener = entries[path].open
    assert opener is not None
    return opener().read().decode()


BASE_FILES = deb(
    "base-files", [folder("./usr/share/base-files/"), content("./usr/share/base-files/profile", b"PS1=x\n")]
)
BASE_PASSWD = deb(
    "base-passwd",
    [
        content("./usr/share/base-passwd/passwd.master", b"root:*:0:0:root:/root:/bin/bash\n"),
        content("./usr/share/base-passwd/group.master", b"root:*:0:\n"),
    ],
)


def test_accounts_and_first_configurations(tmp_path: Path) -> None:
    """Debian's accounts and one that is not root; what postinst copies."""
    found = system(tmp_path, {"base-files.deb": BASE_FILES, "base-passwd.deb": BASE_PASSWD})
    nonroot = "nonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin\n"
    assert f"root:*:0:0:root:/root:/bin/bash\n{nonroot}" == text(found, "etc/passwd")
    assert "root:*:0:\nnonroot:x:65532:\n" == text(found, "etc/group")
    home = found["home/nonroot"]
    assert (0o700, 65532, 65532) == (home.mode, home.uid, home.gid)
    assert "PS1=x\n" == text(found, "etc/profile")
    assert (0o1777, 0o1777, 0o700) == tuple(found[path].mode for path in ("tmp", "var/tmp", "root"))
    assert {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/localtime", "etc/shadow"}.isdisjoint(found)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("amd64", ["bin", "lib", "lib64", "sbin"]), ("arm64", ["bin", "lib", "sbin"])],
)
def test_the_links_of_the_merged_usr(tmp_path: Path, architecture: str, expected: list[str]) -> None:
    found = system(tmp_path, {}, architecture)
    assert {name: f"usr/{name}" for name in expected} == {
        path: each.target for path, each in found.items() if "/" not in path and each.kind == "symlink"
    }


def test_what_lies_on_the_shelf_is_what_is_in_the_packages(tmp_path: Path) -> None:
    """Put there by whoever unpacks a package; then the package is not opened again."""
    packages = {
        "base-files.deb": BASE_FILES,
        "base-passwd.deb": BASE_PASSWD,
        "liba.deb": deb("liba", [content("./usr/lib/liba.so.1.0", elf("liba.so.1")), content("./etc/motd", b"")]),
    }
    store = Store(tmp_path)
    shelf: dict[tuple[str, Digest], str] = {}

    class Memory:
        def find(self, kind: str, digest: Digest) -> str | None:
            return shelf.get((kind, digest))

        def put(self, kind: str, digest: Digest, text: str) -> None:
            shelf[kind, digest] = text

    def tar(opened: Callable[[Digest], BinaryIO], given: Step) -> bytes:
        sink = BytesIO()
        with ExitStack() as stack:
            made = maker(given.kind)(given, Inputs(opened, store.scratch, stack, Memory()))
            write_tar(arrange(made), sink)
        return sink.getvalue()

    system_step = step("debian-system", store, packages, architecture="amd64")
    expected = tar(store.open, system_step)
    shelf.clear()
    tar(store.open, step("debs", store, packages))
    assert 3 == len(shelf)
    assert expected == tar(lambda digest: pytest.fail(f"{digest} was opened"), system_step)


def test_a_foreign_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        system(tmp_path, {}, "m68k")
    assert ("no Debian base can be made for m68k", "use one of amd64, arm64") == (
        caught.value.message,
        caught.value.hint,
    )


def test_lib32_is_linked_where_something_lies_in_it(tmp_path: Path) -> None:
    found = system(tmp_path, {"a.deb": deb("a", [folder("./usr/lib32/")])})
    assert "usr/lib32" == found["lib32"].target


def test_the_time_zone_is_utc(tmp_path: Path) -> None:
    found = system(tmp_path, {"tzdata.deb": deb("tzdata", [content("./usr/share/zoneinfo/Etc/UTC", b"TZif")])})
    assert ("/usr/share/zoneinfo/Etc/UTC", "Etc/UTC\n") == (
        found["etc/localtime"].target,
        text(found, "etc/timezone"),
    )


def test_python3_is_there_though_no_package_brings_it(tmp_path: Path) -> None:
    """And where one does, it stays that one's."""
    minimal = deb("python3.13-minimal", [content("./usr/bin/python3.13", b"", 0o755)])
    default = deb("python3-minimal", [link("./usr/bin/python3", "python3.13")])
    assert "python3.13" == system(tmp_path, {"minimal.deb": minimal})["usr/bin/python3"].target
    assert "usr/bin/python3" not in system(tmp_path, {"minimal.deb": minimal, "default.deb": default})


POSTINST = b"""\
#!/bin/sh
# update-alternatives --install /usr/bin/no no /usr/bin/comment 1
if [ "$1" = configure ]; then
    update-alternatives --quiet --install /usr/bin/awk awk /usr/bin/mawk 5 \\
        --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \\
        --slave /usr/bin/nawk nawk /usr/bin/mawk || true
    update-alternatives --install "/usr/bin/$name" $name /usr/bin/x 10
    update-alternatives --remove awk /usr/bin/old
fi
"""


def test_alternatives_are_linked_as_update_alternatives_does(tmp_path: Path) -> None:
    """The highest priority; slaves whose file is there; the text that dpkg's own tool would leave."""
    mawk = deb("mawk", [content("./usr/bin/mawk", b"", 0o755)], scripts={"postinst": POSTINST})
    gawk = deb(
        "gawk",
        scripts={"postinst": b"update-alternatives --install /bin/awk awk /usr/bin/gawk 10; echo done\n"},
    )
    only = system(tmp_path, {"mawk.deb": mawk})
    assert {
        "etc/alternatives/awk": "/usr/bin/mawk",
        "etc/alternatives/nawk": "/usr/bin/mawk",
        "usr/bin/awk": "/etc/alternatives/awk",
        "usr/bin/nawk": "/etc/alternatives/nawk",
    } == {path: each.target for path, each in only.items() if "alternatives" in path + each.target and each.target}
    both = system(tmp_path, {"gawk.deb": gawk, "mawk.deb": mawk})
    assert "/usr/bin/gawk" == both["etc/alternatives/awk"].target
    assert [
        *["auto", "/usr/bin/awk", "awk.1.gz", "/usr/share/man/man1/awk.1.gz", "nawk", "/usr/bin/nawk", ""],
        *["/usr/bin/gawk", "10", "", ""],
        *["/usr/bin/mawk", "5", "/usr/share/man/man1/mawk.1.gz", "/usr/bin/mawk", ""],
    ] == text(both, "var/lib/dpkg/alternatives/awk").splitlines()


def test_of_equal_priorities_the_first_path_wins() -> None:
    choices = [Alternative("/usr/bin/x", "x", f"/usr/bin/{name}", 5) for name in "ba"]
    found = {each.path: each.target for each in debian_alternatives.entries(choices, ())}
    assert "/usr/bin/a" == found["etc/alternatives/x"]


def test_certificate_names_are_those_of_update_ca_certificates() -> None:
    assert "Foo_=Bar=__Baz.pem" == link_name("mozilla/Foo (Bar), Baz.crt")


def test_the_cache_lists_what_ldconfig_would(tmp_path: Path) -> None:
    """Sonames, files without one, links for ld(1), alternatives; not other machines', scripts or folders."""
    place = "./usr/lib/x86_64-linux-gnu"
    libraries = deb(
        "libs",
        [
            content("./etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n"),
            content(
                "./etc/ld.so.conf.d/a.conf",
                b"# Multiarch\n/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n",
            ),
            content(f"{place}/libz.so.1.3", elf("libz.so.1")),
            link(f"{place}/libz.so.1", "libz.so.1.3"),
            link(f"{place}/libz.so", "libz.so.1"),
            content(f"{place}/libplain.so", elf()),
            content(f"{place}/libother.so.1", elf("libother.so.1", machine=183)),
            content(f"{place}/libc.so", b"/* GNU ld script */ INPUT(x)\n"),
            content(f"{place}/plugin.so", elf("plugin.so")),
            content(f"{place}/deep/libdeep.so.1", elf("libdeep.so.1")),
            content(f"{place}/blas/libblas.so.3", elf("libblas.so.3")),
            content("./lib/libroot.so.2", elf("libroot.so.2")),
        ],
        scripts={
            "postinst": b"update-alternatives --install /usr/lib/x86_64-linux-gnu/libblas.so.3 libblas.so.3"
            b" /usr/lib/x86_64-linux-gnu/blas/libblas.so.3 10\n"
        },
    )
    store = Store(tmp_path)
    with inputs(store) as given_inputs:
        made = debian_system.entries(
            step("debian-system", store, {"a.deb": libraries}, architecture="amd64"), given_inputs
        )
        data = next(each for each in made if each.path == "etc/ld.so.cache").open
        assert data is not None
        found = cached(data().read())
    multiarch = "/lib/x86_64-linux-gnu"
    assert [
        (0x303, "libz.so.1", f"{multiarch}/libz.so.1"),
        (0x303, "libz.so", f"{multiarch}/libz.so"),
        (0x303, "libroot.so.2", "/lib/libroot.so.2"),
        (0x303, "libplain.so", f"{multiarch}/libplain.so"),
        (0x303, "libblas.so.3", f"{multiarch}/libblas.so.3"),
    ] == found


@pytest.mark.parametrize(
    ("less", "more"),
    [("liba.so.2", "liba.so.10"), ("liba.so", "liba.so.1"), ("libab", "liba1"), ("", "a"), ("a", "b")],
)
def test_names_are_compared_as_the_loader_does(less: str, more: str) -> None:
    """Numbers as numbers; a digit after every letter."""
    assert ldcache.compare(less, more) < 0 < ldcache.compare(more, less)


NAMES = st.text("ab.019", max_size=6)


@given(st.lists(NAMES))
def test_the_order_of_names_is_total(names: list[str]) -> None:
    """Sorting gives one order, whatever it starts from: the loader searches by halves."""
    ordered = sorted(names, key=cmp_to_key(ldcache.compare))
    assert all(ldcache.compare(a, b) <= 0 for a, b in pairwise(ordered))


@given(st.lists(st.tuples(st.text("ab", min_size=1), st.text("/cd", min_size=1))))
def test_a_cache_holds_what_was_put_into_it(libraries: list[tuple[str, str]]) -> None:
    """Of equal names the first stays first."""
    found = [(name, path) for _, name, path in cached(ldcache.cache(libraries, "arm64"))]
    assert sorted(libraries) == sorted(found)
    assert all(
        [path for name, path in libraries if name == each] == [path for name, path in found if name == each]
        for each, _ in libraries
    )


@given(st.binary(max_size=300))
def test_what_is_no_library_says_nothing(data: bytes) -> None:
    """Nor does it raise, whatever the bytes are."""
    for content_ in (data, elf("liba.so.1")[: len(data)]):
        found = ldcache.library(BytesIO(content_))
        assert found is None or found.soname in (None, "liba.so.1")
