"""``pesto/build/image.toml``: what upstream's files cannot say. Optional, as is every key in it.

The tables are pydantic models, so that one definition gives the validation, the defaults and the JSON Schema
that editors complete from. Unknown keys are refused: a setting that does nothing is worse than an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from pesto_repro.addresses import can_be_asked, public, redact, userinfo
from pesto_repro.errors import Problem, ProjectError
from pesto_repro.project.documents import Document, did_you_mean, dotted
from pesto_repro.project.profiles import Layers, Merge, origin
from pesto_repro.project.pyrequires import CREDENTIALS, normalised, project_name

RUNTIME = "processing-factory"
# No other account is sure to be in the image: names of packages' own accounts differ from base to base.
_USER = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?|root|nobody|nonroot")


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _tuple(value: object) -> object:
    """TOML has arrays only; a frozen model has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("pesto", "{message}", {"message": message})


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise _wrong(f'"{text}" is no user of the image: write a number, "uid" or "uid:gid", root, nobody or nonroot')
    return text


def _pep508(text: str) -> str:
    try:
        return normalised(text)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _package_name(text: str) -> str:
    """PEP 508, "Names"; in normal form (PEP 503)."""
    if not re.fullmatch(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", text, re.I):
        raise _wrong(f'"{text}" is no name of a Python package')
    return re.sub(r"[-_.]+", "-", text).lower()


def _runtime(text: str) -> str:
    if project_name(_pep508(text)) != RUNTIME:
        raise _wrong(f'"{text}" is not a requirement on {RUNTIME}, such as "{RUNTIME}==1.7.2"')
    return text


def _web_addresses(text: str) -> str:
    for each in text.split() or [text]:
        if not re.match("https?://", each) or not can_be_asked(each):
            raise _wrong(f'"{public(each)}" is not an address that starts with https:// or http://')
    return text


def _place(text: str) -> str:
    if "://" in text and userinfo(text):
        raise _wrong(f'"{public(text)}" {CREDENTIALS}')
    if "://" in text and not can_be_asked(text):
        raise _wrong(f'"{public(text)}" is no address: write https://HOST/PATH, file:///FOLDER or a path')
    return text


def _some_and_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise _wrong("must name at least one")
    for value in values:
        if values.count(value) > 1:
            raise _wrong(f'"{value}" is there twice')
    return values


Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[tuple[Place, ...], BeforeValidator(_tuple)]
Platform = Literal["linux/amd64", "linux/arm64"]
Platforms = Annotated[
    tuple[Platform, ...],
    BeforeValidator(_tuple),
    AfterValidator(_some_and_distinct),
    Field(json_schema_extra={"minItems": 1, "uniqueItems": True}),
]
User = Annotated[str, AfterValidator(_user), Field(json_schema_extra={"pattern": f"^(?:{_USER.pattern})$"})]
Requirements = Annotated[tuple[Annotated[str, AfterValidator(_pep508)], ...], BeforeValidator(_tuple)]
WebAddresses = Annotated[str, AfterValidator(_web_addresses)]
# Debian policy 5.6.1: "must consist only of lower case letters (a-z), digits (0-9), plus (+) and minus (-)
# signs, and periods (.)", "must be at least two characters long and must start with an alphanumeric
# character".
DebianNames = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")], ...], BeforeValidator(_tuple)]
PackageNames = Annotated[
    tuple[Annotated[str, AfterValidator(_package_name)], ...],
    BeforeValidator(_tuple),
    Field(json_schema_extra={"uniqueItems": True}),
]


class Table(BaseModel):
    """A table of image.toml: frozen, unknown keys refused, ``snake_case`` here is ``kebab-case`` there."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=_kebab, populate_by_name=True)


class Image(Table):
    """What the image says of itself."""

    platforms: Platforms = Field(
        default=("linux/amd64",), description="The platforms to build for; never the host's own by chance."
    )
    user: User = Field(
        default="65532:65532",
        description='Who runs the service: "uid", "uid:gid", root, nobody or nonroot. Not root by default.',
    )
    labels: dict[str, str] = Field(default={}, description="Labels of the image's configuration.")
    embed_lock: bool = Field(
        default=False, description="Put the lock into the image, at /etc/pesto/lock.toml: it says how to make it again."
    )


class Base(Table):
    """What the image stands on. Default: the dockerBaseImage of requirements.json."""

    debian: Literal["bookworm", "trixie"] | None = Field(
        default=None, description="Build the base from packages of this Debian suite; no registry is needed."
    )
    packages: DebianNames = Field(default=(), description="Debian packages to add, with what they depend on.")
    mirror: WebAddresses | None = Field(
        default=None, description="The Debian mirror to take packages from. It never gets into the lock."
    )


class PythonBuild(Table):
    """Where wheels are built from source: the image's own base, and what is added here. None of it is in the image."""

    packages: DebianNames = Field(default=(), description="Debian packages to add while building: gcc, headers.")


class Python(Table):
    """The image's Python and the packages to add."""

    version: Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")] | None = Field(
        default=None, description='The Python of the image, "3.13". Default: the base\'s own.'
    )
    system_packages: bool = Field(
        default=False,
        description="Use the Python packages that the base image brings, and install none of them again.",
    )
    requires: Requirements = Field(
        default=(), description="Requirements (PEP 508) besides those that the project's own files name."
    )
    index_url: Place | None = Field(
        default=None,
        description="The package index. Default: the one that the configuration of uv or pip names.",
    )
    find_links: Places = Field(default=(), description="More places to look for wheels: addresses or folders.")
    build_from_source: PackageNames = Field(
        default=(), description="Packages whose wheels are built from source although there are wheels of them."
    )
    allow_unreproducible: PackageNames = Field(
        default=(), description="Packages that may be built from source although two builds of them differ."
    )
    build: PythonBuild = Field(default=PythonBuild(), description="Where wheels are built from source.")


