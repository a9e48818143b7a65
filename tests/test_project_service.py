"""The generated documents and what would make the service fail."""

import json
from typing import Any

import pytest

from pesto_repro.project.checks import NATIVE, problems
from pesto_repro.project.service import config_json, service_json, version_json

_NATIVE: dict[str, Any] = {name: {"type": "object"} for name in NATIVE}
_DESCRIPTION = {
    "title": "t",
    "name": "algo",
    "version": "1.0",
    "description": "d",
    "family": "f",
    "organization": "o",
    "email": "e",
    "asynchronous": False,
    "resources": {"cpu": 1},
}


def _documents(**changed: Any) -> dict[str, Any]:
    return {
        "description": _DESCRIPTION,
        "input_schema": {"image": {"$ref": "#/definitions/Image"}, "required": ["image"]},
        "output_schema": {"type": "object", "properties": {"areas": {"$ref": "#/definitions/Mine"}}},
        "user_definitions": {"Mine": {"type": "array", "items": {"$ref": "#/definitions/Polygon"}}},
        "config_schema": {"type": "object", "properties": {"zoom": {"type": "integer", "maximum": 17}}},
        "config": {"zoom": 16},
        "version": {"other": "x"},
        **changed,
    }


def _told(**changed: Any) -> list[tuple[str, tuple[str | int, ...], str]]:
    return sorted(problems(_documents(**changed)))


def test_a_good_project_has_no_problems() -> None:
    """With the native definitions at hand, and with their names only."""
    assert () == problems(_documents())
    assert () == problems(_documents(), _NATIVE)


def test_service_json() -> None:
    """Description, config schema, input and output with all definitions; four spaces, sorted, ASCII."""
    documents = _documents(description={**_DESCRIPTION, "title": "é"})
    text = service_json(documents, _NATIVE)
    every = {**_NATIVE, **documents["user_definitions"]}
    assert {
        **documents["description"],
        "config": documents["config_schema"],
        "input": {**documents["input_schema"], "definitions": every},
        "output": {**documents["output_schema"], "definitions": every},
    } == json.loads(text)
    assert text.startswith('{\n    "asynchronous": false,\n    "config": {\n        "properties"')
    assert '"title": "\\u00e9"' in text


def test_version_json() -> None:
    """version.json's own version wins over the description's; __packaging is last to be set."""
    documents = _documents(version={"other": "x", "__packaging": "y"})
    assert '{\n    "__packaging": "packaged",\n    "other": "x",\n    "version": "1.0"\n}' == version_json(
        documents, "packaged"
    )
    assert "2.0" == json.loads(version_json(_documents(version={"version": "2.0"}), "p"))["version"]


def test_config_json() -> None:
    """config.json, printed as the others."""
    assert '{\n    "zoom": 16\n}' == config_json(_documents())


def test_description_must_answer_describe() -> None:
    """Every key that /describe needs, and its type; a name that can be a folder's."""
    description = {
        "name": "../x",
        "version": 1,
        "asynchronous": "no",
        "resources": {},
        "keywords": "k",
        "title": "",
    }
    required = "is required: the service cannot describe itself without"
    assert [
        ("description", (), f'"{key}" {required}') for key in ("description", "email", "family", "organization")
    ] + [
        ("description", ("asynchronous",), "must be a boolean, not a string"),
        ("description", ("keywords",), "must be an array, not a string"),
        (
            "description",
            ("name",),
            '"../x" cannot name a folder: letters, digits, "_", "." and "-", not starting with "." or "-"',
        ),
        ("description", ("version",), "must be a string, not a number"),
    ] == _told(description=description)


def test_native_definitions_must_not_be_redefined() -> None:
    """Upstream logs and ignores it; here it is a problem."""
    expected = (
        "user_definitions",
        ("Image",),
        "redefines a native definition of PESTO; give it another name",
    )
    documents = _documents()
    assert [expected] == _told(user_definitions={**documents["user_definitions"], "Image": {}})


