"""``dockerBaseImage`` -> digests, and what a project must know of the base: its Python, C library, links, packages.

Rules:

* Pinned is what the name leads to (an index or a manifest), the manifest of each platform, its config and its layers.
* The config says enough if it is that of an official Python image on a Debian whose C library is known. Otherwise, and
  where the base's packages are wanted, the layers are read: once, as they stream by, and never kept.
* The Python is the one that the base's PATH leads to, links followed, as a shell would find ``python3``.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from posixpath import basename, dirname, join
from typing import Any

from packaging.version import InvalidVersion, Version

from pesto_repro.build.base import Source, layers_of
from pesto_repro.build.compress import as_stream, decompressed
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import BuildError, FetchError, ResolveError
from pesto_repro.lock.model import (
    BaseImage,
    BaseLayer,
    Blob,
    BroughtPackage,
    Interpreter,
    canonicalize_name,
)
from pesto_repro.oci import CPUS, MEDIA_TYPES, Descriptor, Layer, Platform
from pesto_repro.plan.make import DEFAULT_PATH, VENV
from pesto_repro.progress import Reporter
from pesto_repro.registry.content import INDICES, Document, read_document
from pesto_repro.registry.ports import Content
from pesto_repro.resolve.base_scan import Listing, Root, remembered, scan
from pesto_repro.store import Store

_PARALLEL = 4
_NO_PYTHON = 'use a base that has one, or build it of Debian packages: `[base]` with `debian = "trixie"` in image.toml'
_VERSION = re.compile(r"3\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
_NAMED = re.compile(r"python(3\.\d+)(t?)")
_SUITE = re.compile(r"\bdebian\.sh\b.*'(bookworm|trixie)'")
"""How the official Debian images say in their history of what suite they are."""
_SUITES = {"bookworm": "glibc 2.36", "trixie": "glibc 2.41"}
_MERGED = {"amd64": ("bin", "lib", "lib64", "sbin"), "arm64": ("bin", "lib", "sbin")}
_COMPRESSION = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_DIST_INFO = re.compile(r"([^/]+)-([^/-]+)\.dist-info/METADATA")
_EGG_INFO = re.compile(r"([^/]+?)-([^/-]+)(?:-py3(?:\.\d+)?)?\.egg-info(?:/PKG-INFO)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a base: for which *platform*, which *python* ("3.12"), whether its *packages* are to be used."""

    original: str
    platform: Platform
    python: str | None = None
    packages: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A base and its interpreter."""

    base: BaseImage
    python: Interpreter


def resolve(
    asked: Asked, root: Descriptor, source: Source, store: Store, reporter: Reporter, old: Found | None = None
) -> Found:
    """The base that *root* leads to; *old* is what is known of an earlier one, which need not be read again.

    Raises FetchError, and ResolveError for an image that cannot be a base.
    """
    content = source.content
    manifest, index = _manifest(asked, content, root)
    data = content.document(manifest.blobs[0])
    base = _pinned(asked, manifest, index, config := _config(asked, data))
    store.put(data)
    if old is not None and old.base.manifest == base.manifest:
        return Found(old.base.model_copy(update={"index": index}), old.python)
    python, links, packages = _facts(asked, base, config, content, store, reporter)
    base = base.model_copy(update={"links": links, "packages": packages})
    return Found(base, python)


# -- documents ---------------------------------------------------------------------------------------------------------


def _manifest(asked: Asked, content: Content, root: Descriptor) -> tuple[Document, str | None]:
    """The manifest for the platform, and the digest of the index that names it."""
    document, index = read_document(root, content.document(root)), None
    while document.descriptor.media_type in INDICES:
        index = index or str(document.descriptor.digest)
        child = _chosen(asked, document)
        document = read_document(child, content.document(child))
    return document, index


def _chosen(asked: Asked, index: Document) -> Descriptor:
    """image-index.md: "the first matching entry"; one that does not say its platform is judged by its config."""
    entries = list(zip(index.children, index.platforms, strict=True))
    matching = [child for child, platform in entries if platform is not None and asked.platform.runs(platform)]
    matching = matching or [child for child, platform in entries if platform is None][:1]
    if not matching:
        names = sorted({str(platform) for _, platform in entries if platform and platform.os != "unknown"})
        others = ", ".join(names) or "nobody"
        raise ResolveError(
            f"the base image {asked.original} is not there for {asked.platform}, only for {others}",
            "choose another base, or other platforms in [image] of image.toml",
        )
    return matching[0]


def _config(asked: Asked, data: bytes) -> Mapping[str, Any]:
    try:
        config: dict[str, Any] = json.loads(data)
        made_for = Platform(config["os"], config["architecture"], config.get("variant") or None)
    except (ValueError, KeyError, TypeError) as error:
        raise ResolveError(f"the base image {asked.original} has no config that can be understood: {error!r}") from None
    if not asked.platform.runs(made_for):
        raise ResolveError(
            f"the base image {asked.original} is for {made_for}, not for {asked.platform}",
            "choose another base, or other platforms in [image] of image.toml",
        )
    return config


def _pinned(asked: Asked, manifest: Document, index: str | None, config: Mapping[str, Any]) -> BaseImage:
    """config.md, "rootfs": as many diff_ids as layers, in the same order."""
    described, *layers = manifest.blobs
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(diff_ids) != len(layers):
        raise ResolveError(f"the base image {asked.original} has {len(layers)} layers, but {len(diff_ids)} diff_ids")
    base = BaseImage(
        original=asked.original,
        index=index,
        manifest=str(manifest.descriptor.digest),
        media_type=manifest.descriptor.media_type,
        config=Blob(digest=str(described.digest), size=described.size),
        created=_created(config),
        layers=tuple(
            BaseLayer(digest=str(each.digest), size=each.size, diff_id=diff_id, media_type=each.media_type)
            for each, diff_id in zip(layers, diff_ids, strict=True)
        ),
        env=tuple((config.get("config") or {}).get("Env") or ()),
    )
    list(layers_of(base))  # raises for layers that cannot be copied
    return base


def _created(config: Mapping[str, Any]) -> str | None:
    """RFC 3339, as it begins if it is in UTC: seconds are enough."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z$", str(config.get("created") or ""))
    return f"{found[1]}Z" if found else None


