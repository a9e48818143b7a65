"""image.toml: defaults, what is refused, and its JSON Schema."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pesto_repro.errors import ProjectError
from pesto_repro.project.documents import parse_toml
from pesto_repro.project.pyrequires import CREDENTIALS
from pesto_repro.project.settings import Settings, json_schema, settings

_FILE = "pesto/build/image.toml"
_FULL = b"""
[image]
platforms = ["linux/amd64", "linux/arm64"]
user = "1000:1000"
labels = { maintainer = "me" }
embed-lock = true
[base]
debian = "trixie"
packages = ["libgl1", "libstdc++6"]
mirror = "https://mirror.example.org/debian"
[python]
version = "3.13"
requires = ["NumPy >=2"]
system-packages = true
index-url = "https://index.example.org/simple"
find-links = ["wheels"]
build-from-source = ["Markup_Safe"]
allow-unreproducible = ["odd"]
[python.build]
packages = ["gcc"]
[runtime]
package = "processing-factory==1.7.2"
closure = "full"
[layers]
max = 20
compression = "zstd"
[profiles]
merge = "deep"
[trust]
base-key = "keys/base.pub"
"""


def _read(text: bytes) -> Settings:
    document = parse_toml(_FILE, text)
    return settings(document, [(_FILE, document)], "root")


def _message(text: bytes) -> str:
    with pytest.raises(ProjectError) as caught:
        _read(text)
    return "\n".join(map(str, caught.value.problems))


def test_defaults() -> None:
    """Without image.toml everything has the value that the design names."""
    assert {
        "image": {"platforms": ("linux/amd64",), "user": "65532:65532", "labels": {}, "embed-lock": False},
        "base": {"debian": None, "packages": (), "mirror": None},
        "python": {
            "version": None,
            "system-packages": False,
            "requires": (),
            "index-url": None,
            "find-links": (),
            "build-from-source": (),
            "allow-unreproducible": (),
            "build": {"packages": ()},
        },
        "runtime": {"package": "processing-factory==1.7.2", "closure": "minimal"},
        "layers": {"max": 40, "compression": "gzip"},
        "profiles": {"merge": "root"},
        "trust": {"base-key": None},
    } == settings({}, [], "root").model_dump(by_alias=True)


def test_every_key_is_read() -> None:
    """A file that uses every key comes back as its values; requirements in one spelling."""
    read = _read(_FULL)
    assert ("linux/amd64", "linux/arm64") == read.image.platforms
    assert ("trixie", ("libgl1", "libstdc++6")) == (read.base.debian, read.base.packages)
    assert (("numpy>=2",), True) == (read.python.requires, read.python.system_packages)
    assert ("https://index.example.org/simple", ("wheels",)) == (
        read.python.index_url,
        read.python.find_links,
    )
    assert (("markup-safe",), ("odd",), ("gcc",)) == (
        read.python.build_from_source,
        read.python.allow_unreproducible,
        read.python.build.packages,
    )
    assert (True, "keys/base.pub") == (read.image.embed_lock, read.trust.base_key)
    assert ("full", 20, "zstd", "deep") == (
        read.runtime.closure,
        read.layers.max,
        read.layers.compression,
        read.profiles.merge,
    )


@pytest.mark.parametrize("user", ["0", "65532", "1000:1000", "root", "nobody", "nonroot"])
def test_users(user: str) -> None:
    """uid, uid:gid, the names that every base has."""
    assert user == _read(f'[image]\nuser = "{user}"'.encode()).image.user


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[image]\nplatform = ["linux/amd64"]', ':image.platform: unknown key; did you mean "platforms"?'),
        (b"[imagee]\n", ':imagee: unknown key; did you mean "image"?'),
        (b"zzz = 1", ":zzz: unknown key"),
        (b'[python]\nindex_url = "x"', ':python.index_url: unknown key; did you mean "index-url"?'),
        (b"[image]\nplatforms = []", ":image.platforms: must name at least one"),
        (
            b'[image]\nplatforms = ["linux/s390x"]',
            ":image.platforms.0: input should be 'linux/amd64' or 'linux/arm64', not \"linux/s390x\"",
        ),
        (
            b'[image]\nplatforms = ["linux/amd64", "linux/amd64"]',
            ':image.platforms: "linux/amd64" is there twice',
        ),
        (b"[image]\nuser = 1000", ":image.user: input should be a valid string, not 1000"),
        *(
            (
                f'[image]\nuser = "{user}"'.encode(),
                f':image.user: "{user}" is no user of the image: write a number, "uid" or "uid:gid", '
                "root, nobody or nonroot",
            )
            for user in ("a b", "algo", "www-data:staff", "root:0", "1:nobody")
        ),
        (b'[base]\ndebian = "sid"', ":base.debian: input should be 'bookworm' or 'trixie', not \"sid\""),
        (b"[layers]\nmax = 121", ":layers.max: input should be less than or equal to 120, not 121"),
        (b"[layers]\nmax = 0", ":layers.max: input should be greater than or equal to 1, not 0"),
        (b"[layers]\nmax = true", ":layers.max: input should be a valid integer, not True"),
        (
            b'[runtime]\npackage = "numpy"',
            ':runtime.package: "numpy" is not a requirement on processing-factory, such as "processing-factory==1.7.2"',
        ),
        (
            b'[base]\nmirror = "ftp://me:secret@h/"',
            ':base.mirror: "ftp://h/" is not an address that starts with https:// or http://',
        ),
        (
            b'[base]\nmirror = "https://h/debian https://me:secret@[h/debian"',
            ':base.mirror: "https://[h/debian" is not an address that starts with https:// or http://',
        ),
        (b'[python]\nindex-url = "https://me:secret@h/?s"', f':python.index-url: "https://h/" {CREDENTIALS}'),
        (b'[python]\nfind-links = ["a", "https://secret@h"]', f':python.find-links.1: "https://h" {CREDENTIALS}'),
        (
            b'[python]\nindex-url = "https://[h/"',
            ':python.index-url: "https://[h/" is no address: write https://HOST/PATH, file:///FOLDER or a path',
        ),
        (
            b'[python]\nrequires = ["x @ https://me:secret@h/x-1-py3-none-any.whl"]',
            ':python.requires.0: "x @ https://h/x-1-py3-none-any.whl" names an address, which a lock cannot: '
            'bring its wheel or sdist as a "type": "pip" entry of requirements.json, or name a git repository '
            "(git+https://HOST/REPOSITORY@REF)",
        ),
        (
            b'[python]\nindex-url = ["https://me:secret@h/"]',
            ":python.index-url: input should be a valid string, not ['https://h/']",
        ),
    ],
)
def test_what_is_refused(text: bytes, message: str) -> None:
    """Unknown keys with a suggestion, wrong values with what they are; never a password."""
    assert _FILE + message == _message(text)


def test_a_requirement_that_is_none() -> None:
    """PEP 508, with the reason."""
    expected = f'{_FILE}:python.requires.1: "numpy=2" is not a requirement (PEP 508): '
    assert _message(b'[python]\nrequires = ["ok", "numpy=2"]').startswith(expected)


def test_all_problems_are_told_and_the_right_file_is_blamed() -> None:
    """A value that a profile's file set is that file's problem."""
    base, profile = {"layers": {"max": 0}}, {"base": {"debian": "sid"}}
    layers: list[tuple[str, dict[str, Any]]] = [(_FILE, base), ("pesto/build/image.p1.toml", profile)]
    with pytest.raises(ProjectError) as caught:
        settings({**base, **profile}, layers, "root")
    assert [
        ("pesto/build/image.p1.toml", "base.debian"),
        ("pesto/build/image.toml", "layers.max"),
    ] == [(problem.file, problem.place) for problem in caught.value.problems]


def _keys(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tables = {"": {"properties": schema["$defs"]}, **schema["$defs"]}
    return {f"{name}.{key}": value for name, table in tables.items() for key, value in table["properties"].items()}


def test_the_schema_is_one_and_describes_every_key() -> None:
    """Editors complete from it: a valid draft 2020-12 schema, each key with a description."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert [] == [key for key, value in _keys(schema).items() if not value.get("description")]


def test_the_schema_judges_as_the_tool_does() -> None:
    """It takes the full file and refuses an unknown key."""
    validator = Draft202012Validator(json_schema())
    assert validator.is_valid(parse_toml(_FILE, _FULL))
    assert validator.is_valid({})
    assert not validator.is_valid({"image": {"platform": []}})
    assert not validator.is_valid({"layers": {"max": 121}})
