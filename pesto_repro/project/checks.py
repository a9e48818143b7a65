"""What would make the service fail, found in the documents of ``pesto/api`` before anything is made of them.

*documents* are by name ("description", "input_schema"...), profiles applied. *definitions* are the native
ones, which the runtime's wheel brings. Schemas are JSON Schema draft-06. An input or output schema is an
object schema with ``properties``, or flat: ``{parameter: schema, ..., "required": [...]}``.

What is imported here takes longer than everything else that a build with nothing to do imports: it is left out for
documents that a lock has found to be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft6Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from pesto_repro.project.documents import did_you_mean, kind
from pesto_repro.project.service import Documents

KeyPath = tuple[str | int, ...]
Slip = tuple[str, KeyPath, str]
"""A document's name, a key path in it, and what is wrong there."""

NATIVE = ("Image", "Images", "Polygon", "Polygons", "Metadata", "Metadatas")
_DEFINITION = "#/definitions/"
_TEXTS = ("title", "name", "version", "family", "description", "organization", "email")
_OPTIONAL_TEXTS = ("licence", "template")
# Keywords beside the parameters of a flat schema: the service takes them away before it looks for parameters.
_BESIDE = frozenset({"required", "definition", "definitions", "$schema", "title", "type", "content", "description"})
_BY_NAME = frozenset({"properties", "patternProperties", "definitions", "dependencies"})
_DATA = frozenset({"enum", "const", "default", "examples"})
_LONG = 300
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def problems(documents: Documents, definitions: Mapping[str, Any] | None = None) -> tuple[Slip, ...]:
    """Everything that would make the service fail. A document that is absent is not checked.

    Without *definitions* the native ones are known by name only.
    """
    native = definitions if definitions is not None else dict.fromkeys(NATIVE, True)
    return tuple(_problems(documents, native))


def violations(schema: Mapping[str, Any], value: Any) -> tuple[tuple[KeyPath, str], ...]:
    """Where *value*, an input or an output of a service, breaks the *schema* that the service describes."""
    try:
        return tuple(map(_validation, Draft6Validator(schema, registry=Registry()).iter_errors(value)))
    except (Unresolvable, re.error) as error:
        return (((), f"the schema cannot be applied: {error}"),)


def _problems(documents: Documents, native: Mapping[str, Any]) -> Iterator[Slip]:
    user = documents.get("user_definitions", {})
    if "description" in documents:
        yield from _named("description", _description_slips(documents["description"]))
    yield from _named("user_definitions", _definition_slips(user, native))
    every = {**user, **native}
    for name in ("input_schema", "output_schema"):
        if name in documents:
            yield from _named(name, _parameter_slips(documents[name], every))
    if "config_schema" in documents:
        yield from _config_slips(documents["config_schema"], documents.get("config"))


_Slip = tuple[KeyPath, str]


def _named(document: str, slips: Iterator[_Slip]) -> Iterator[Slip]:
    return ((document, path, message) for path, message in slips)


def _description_slips(description: Mapping[str, Any]) -> Iterator[_Slip]:
    """What /describe fails without, and the types it promises."""
    wanted = {**dict.fromkeys(_TEXTS, str), "asynchronous": bool, "resources": dict}
    for key, type_ in {**wanted, **dict.fromkeys(_OPTIONAL_TEXTS, str), "keywords": list}.items():
        if key not in description:
            if key in wanted:
                yield (), f'"{key}" is required: the service cannot describe itself without'
        elif not isinstance(description[key], type_):
            yield (key,), f"must be {kind(type_())}, not {kind(description[key])}"
    name = description.get("name")
    if isinstance(name, str) and not _PATH_PART.fullmatch(name):
        yield (
            ("name",),
            f'"{name}" cannot name a folder: letters, digits, "_", "." and "-", not starting with "." or "-"',
        )


def _definition_slips(user: Mapping[str, Any], native: Mapping[str, Any]) -> Iterator[_Slip]:
    for name in sorted(set(user) & set(native)):
        yield (name,), "redefines a native definition of PESTO; give it another name"
    yield from _schema_slips({"definitions": dict(user)}, strip=1)
    yield from _reference_slips(_references(user, (), by_name=True), {"definitions": {**user, **native}})