# -- what the config says ----------------------------------------------------------------------------------------------


def environment(base: BaseImage) -> dict[str, str]:
    """The base's environment as a table."""
    return dict(each.partition("=")[::2] for each in base.env)


_Facts = tuple[Interpreter, dict[str, str], tuple[BroughtPackage, ...]]


def _facts(
    asked: Asked, base: BaseImage, config: Mapping[str, Any], content: Content, store: Store, reporter: Reporter
) -> _Facts:
    said = None if asked.packages else _said(asked, base, config)
    if said is not None:
        return said
    root = _root(base, content, store, reporter)
    if root.find(f"{VENV}/pyvenv.cfg"):
        raise ResolveError(
            f"the base image {asked.original} has a virtual environment at /{VENV}, where the image's own goes",
            "use a base that has its packages elsewhere",
        )
    python = interpreter(asked, root, environment(base))
    return python, root.links(), tuple(_packages(root, python))


def _said(asked: Asked, base: BaseImage, config: Mapping[str, Any]) -> _Facts | None:
    """What the config of an official Python image says: its version, where it is, and by its Debian, the rest."""
    env = environment(base)
    version, path = env.get("PYTHON_VERSION", ""), env.get("PATH", "").split(":")
    history = [str(each.get("created_by") or "") for each in config.get("history") or ()]
    suite = next((match[1] for each in history if (match := _SUITE.search(each))), None)
    if suite is None or path[0] != "/usr/local/bin" or not _VERSION.fullmatch(version):
        return None
    minor = ".".join(version.split(".")[:2])
    if asked.python not in (None, minor):
        return None
    links = {name: f"usr/{name}" for name in _MERGED[asked.platform.architecture]}
    links |= {"var/lock": "run/lock", "var/run": "run"}
    return _interpreter(version, f"/usr/local/bin/python{minor}", _SUITES[suite], minor), links, ()


# -- what the layers say -----------------------------------------------------------------------------------------------


def _root(base: BaseImage, content: Content, store: Store, reporter: Reporter) -> Root:
    """The base's files, each layer read once."""
    layers = {each.descriptor.digest: each for each in layers_of(base)}
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="scan") as pool:
        read = [partial(_listing, each, content, reporter) for each in layers.values()]
        found = pool.map(lambda digest, job: remembered(digest, store, job), layers, read)
        listings = dict(zip(layers, found, strict=True))
    return Root(listings[Digest.parse(each.digest)] for each in base.layers)


def _listing(layer: Layer, content: Content, reporter: Reporter) -> Listing:
    described = layer.descriptor
    label = f"{layer.name} {described.digest.hex[:12]}"
    with reporter.activity("read", label, described.size) as activity, content.open(described) as blob:

        def pieces() -> Iterator[bytes]:
            for piece in chunks(blob, 64 << 10):
                activity.advance(len(piece))
                yield piece

        try:
            found = scan(as_stream(decompressed(pieces(), _COMPRESSION[described.media_type])))
            for _ in pieces():  # who reads to the end has the right bytes
                pass
        except (tarfile.TarError, BuildError) as error:
            raise FetchError(f"a layer of the base image {layer.name} cannot be read: {error}") from None
    return found