class Runtime(Table):
    """The web service that wraps the algorithm."""

    package: Annotated[str, AfterValidator(_runtime)] = Field(
        default=f"{RUNTIME}==1.7.2", description=f"A requirement (PEP 508) on {RUNTIME}."
    )
    closure: Literal["minimal", "full"] = Field(
        default="minimal",
        description='"minimal": what the service needs to serve. "full": all that it declares.',
    )


class LayersTable(Table):
    """How the image is cut and compressed."""

    max: Annotated[int, Field(ge=1, le=120)] = Field(
        default=40, description="At most so many layers of Python packages and of Debian packages."
    )
    compression: Literal["gzip", "zstd", "none"] = Field(default="gzip", description="How layers are compressed.")


class Trust(Table):
    """Whose signatures are demanded."""

    base_key: str | None = Field(
        default=None,
        description="A public key (PEM), relative to the project: a base image not signed with it is not used.",
    )


class Profiles(Table):
    """How profiles are applied. Only image.toml itself may say it, not a profile of it."""

    merge: Merge = Field(
        default="root", description='"root": a profile replaces nested objects whole. "deep": it merges them.'
    )


class Settings(Table):
    """``pesto/build/image.toml``: how the image of a PESTO project is built."""

    image: Image = Image()
    base: Base = Base()
    python: Python = Python()
    runtime: Runtime = Runtime()
    layers: LayersTable = LayersTable()
    profiles: Profiles = Profiles()
    trust: Trust = Trust()


def settings(document: Document, layers: Layers, merge: Merge) -> Settings:
    """*document*, the cascade of *layers*, as Settings. Raises ProjectError with every Problem."""
    try:
        return Settings.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ProjectError(_problems(error, layers, merge)) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of image.toml."""
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "image.toml"}


def _problems(error: ValidationError, layers: Layers, merge: Merge) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        path = details["loc"]
        yield Problem(origin(layers, path, merge), dotted(path), _message(details))


def _message(details: ErrorDetails) -> str:
    if details["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(details['loc'])}"
    message = details["msg"]
    if details["type"] == "pesto":
        return message
    return f"{message[0].lower()}{message[1:]}, not {_shown(details['input'])}"


def _shown(value: object) -> str:
    return f'"{redact(value)}"' if isinstance(value, str) else redact(repr(value))


def _suggestion(path: tuple[str | int, ...]) -> str:
    return did_you_mean(str(path[-1]), _keys(path[:-1]))


def _keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at *path* may have."""
    properties: Mapping[str, Any] = json_schema()["properties"]
    for name in path:
        table = properties[str(name)]["$ref"].rsplit("/", 1)[-1]
        properties = json_schema()["$defs"][table]["properties"]
    return list(properties)
