"""Maker "wheels": what it makes is what installer and pip put into a real virtual environment."""

from __future__ import annotations

import csv
import io
import posixpath
import stat
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import installer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from pesto_repro.build import venv, wheels
from pesto_repro.build.entry import Entry
from pesto_repro.build.maker import Inputs
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.plan.step import Pinned, Step
from tests.python_index import digest_of_file, make_wheel

MINOR = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/{MINOR}/site-packages"
Tree = dict[str, tuple[bytes, bool]]

SCRIPT = b"#!python\nprint('hello')\n"
ODD: dict[str, tuple[str, dict[str, bytes], dict[str, object]]] = {
    "plain": ("plain-1.0-py3-none-any.whl", {"plain/__init__.py": b"x = 1\n", "plain/empty.txt": b""}, {}),
    "data": (
        "datadirs-1.0-py3-none-any.whl",
        {
            "datadirs-1.0.data/scripts/tool": SCRIPT,
            "datadirs-1.0.data/scripts/shell": b"#!/bin/sh\nexit 0\n",
            "datadirs-1.0.data/data/share/doc/readme": b"#!python\nnot a script\n",
            "datadirs-1.0.data/purelib/pure.py": b"",
            "datadirs-1.0.data/platlib/plat.py": b"",
            "datadirs-1.0.data/headers/datadirs.h": b"int x;\n",
        },
        {"executables": ["datadirs-1.0.data/scripts/tool"]},
    ),
    "entry points": (
        "entry-1.0-py3-none-any.whl",
        {
            "entry.py": b"class A:\n    @staticmethod\n    def main(): return 0\n",
            "entry-1.0.dist-info/entry_points.txt": (
                b"[console_scripts]\nentry = entry:A.main\n[gui_scripts]\nentry-gui = entry:A\n[other]\nx = entry\n"
            ),
        },
        {},
    ),
    "absent in RECORD": (
        "absent-1.0-py3-none-any.whl",
        {"absent.py": b"", "new.py": b"n"},
        {"record": "absent.py,,\n"},
    ),
    "RECORD names more": (
        "more-1.0-py3-none-any.whl",
        {"more.py": b""},
        {
            "record": "more.py,,\ngone.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
            "more-1.0.dist-info/RECORD,,\n"
        },
    ),
    "build tag": ("built-1.0-7local-py3-none-any.whl", {"built.py": b"b"}, {}),
    "upper case": (
        "Upper_Case.Name-1.0-py3-none-any.whl",
        {"upper.py": b""},
        {"dist_info": "Upper_Case.Name-1.0.dist-info"},
    ),
    "other spelling": (
        "Odd_Name-1.0-py3-none-any.whl",
        {"odd.py": b""},
        {"dist_info": "odd_name-1.0.dist-info"},
    ),
    "comma": (
        "comma-1.0-py3-none-any.whl",
        {'comma/a,"b.txt': b"c"},
        {"record": "comma-1.0.dist-info/RECORD,,\n"},
    ),
    "executable": (
        "exe-1.0-py3-none-any.whl",
        {"exe/run.sh": b"#!/bin/sh\n"},
        {"executables": ["exe/run.sh"]},
    ),
}
PIP_ADDS_UNRECORDED = {"absent in RECORD", "RECORD names more", "comma"}
"""pip leaves RECORD as the wheel has it where that is wrong; installer puts it right, and so do we."""


def step(*paths: Path, python: str = "/opt/venv/bin/python") -> Step:
    params = {"site": f"opt/venv/{SITE}", "prefix": "opt/venv", "python": python}
    pins = tuple(Pinned(path.name, digest_of_file(path)) for path in paths)
    return Step("wheels", "some", "python", params, pins)


def made(*paths: Path, python: str = "/opt/venv/bin/python") -> Tree:
    """What the maker makes of the wheels *paths*, relative to the virtual environment."""
    by_digest = {digest_of_file(path): path for path in paths}

    def open_input(digest: Digest) -> BinaryIO:
        return by_digest[digest].open("rb")

    with ExitStack() as stack:
        found = list(wheels.entries(step(*paths, python=python), Inputs(open_input, TemporaryFile, stack)))
        return {each.path.removeprefix("opt/venv/"): (content(each), each.mode == 0o755) for each in found}


def content(entry: Entry) -> bytes:
    assert entry.open is not None
    with entry.open() as stream:
        read = stream.read()
    assert entry.size == len(read)
    return read