def interpreter(asked: Asked, root: Root, env: Mapping[str, str]) -> Interpreter:
    """The Python that PATH leads to. Raises ResolveError if there is none, or none that we can build for."""
    path = (env.get("PATH") or DEFAULT_PATH).split(":")
    names = [f"python{asked.python}"] if asked.python else []
    for name in (*names, "python3", "python"):
        for folder in path:
            executable = root.real(join("/", folder, name))
            node = root.find(executable)
            if node is None or root.find(join(dirname(dirname(executable)), "pyvenv.cfg")):
                continue
            minor = _minor(asked, root, executable)
            if asked.python in (None, minor):
                version = _version(root, executable, minor)
                return _interpreter(version, f"/{executable}", _libc(asked, root, node.fact("loader") or ""), minor)
    wanted = f"Python {asked.python}" if asked.python else "Python 3"
    raise ResolveError(f"the base image {asked.original} has no {wanted} on its PATH ({':'.join(path)})", _NO_PYTHON)


def _interpreter(version: str, executable: str, libc: str, minor: str) -> Interpreter:
    prefix = dirname(dirname(executable))
    abi = "cp" + minor.replace(".", "")
    return Interpreter(version=version, executable=executable, libc=libc, prefix=prefix, abi=abi)


def _minor(asked: Asked, root: Root, executable: str) -> str:
    """``3.11`` by the interpreter's name, else by the standard library beside it."""
    named = _NAMED.fullmatch(basename(executable))
    libraries = [join(dirname(dirname(executable)), name) for name in ("lib", "lib64")]
    beside = sorted({match for _, path in root.files(libraries) if (match := _standard_library(path))})
    found = [named[1] + named[2]] if named is not None else beside
    if len(found) == 1 and not found[0].endswith("t"):
        return found[0]
    what = "is free-threaded" if len(found) == 1 else "does not tell its version"
    raise ResolveError(f"the base image {asked.original} has /{executable}, which {what}", "choose another base")


def _standard_library(path: str) -> str | None:
    match = re.fullmatch(r"python(3\.\d+t?)/os\.py", path)
    return match[1] if match else None


def _version(root: Root, executable: str, minor: str) -> str:
    """In full, as the interpreter, its library or its header has it; else what is known of it."""
    prefix, library = dirname(dirname(executable)), f"libpython{minor}.so.1.0"
    places = [executable, *(join(prefix, name, library) for name in ("lib", "lib64", *_multiarch()))]
    places.append(join(prefix, f"include/python{minor}/patchlevel.h"))
    for place in places:
        node = root.find(place)
        version = node.fact("version", f"{minor}.") if node else None
        if version:
            return version
    return minor


def _multiarch() -> Iterator[str]:
    return (f"lib/{name}-linux-gnu" for name in CPUS.values())


def _libc(asked: Asked, root: Root, loader: str) -> str:
    """``glibc 2.36`` or ``musl 1.2``; *loader* is what the interpreter names, if it was seen."""
    machine = CPUS[asked.platform.architecture]
    musl = root.find(loader if "musl" in loader else f"lib/ld-musl-{machine}.so.1")
    folders = ("lib", "lib64", "usr/lib", "usr/lib64")
    places = [join(folder, middle) for folder in folders for middle in (f"{machine}-linux-gnu", "")]
    nodes = [node for place in places if (node := root.find(join(place, "libc.so.6")))]
    glibc = next((version for node in nodes if (version := node.fact("version"))), None)
    if glibc and "musl" not in loader:
        return f"glibc {glibc}"
    version = musl.fact("version", "1.") if musl else None
    if version:
        return f"musl {'.'.join(version.split('.')[:2])}"
    raise ResolveError(
        f"the base image {asked.original} has no C library that is known: neither glibc nor musl",
        "use a base that was made from a distribution of Linux",
    )


def site_folders(python: Interpreter) -> list[str]:
    """Where *python* looks for installed packages, first things first (site.py; Debian has its own folders)."""
    prefix, minor = python.prefix or "", python.minor
    found = [f"{prefix}/{name}/python{minor}/site-packages" for name in ("lib", "lib64")]
    if prefix == "/usr":
        found += [f"/usr/local/lib/python{minor}/{name}" for name in ("dist-packages", "site-packages")]
        found += ["/usr/lib/python3/dist-packages", f"/usr/lib/python{minor}/dist-packages"]
    return found


def _packages(root: Root, python: Interpreter) -> Iterable[BroughtPackage]:
    """What is installed for *python*, sorted by name; of several versions the one that is imported."""
    found: dict[str, str] = {}
    for _, path in root.files(site_folders(python)):
        match = _DIST_INFO.fullmatch(path) or _EGG_INFO.fullmatch(path)
        if match and _is_version(match[2]):
            found.setdefault(canonicalize_name(match[1]), match[2])
    return [BroughtPackage(name=name, version=found[name]) for name in sorted(found)]


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def names(packages: Sequence[BroughtPackage], shown: int = 8) -> str:
    """*packages* for people."""
    listed = [f"{each.name} {each.version}" for each in packages[:shown]]
    more = len(packages) - shown
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")