@pytest.mark.parametrize(
    ("schema", "path", "message"),
    [
        (
            {"a": {"$ref": "#/definitions/Imgae"}},
            ("a", "$ref"),
            '"#/definitions/Imgae" leads nowhere; did you mean "Image"?',
        ),
        ({"a": {"$ref": "#/b"}}, ("a", "$ref"), '"#/b" leads nowhere'),
        ({"a": {"$ref": "#a"}}, ("a", "$ref"), '"#a" leads nowhere'),
        (
            {"a": {"items": [{"$ref": "other.json#/x"}]}},
            ("a", "items", 0, "$ref"),
            '"other.json#/x" is outside this file; only references that start with "#/" work',
        ),
        ({"a": {"type": "strin"}}, ("a", "type"), "'strin' is not valid under any of the given schemas"),
        ({"a": {"pattern": "("}}, ("a", "pattern"), "'(' is not a 'regex'"),
        ({"a": "string"}, ("a",), "'string' is not of type 'object', 'boolean'"),
        ({"a": {}, "required": "a"}, ("required",), "'a' is not of type 'array'"),
        (
            {"properties": {"a": {"minimum": "1"}}},
            ("properties", "a", "minimum"),
            "'1' is not of type 'number'",
        ),
        (
            {"title": {"type": "string"}},
            ("title",),
            'the service takes "title" for a keyword; give the parameter another name',
        ),
        (
            {"definitions": {"X": {}}},
            ("definitions",),
            "would be overwritten; put definitions into user_definitions.json",
        ),
    ],
)
def test_parameter_schemas(schema: dict[str, Any], path: tuple[str | int, ...], message: str) -> None:
    """Both forms are valid draft-06 and every reference leads somewhere; the same for input and output."""
    assert [("input_schema", path, message)] == _told(input_schema=schema)
    assert [("output_schema", path, message)] == _told(output_schema=schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"a": {}, "b": {"$ref": "#/a"}},
        {"a": {"$ref": "#/definitions/Mine/items"}},
        {"a": {"$ref": "#/definitions/Image/anything"}},
        {"a/b~c": {}, "b": {"$ref": "#/a~1b~0c"}},
        {"properties": {"$ref": {"type": "string"}, "x": {"$ref": "#/properties/$ref"}}},
        {"a": {"enum": [{"$ref": "#/nowhere"}], "default": {"$ref": "x"}}},
        {"enum": {"$ref": "#/definitions/Image"}, "default": {"type": "string"}},
        {"a": {"items": {"$ref": "#"}}},
    ],
)
def test_references_that_lead_somewhere(schema: dict[str, Any]) -> None:
    """Within the file, into definitions; what is data or a parameter's name is no reference."""
    assert [] == _told(input_schema=schema)


def test_a_reference_into_a_native_definition_is_followed_once_it_is_known() -> None:
    """With the wheel's definitions at hand, a deeper reference is checked as well."""
    documents = _documents(input_schema={"a": {"$ref": "#/definitions/Image/x"}})
    expected = (("input_schema", ("a", "$ref"), '"#/definitions/Image/x" leads nowhere'),)
    assert expected == problems(documents, _NATIVE)


def test_user_definitions_are_schemas_too() -> None:
    """Their references and their form."""
    user = {"Mine": {"type": 1}, "Other": {"$ref": "#/definitions/Gone"}}
    assert [
        ("user_definitions", ("Mine", "type"), "1 is not valid under any of the given schemas"),
        ("user_definitions", ("Other", "$ref"), '"#/definitions/Gone" leads nowhere'),
    ] == _told(user_definitions=user)


def test_config_is_held_against_its_schema() -> None:
    """All errors, each with its key path."""
    schema = {"required": ["pad"], "properties": {"zoom": {"items": {"maximum": 17}}}}
    assert [
        ("config", (), "'pad' is a required property"),
        ("config", ("zoom", 0), "18 is greater than the maximum of 17"),
        ("config", ("zoom", 2), "19 is greater than the maximum of 17"),
    ] == _told(config_schema=schema, config={"zoom": [18, 1, 19]})


def test_a_config_schema_that_cannot_be_applied() -> None:
    """A wrong schema is told, and config not held against it."""
    assert [("config_schema", ("type",), "'x' is not valid under any of the given schemas")] == _told(
        config_schema={"type": "x"}
    )
    assert [("config_schema", ("properties", "a", "$ref"), '"#/definitions/Image" leads nowhere')] == _told(
        config_schema={"properties": {"a": {"$ref": "#/definitions/Image"}}}
    )


def test_a_config_schema_never_asks_the_network() -> None:
    """An address that a nested $id makes of a reference is not fetched."""
    inner = {"$id": "http://schema.invalid/x", "properties": {"b": {"$ref": "#/definitions/c"}}}
    (slip,) = _told(config_schema={"definitions": {"c": {}}, "properties": {"zoom": inner}}, config={"zoom": {"b": 1}})
    assert ("config_schema", ()) == slip[:2]
    assert slip[2].startswith("cannot be applied: ")


def test_what_is_absent_is_not_checked() -> None:
    """A document that could not be read does not make others look wrong."""
    assert () == problems({})
    assert () == problems({"config": {"a": 1}})