def environment(folder: Path) -> Path:
    """A real virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def files(root: Path) -> Tree:
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
        for path in found
    }


def by_installer(wheel: Path, root: Path) -> Tree:
    """What the library's own destination writes."""
    schemes = {"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "."}
    schemes["headers"] = f"include/site/{MINOR}/{wheel.name.split('-')[0]}"
    places = {key: posixpath.normpath(f"{root}/{value}") for key, value in schemes.items()}
    destination = SchemeDictionaryDestination(places, f"{root}/bin/python", "posix")
    with WheelFile.open(wheel) as source:
        installer.install(source, destination, {"INSTALLER": b"pesto-repro\n"})
    return files(root)


def by_pip(wheel: Path, root: Path) -> Tree:
    """What pip adds to a real virtual environment."""
    before = files(environment(root))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        f"{root}/bin/python",
        "install",
        "--quiet",
        "--no-compile",
    ]
    subprocess.run([*command, "--no-deps", "--no-index", "--disable-pip-version-check", wheel], check=True)
    return {path: value for path, value in files(root).items() if path not in before}


def without_record(tree: Tree) -> Tree:
    return {path: value for path, value in tree.items() if not path.endswith("dist-info/RECORD")}


def record(tree: Tree) -> set[tuple[str, ...]]:
    """The lines of all RECORD files, with paths in one spelling."""
    texts = [value[0].decode() for path, value in tree.items() if path.endswith("dist-info/RECORD")]
    rows = [row for text in texts for row in csv.reader(text.splitlines())]
    return {(posixpath.normpath(row[0]), *row[1:]) for row in rows}


def written_by_pip(path: str) -> bool:
    """Files in which pip says that it was pip, and launchers, whose text is each installer's own."""
    return path.endswith(("/INSTALLER", "/REQUESTED", "/direct_url.json", "bin/entry", "bin/entry-gui"))


def without_marks(tree: Tree) -> Tree:
    return {path: value for path, value in tree.items() if not written_by_pip(path)}


