"""Files of a test as values."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import PestoError
from pesto_repro.service.payload import File, files_in, inline, load, load_object, sendable


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_each_extension_is_read_as_what_it_says(tmp_path: Path) -> None:
    """Text with its newline, numbers, JSON; any case; anything else is the file itself."""
    write(
        tmp_path,
        {
            "a.string": "some text\n",
            "b.float": "3.5\n",
            "c.number": "4",
            "d.int": " 42 ",
            "e.INTEGER": "-1",
            "f.json": '{"x": [1, null]}',
            "g.geojson": "[]",
            "h.png": "no picture",
            "i": "bare",
        },
    )
    expected = {
        "a": "some text\n",
        "b": 3.5,
        "c": 4.0,
        "d": 42,
        "e": -1,
        "f": {"x": [1, None]},
        "g": [],
        "h": File(tmp_path / "h.png"),
        "i": File(tmp_path / "i"),
    }
    assert expected == load(tmp_path)


def test_folders_are_objects_or_lists(tmp_path: Path) -> None:
    """Names that are all numbers make a list, in the order of the names as text, as PESTO has it."""
    write(
        tmp_path, {"list/0.int": "0", "list/10.int": "10", "list/2.int": "2", "object/x/y.int": "1", "mixed/0.int": "0"}
    )
    write(tmp_path, {"mixed/a.int": "1"})
    expected = {"list": [0, 10, 2], "object": {"x": {"y": 1}}, "mixed": {"0": 0, "a": 1}}
    assert expected == load(tmp_path)


def test_names_that_start_with_a_dot_are_no_values(tmp_path: Path) -> None:
    """Else a .gitkeep would be a parameter, and a list no list."""
    write(tmp_path, {"list/.gitkeep": "", "list/0.int": "0", ".DS_Store": ""})
    assert {"list": [0]} == load(tmp_path)


def test_an_empty_or_absent_folder_is_an_empty_object(tmp_path: Path) -> None:
    """A service may have no parameters."""
    assert {} == load_object(tmp_path)
    assert {} == load_object(tmp_path / "absent")


def test_a_list_is_no_request(tmp_path: Path) -> None:
    """Parameters have names."""
    write(tmp_path, {"0.int": "1"})
    with pytest.raises(PestoError) as caught:
        load_object(tmp_path)
    assert f"{tmp_path} is no object: its files are numbers" == caught.value.message


def test_two_files_of_one_key_are_an_error(tmp_path: Path) -> None:
    """PESTO would take one of them without a word."""
    write(tmp_path, {"x.int": "1", "x.json": "2"})
    with pytest.raises(PestoError) as caught:
        load(tmp_path)
    assert f"{tmp_path}: both x.int and x.json are 'x'" == caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.int", "1.5", "integer: invalid literal for int() with base 10: '1.5'"),
        ("x.float", "many", "number: could not convert string to float: 'many'"),
        ("x.json", "{", "JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_a_file_must_hold_what_its_name_says(tmp_path: Path, name: str, content: str, said: str) -> None:
    """The message names the file."""
    path = write(tmp_path, {name: content}) / name
    with pytest.raises(PestoError) as caught:
        load(path)
    assert f"{path} holds no {said}" == caught.value.message


def test_files_are_sent_by_their_address(tmp_path: Path) -> None:
    """Wherever they are in the value, and nothing else is changed."""
    file = File(tmp_path / "a.tif")
    value = {"x": [1, file], "y": {"z": file}, "t": "a.tif"}
    assert {"x": [1, "here"], "y": {"z": "here"}, "t": "a.tif"} == sendable(value, lambda each: "here")
    assert [file, file] == list(files_in(value))


def test_far_services_are_sent_the_picture_itself(tmp_path: Path) -> None:
    """They do not see our files."""
    write(tmp_path, {"a.PNG": "picture", "b.bin": "other"})
    assert base64.b64encode(b"picture").decode() == inline(File(tmp_path / "a.PNG"))
    assert f"file://{tmp_path}/b.bin" == inline(File(tmp_path / "b.bin"))


NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=5).filter(str.islower)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_what_json_says_comes_back(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    """One .json file per key gives the object back, and sending it changes nothing."""
    folder = tmp_path_factory.mktemp("payload")
    for key, each in value.items():
        (folder / f"{key}.json").write_text(json.dumps(each))
    assert value == load_object(folder) == sendable(load_object(folder), inline)
