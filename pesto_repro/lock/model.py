"""The lock as values: a *pin* is a name with a digest and a size.

The lock names no host: an artifact *is* its digest and size, and where it lies is the business of whoever builds.
Keys of Python packages are those of PEP 751 where it has one. Everything here is frozen.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pesto_repro.digest import Digest

LOCK_VERSION = 1


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _is_hex(text: str) -> str:
    return Digest(text).hex


def _is_digest(text: str) -> str:
    return str(Digest.parse(text))


Sha256 = Annotated[str, AfterValidator(_is_hex)]
"""64 lower-case hex digits."""
DigestText = Annotated[str, AfterValidator(_is_digest)]
"""``sha256:`` and 64 lower-case hex digits."""


def canonicalize_name(name: str) -> str:
    """A package's name in normal form (PEP 503, "Normalized Names"), which is also how Debian writes its own."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Table(BaseModel):
    """A table of the lock: frozen, unknown keys refused, ``snake_case`` here is ``kebab-case`` there."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=_kebab, populate_by_name=True)


class Pin(Table):
    """Bytes by name: *sha256* and *size* (in bytes) say which."""

    name: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256)


class Assembly(Table):
    """Every rule that decides bytes. A program that follows other rules refuses the lock.

    *epoch* is the image's ``created``, RFC 3339 in UTC, and nothing else.
    """

    version: int
    compression: Literal["gzip", "zstd", "none"]
    compressor: str
    epoch: str


class ResourceInput(Table):
    """One entry of ``requirements.json`` as declared (credentials in an address are left out)."""

    key: str
    source: str
    to: str | None = None
    type: Literal["pip", "python"] | None = None
    sha256: Sha256 | None = None


class Input(Table):
    """What was asked, as values where a change should be told by value, else as digests.

    *environments* are NAME=value, in order, for a value may refer to those before it; *resources* are in order, too.
    *overrides* names what the command line of ``lock`` said in place of image.toml: "platforms", "merge".
    """

    name: str
    profiles: tuple[str, ...] = ()
    merge: Literal["root", "deep"] = "root"
    platforms: tuple[str, ...]
    base: str
    base_packages: tuple[str, ...] = ()
    python: str | None = None
    runtime: str
    closure: Literal["minimal", "full"] = "minimal"
    requires: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    max_layers: int
    compression: Literal["gzip", "zstd", "none"] = "gzip"
    user: str
    labels: dict[str, str] = {}
    environments: tuple[str, ...] = ()
    system_packages: bool = False
    build_from_source: tuple[str, ...] = ()
    allow_unreproducible: tuple[str, ...] = ()
    build_packages: tuple[str, ...] = ()
    embed_lock: bool = False
    resources: tuple[ResourceInput, ...] = ()
    documents: dict[str, DigestText] = {}
    overrides: tuple[Literal["merge", "platforms"], ...] = ()


class DebianPackage(Pin):
    """A Debian package; *filename* is its path below the mirror's root, *snapshot* the suite's Release date."""

    version: str
    architecture: str
    filename: str
    suite: str
    snapshot: str


class Source(Table):
    """What a wheel was built from.

    *name* of an sdist is that of its file, of a git repository its address without credentials, of a directory its
    path relative to the project. *sha256* and *size* are those of the sdist, else of the canonical tar of the tree.
    *requires* is what the build was done with, as far as it is Python's. *files* are those of the wheel, each as
    "<16 hex digits of its sha256> <path>", so that who gets another wheel is told where it differs; *reproducible* is
    False if two builds were not equal and that was allowed.
    """

    kind: Literal["sdist", "git", "directory"]
    name: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    commit: str | None = None
    subdirectory: str | None = None
    requires: tuple[PythonPackage, ...] = ()
    files: tuple[str, ...] = ()
    reproducible: bool = True

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256)


class PythonPackage(Table):
    """A Python package and the one wheel chosen for the platform.

    *index* names an index of the configuration ("default" for the main one), never its address; a wheel that a
    ``type: pip`` requirement brings has *resource* instead, that requirement's key. *upload_time* is RFC 3339 in UTC,
    where the index tells. A wheel that is nowhere but made here has the *source* that it is made from: *index*,
    *resource* and *upload_time* are the source's then.
    """

    name: str
    version: str
    index: str | None = None
    resource: str | None = None
    upload_time: str | None = None
    wheel: Pin
    source: Source | None = None


Source.model_rebuild()


class Interpreter(Table):
    """The base's Python: *version* in full, *executable* its absolute path in the image, *libc* as "glibc 2.36".

    Of a base image also where it is installed and its ABI ("cp311"); those of Debian's packages are known.
    """

    version: str
    executable: str
    libc: str
    prefix: str | None = None
    abi: str | None = None

    @property
    def minor(self) -> str:
        """``3.13`` of ``3.13.5``."""
        return ".".join(self.version.split(".")[:2])


class Blob(Table):
    """Bytes of a registry: a digest and a *size* in bytes."""

    digest: DigestText
    size: Annotated[int, Field(ge=0)]


class BaseLayer(Blob):
    """A layer of a base image, with the media type that the base's manifest gives it."""

    diff_id: DigestText
    media_type: str


class BroughtPackage(Table):
    """A Python package that is installed in the base."""

    name: str
    version: str


class BaseImage(Table):
    """The image that ours stands on. *original* is its name as the project declares it, without credentials.

    *index* is absent where the name leads to a manifest. *created* is RFC 3339 in UTC, if the base says it. *env* is
    the base's environment ("KEY=value") in its order; *links* are the directories that are links in it ("lib" ->
    "usr/lib"), *packages* those for its Python, as far as its layers had to be read.
    """

    original: str
    index: DigestText | None = None
    manifest: DigestText
    media_type: str
    config: Blob
    created: str | None = None
    layers: tuple[BaseLayer, ...]
    env: tuple[str, ...] = ()
    links: dict[str, str] = {}
    packages: tuple[BroughtPackage, ...] = ()

    @property
    def root(self) -> str:
        """The digest that the name led to: of the index, or of the manifest."""
        return self.index or self.manifest


class PlatformLock(Table):
    """Everything pinned for one platform. Packages are sorted by name.

    *build* are Debian packages that only the room has in which wheels are built, beside those of the base.
    """

    platform: str
    base: BaseImage | None = None
    python: Interpreter
    debian: tuple[DebianPackage, ...] = ()
    packages: tuple[PythonPackage, ...] = ()
    build: tuple[DebianPackage, ...] = ()

    @property
    def built(self) -> tuple[PythonPackage, ...]:
        """Those of *packages* whose wheels are built from source."""
        return tuple(each for each in self.packages if each.source is not None)


class Resource(Table):
    """A file, directory, archive or download that ``requirements.json`` names.

    *form* says how it lands: an unpacked "archive", a "file", a "directory". *sha256* and *size* are those of the
    file or archive; a directory has only its *tree*: the digest of its list of (path, executable, sha256).
    """

    key: str
    form: Literal["archive", "file", "directory"]
    source: str
    to: str
    sha256: Sha256 | None = None
    size: int | None = None
    tree: DigestText | None = None


class Lock(Table):
    """A locked project. ``content_hash`` is its address; see ``pesto_repro.lock.text``."""

    lock_version: int
    content_hash: DigestText
    assembly: Assembly
    input: Input
    resources: tuple[Resource, ...] = ()
    platforms: tuple[PlatformLock, ...]

    def platform(self, name: str) -> PlatformLock:
        """The part for platform *name*, "linux/amd64". Raises KeyError."""
        for each in self.platforms:
            if each.platform == name:
                return each
        raise KeyError(name)