def without_marked_lines(lines: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {line for line in lines if not written_by_pip(line[0])}


@pytest.fixture(params=sorted(ODD))
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    filename, members, options = ODD[request.param]
    return request.param, make_wheel(tmp_path / "wheels", filename, members, **options)  # type: ignore[arg-type]


def test_odd_wheels_end_up_as_installer_puts_them(odd: tuple[str, Path], tmp_path: Path) -> None:
    """Paths, contents, executable bits and RECORD are the library's own."""
    root = tmp_path / "venv"
    expected, actual = by_installer(odd[1], root), made(odd[1], python=f"{root}/bin/python")
    assert without_record(expected) == without_record(actual)
    assert record(expected) == record(actual)


def test_odd_wheels_end_up_as_pip_puts_them(odd: tuple[str, Path], tmp_path: Path) -> None:
    """Paths, contents, executable bits and RECORD are pip's, apart from what says who installed."""
    root = tmp_path / "venv"
    expected, actual = by_pip(odd[1], root), made(odd[1], python=f"{root}/bin/python")
    assert without_marks(without_record(expected)) == without_marks(without_record(actual))
    assert {path for path in expected if path.startswith("bin/")} == {p for p in actual if p.startswith("bin/")}
    if odd[0] not in PIP_ADDS_UNRECORDED:
        assert without_marked_lines(record(expected)) == without_marked_lines(record(actual))


@pytest.mark.network
def test_a_real_wheel_ends_up_as_installer_and_pip_put_it(runtime_wheel: Path, tmp_path: Path) -> None:
    """The runtime's own wheel, with console scripts and much data."""
    ours = made(runtime_wheel, python=f"{tmp_path}/a/bin/python")
    assert without_record(by_installer(runtime_wheel, tmp_path / "a")) == without_record(ours)
    expected, actual = (
        by_pip(runtime_wheel, tmp_path / "b"),
        made(runtime_wheel, python=f"{tmp_path}/b/bin/python"),
    )
    assert {path for path in expected if not written_by_pip(path)} == {
        path for path in actual if not written_by_pip(path)
    }
    assert {p: v for p, v in without_record(expected).items() if p.startswith(SITE) and not written_by_pip(p)} == {
        p: v for p, v in without_record(actual).items() if p.startswith(SITE) and not written_by_pip(p)
    }


def test_of_two_dist_infos_the_one_of_the_file_name_counts(tmp_path: Path) -> None:
    """The other one stays a directory like any other."""
    members = {"two.py": b"", "other-2.0.dist-info/METADATA": b"Name: other\n"}
    tree = made(make_wheel(tmp_path, "two-1.0-py3-none-any.whl", members))
    installers = [path for path in tree if path.endswith("/INSTALLER")]
    assert [f"{SITE}/two-1.0.dist-info/INSTALLER"] == installers
    assert f"{SITE}/other-2.0.dist-info/METADATA" in tree


def test_bytecode_caches_are_left_out(tmp_path: Path) -> None:
    """What nobody vouches for goes neither into the image nor into RECORD."""
    members = {"a.py": b"", "__pycache__/a.cpython-313.pyc": b"?", "p/__pycache__/b.pyc": b"?"}
    tree = made(make_wheel(tmp_path, "caches-1.0-py3-none-any.whl", members))
    assert [] == [path for path in tree if "__pycache__" in path]
    assert [] == [line for line in record(tree) if "__pycache__" in line[0]]


def test_an_entry_point_wins_over_a_script_of_its_name(tmp_path: Path) -> None:
    """As with pip; two files of one path would be no layer."""
    members = {
        "w.py": b"",
        "w-1.0.data/scripts/w": b"#!python\nold\n",
        "w-1.0.dist-info/entry_points.txt": b"[console_scripts]\nw = w:main\n",
    }
    tree = made(make_wheel(tmp_path, "w-1.0-py3-none-any.whl", members))
    assert b"from w import main" in tree["bin/w"][0]


def test_what_the_wheel_vouches_for_is_not_hashed_again(tmp_path: Path) -> None:
    """RECORD repeats the wheel's own sha256; a hash of another kind is replaced."""
    text = "a.py,sha256=trusted,1\nb.py,md5=old,1\nr-1.0.dist-info/RECORD,,\n"
    tree = made(make_wheel(tmp_path, "r-1.0-py3-none-any.whl", {"a.py": b"a", "b.py": b"b"}, record=text))
    lines = {line[0]: line[1] for line in record(tree)}
    assert "sha256=trusted" == lines["a.py"]
    assert lines["b.py"].startswith("sha256=")


def hostile(path: Path) -> Path:
    """A wheel with everything that must be refused."""
    make_wheel(path.parent, path.name, {"ok.py": b"", "bad-1.0.data/stray": b"", "bad-1.0.data/nowhere/x": b""})
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    device = zipfile.ZipInfo("device")
    device.external_attr = (stat.S_IFCHR | 0o666) << 16
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("../up", "/absolute", "a/../../b", "C:/windows", "ok.py", "ok.py/below"):
            archive.writestr(name, b"")
        archive.writestr(link, b"/etc/passwd")
        archive.writestr(device, b"")
        archive.writestr("bad-1.0.dist-info/entry_points.txt", b"[console_scripts]\n../../x = ok:main\n")
    return path


def test_everything_unsafe_is_told_at_once(tmp_path: Path) -> None:
    """Members that escape, links, devices, duplicates and more: refused, all listed."""
    with pytest.raises(BuildError) as caught:
        made(hostile(tmp_path / "bad-1.0-py3-none-any.whl"))
    assert [
        "bad-1.0-py3-none-any.whl is not a sound wheel:",
        "  '../up' leaves its directory",
        "  '/absolute' is not a relative path",
        "  'a/../../b' leaves its directory",
        "  'C:/windows' is not a relative path",
        "  'link' is a link",
        "  'device' is neither a file nor a directory",
        "  'ok.py' is there 2 times",
        "  'ok.py' is both a file and a directory",
        "  'bad-1.0.data/stray' is in no directory of purelib, platlib, headers, scripts, data",
        "  'bad-1.0.data/nowhere/x' is in no directory of purelib, platlib, headers, scripts, data",
        "  the entry point '../../x' is not a file name",
    ] == caught.value.message.splitlines()


@pytest.mark.parametrize(
    ("filename", "members", "options", "message"),
    [
        ("a-1.0-py3-none-any.whl", {}, {"dist_info": "b-1.0.dist-info"}, "{} has no a-1.0.dist-info"),
        (
            "a-1.0-py3-none-any.whl",
            {},
            {"record": "one,two\n"},
            "{} cannot be installed: Row Index 0: expected 3 elements, got 2",
        ),
        (
            "a-1.0-py3-none-any.whl",
            {"a-1.0.dist-info/entry_points.txt": b"[console_scripts]\na = nothing\n"},
            {},
            "{}: entry_points.txt cannot be understood",
        ),
        ("a-1.0.whl", {}, {}, "{} cannot be installed: Not a valid wheel filename: a-1.0.whl"),
    ],
)
def test_what_is_no_wheel_is_refused(
    filename: str, members: dict[str, bytes], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Each message names the wheel."""
    with pytest.raises(BuildError) as caught:
        made(make_wheel(tmp_path, filename, members, **options))
    assert message.format(filename) == caught.value.message


def test_a_wheel_whose_zip_is_odd_is_refused(tmp_path: Path) -> None:
    """A version of the format to come, a stream that is broken where the wheel is looked into."""
    path = make_wheel(tmp_path, "v-1.0-py3-none-any.whl", {"v.py": b""})
    whole = path.read_bytes()
    start = whole.index(b"PK\1\2")
    path.write_bytes(whole[: start + 6] + b"\x63\0" + whole[start + 8 :])
    with pytest.raises(BuildError) as caught:
        made(path)
    assert "v-1.0-py3-none-any.whl cannot be installed: zip file version 9.9" == caught.value.message
    with path.open("rb") as stream, pytest.raises(BuildError) as caught:
        wheels.read_from_wheel(stream, "v.py")
    assert "the wheel cannot be read: zip file version 9.9" == caught.value.message


def _layer_of(path: Path) -> bytes:
    """The tar of the wheel *path*."""
    with ExitStack() as stack:
        inputs = Inputs(lambda digest: path.open("rb"), TemporaryFile, stack)
        sink = io.BytesIO()
        write_tar(arrange(wheels.entries(step(path), inputs)), sink)
        return sink.getvalue()


def test_a_stored_file_that_is_broken_is_told_with_its_package(tmp_path: Path) -> None:
    """RECORD vouches for it, so it is read only when the layer is written."""
    path = tmp_path / "b-1.0-py3-none-any.whl"
    members = {"b.py": b"content", "b-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"}
    members |= {"b-1.0.dist-info/METADATA": b"", "b-1.0.dist-info/RECORD": b"b.py,sha256=trusted,7\n"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, each in members.items():
            archive.writestr(name, each)
    assert b"content" in _layer_of(path)
    path.write_bytes(path.read_bytes().replace(b"content", b"cont?nt"))
    with pytest.raises(BuildError) as caught:
        _layer_of(path)
    expected = f"b 1.0: opt/venv/{SITE}/b.py cannot be read: Bad CRC-32 for file 'b.py'"
    assert expected == caught.value.message


def test_golden_launcher_and_record(tmp_path: Path) -> None:
    """The library writes these: its next version must not change a byte of them unnoticed."""
    tree = made(make_wheel(tmp_path, *ODD["entry points"][:2]))
    found = {path: str(Digest.of(tree[path][0])) for path in ("bin/entry", f"{SITE}/entry-1.0.dist-info/RECORD")}
    assert {
        "bin/entry": "sha256:32a7e58f5f1d39df4a8649bbef47fdb96593cfc8fee3fb1d0ff74340cc49c50b",
        f"{SITE}/entry-1.0.dist-info/RECORD": "sha256:7ddd0b88e8fc5b5949629b270cb56e2b76542f7cf1f451013e2abbeedfe9c35c",
    } == found


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    """A broken download cannot get here, a broken upload can."""
    path = tmp_path / "z-1.0-py3-none-any.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(BuildError) as caught:
        made(path)
    assert "z-1.0-py3-none-any.whl cannot be installed: File is not a zip file" == caught.value.message


@given(
    st.dictionaries(
        st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=3).map(
            lambda parts: "/".join(parts) + ".py"
        ),
        st.binary(max_size=40),
        max_size=6,
    )
)
def test_nothing_of_a_wheel_is_lost(members: dict[str, bytes]) -> None:
    """Every file of a wheel is in the site directory with its bytes, and in RECORD with their size."""
    with tempfile.TemporaryDirectory() as folder:
        tree = made(make_wheel(Path(folder), "law-1.0-py3-none-any.whl", members))
    sizes = {line[0]: line[2] for line in record(tree)}
    assert members == {path: tree[f"{SITE}/{path}"][0] for path in members}
    assert {path: str(len(content)) for path, content in members.items()} == {path: sizes[path] for path in members}
    assert {f"{SITE}/{path}" for path in sizes} == tree.keys()


def test_read_from_wheel_gives_one_member(tmp_path: Path) -> None:
    """And says which one is missing."""
    with make_wheel(tmp_path, "m-1.0-py3-none-any.whl", {"m/x.json": b"{}"}).open("rb") as stream:
        assert b"{}" == wheels.read_from_wheel(stream, "m/x.json")
        with pytest.raises(BuildError, match=r"^the wheel has no m/y\.json$"):
            wheels.read_from_wheel(stream, "m/y.json")


def test_the_skeleton_is_what_venv_leaves(tmp_path: Path) -> None:
    """Links, directories and the configuration's keys are those of ``python -m venv``."""
    real = environment(tmp_path / "opt/venv")
    version = ".".join(map(str, sys.version_info[:3]))
    params = {"prefix": "opt/venv", "executable": "/usr/bin/python3", "version": version}
    with ExitStack() as stack:
        nothing = Inputs(lambda _: io.BytesIO(), TemporaryFile, stack)
        found = {
            each.path.removeprefix("opt/venv/"): each
            for each in venv.entries(Step("venv", "v", "python", params), nothing)
        }
    assert ["bin/python", "bin/python3", f"bin/{MINOR}", "include", "lib64", SITE, "pyvenv.cfg"] == sorted(
        found, key=lambda path: (path == "pyvenv.cfg", path == SITE, path)
    )
    assert all((real / path).exists() for path in found)
    assert "lib" == found["lib64"].target == str((real / "lib64").readlink())
    assert "/usr/bin/python3" == found["bin/python"].target
    assert f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n".encode() == content(
        found["pyvenv.cfg"]
    )