def _parameter_slips(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[_Slip]:
    if "definitions" in schema:
        yield ("definitions",), "would be overwritten; put definitions into user_definitions.json"
    schema = {key: value for key, value in schema.items() if key != "definitions"}
    if "properties" in schema:
        yield from _schema_slips(schema)
    else:
        yield from _flat_slips(schema)
    root = {**schema, "definitions": definitions}
    yield from _reference_slips(_references(schema, (), by_name="properties" not in schema), root)


def _flat_slips(schema: Mapping[str, Any]) -> Iterator[_Slip]:
    """A flat schema is checked as the object schema that the service makes of it."""
    for name in sorted(_BESIDE - {"definition"}):
        if isinstance(schema.get(name), Mapping):
            yield (name,), f'the service takes "{name}" for a keyword; give the parameter another name'
    beside = {key: value for key, value in schema.items() if key in _BESIDE and not isinstance(value, Mapping)}
    parameters = {key: value for key, value in schema.items() if key not in _BESIDE}
    yield from _schema_slips({**beside, "properties": parameters}, flat=True)


def _config_slips(schema: Mapping[str, Any], config: Mapping[str, Any] | None) -> Iterator[Slip]:
    slips = [*_schema_slips(schema), *_reference_slips(_references(schema, (), by_name=False), schema)]
    yield from _named("config_schema", iter(slips))
    if slips or config is None:
        return
    try:
        # An empty registry: a schema can name an address, and nothing here asks the network.
        errors = list(Draft6Validator(schema, registry=Registry()).iter_errors(config))
    except (Unresolvable, re.error) as error:
        yield "config_schema", (), f"cannot be applied: {error}"
        return
    yield from (("config", path, message) for path, message in map(_validation, errors))


def _schema_slips(schema: Mapping[str, Any], *, strip: int = 0, flat: bool = False) -> Iterator[_Slip]:
    """Where *schema* is no schema of draft-06; *strip* and *flat* undo what was wrapped around it."""
    check = Draft6Validator(Draft6Validator.META_SCHEMA, format_checker=Draft6Validator.FORMAT_CHECKER)
    for error in check.iter_errors(schema):
        path, message = _validation(error)
        path = path[strip:]
        yield path[1:] if flat and path[:1] == ("properties",) else path, message


def _validation(error: ValidationError) -> _Slip:
    """The place of *error* and its text, which quotes the whole value: cut to a bearable length."""
    message = str(error.message)
    return tuple(error.absolute_path), message if len(message) <= _LONG else f"{message[:_LONG]}..."


def _references(schema: object, path: KeyPath, *, by_name: bool) -> Iterator[tuple[KeyPath, str]]:
    """Every ``$ref`` of *schema* with its place; *by_name*: its keys are names of schemas, not keywords."""
    if isinstance(schema, Mapping):
        if not by_name and isinstance(schema.get("$ref"), str):
            yield (*path, "$ref"), schema["$ref"]
        for key, value in schema.items():
            if by_name or key not in _DATA:
                yield from _references(value, (*path, key), by_name=not by_name and key in _BY_NAME)
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from _references(value, (*path, index), by_name=False)


def _reference_slips(references: Iterator[tuple[KeyPath, str]], root: Mapping[str, Any]) -> Iterator[_Slip]:
    for path, reference in references:
        if not reference.startswith("#"):
            yield path, f'"{reference}" is outside this file; only references that start with "#/" work'
        elif not _leads_somewhere(reference, root):
            yield path, f'"{reference}" leads nowhere{_suggestion(reference, root)}'


def _leads_somewhere(reference: str, root: Mapping[str, Any]) -> bool:
    """Whether *reference*, a JSON pointer as a URI fragment (RFC 6901), leads to a value of *root*."""
    if reference == "#":
        return True
    if not reference.startswith("#/"):
        return False
    value: Any = root
    for part in reference[2:].split("/"):
        # RFC 6901, section 4: "first transforming any occurrence of the sequence '~1' to '/', and then ...
        # '~0' to '~'"
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if value is True:
            return True  # a native definition that is known by name only
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return True


def _suggestion(reference: str, root: Mapping[str, Any]) -> str:
    name = reference.removeprefix(_DEFINITION).split("/")[0]
    known = root.get("definitions", {})
    is_misspelt = reference.startswith(_DEFINITION) and name not in known
    return did_you_mean(name, known) if is_misspelt else ""
