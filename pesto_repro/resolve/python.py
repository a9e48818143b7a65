"""Requirements -> the one wheel of each package for the image, through ``uv``.

* One joint resolution for each platform: the runtime, the project's requirements and the wheels it brings.
* For the image's Python, libc and CPU; the host's Python only runs ``uv`` and decides nothing.
* ``uv`` says which versions and which wheels fit; of those the one that suits the image best is pinned.
* Sdists only of the packages that are named for it. What these require is said in ``uv``'s configuration, also before
  it is known, so that ``uv`` never builds anything: that runs strangers' code.
* Pins stay: versions are given to ``uv`` as preferences, and a pinned wheel is kept while it is still
  offered.
* ``uv`` reads no configuration file of its own: where packages lie comes in as :class:`Indexes`, so that
  resolving and downloading ask the same places. Addresses reach it in its environment, which ``ps`` does not
  show.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import uv
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from pesto_repro.addresses import public, redact, secrets_of
from pesto_repro.digest import Digest
from pesto_repro.errors import MismatchError, ResolveError
from pesto_repro.fetch.index import FIND_LINKS, Indexes, with_credentials
from pesto_repro.lock.model import BroughtPackage, Interpreter, Pin, PythonPackage, Source
from pesto_repro.progress import Reporter
from pesto_repro.resolve.failures import NoWheels, failure

MINIMAL = {
    # The service imports no more than this: health, describe and process answer as with the full closure (266
    # MB, two packages without wheels). FastAPI 0.83.0 keeps pydantic below 2, which the service's models
    # need.
    ("processing-factory", "1.7.2"): (
        "fastapi==0.83.0",
        "uvicorn",
        "loguru",
        "numpy",
        "rasterio",
        "jsonschema",
    ),
}
"""What the runtime needs to serve, by its version: all of its dependencies that the minimal closure has."""

ARCHITECTURES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_MANYLINUX = (17, 28, *range(31, 41))
"""The minor versions of glibc that ``uv pip compile --python-platform`` knows."""
_MUSL = 2
"""The minor version of musl that ``uv pip compile --python-platform`` means where it says musl."""
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""PEP 600, "Legacy manylinux tags"."""
_OLDEST = {"x86_64": 5, "aarch64": 17}
_PARALLEL = 8

Download = Callable[[str, str], tuple[Digest, int]]
"""(address, label) -> digest and size of what lies there and is in the store then: ``Fetcher.pin``."""


@dataclass(frozen=True, slots=True)
class LocalWheel:
    """A wheel that the project brings: the *path* of its bytes, the *key* of its ``type: pip`` requirement, if any.

    *source* is what it was made from, *extras* those of the requirement by address that it answers.
    """

    key: str | None
    filename: str
    path: Path
    digest: Digest
    size: int
    source: Source | None = None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a package that is built from source says of itself."""

    name: str
    version: str
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sdist:
    """The source distribution that was chosen for a package, and where it lies."""

    name: str
    version: str
    file: Pin
    url: str
    index: str | None = None
    upload_time: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What answers a request: *packages* that have wheels, and *sdists* of those that are to be built; by name."""

    packages: tuple[PythonPackage, ...]
    sdists: tuple[Sdist, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for one platform; *closure* says how much of the *runtime*'s dependencies is wanted.

    *brought* are packages that the base has and that are to be used: they are pinned, and not installed again. Of
    *from_source* only sdists are taken, of the others only wheels; *metadata* is what is known of such sdists. The
    closure is "none" where no runtime is asked for.
    """

    requires: tuple[str, ...]
    constraints: tuple[str, ...]
    runtime: str
    closure: str
    python: Interpreter
    platform: str
    wheels: tuple[LocalWheel, ...] = ()
    brought: tuple[BroughtPackage, ...] = ()
    keep: tuple[PythonPackage, ...] = ()
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    from_source: tuple[str, ...] = ()
    metadata: tuple[Metadata, ...] = ()

    @property
    def target(self) -> str:
        libc = " with musl" if _musl_minor(self.python.libc) else ""
        return f"Python {self.python.minor} on {self.platform}{libc}"

    @property
    def used(self) -> tuple[BroughtPackage, ...]:
        """Those of *brought* that count: the runtime is always ours, as are the wheels that the project brings."""
        runtime = {canonicalize_name(Requirement(self.runtime).name)} if self.runtime else set()
        ours = {*runtime, *map(wheel_name, self.wheels)}
        return tuple(each for each in self.brought if each.name not in ours)

    def keeps(self, name: str) -> bool:
        """Whether the pin of package *name* is to stay if it can."""
        return not self.upgrade and name not in {canonicalize_name(each) for each in self.upgrade_packages}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A wheel that uv offers. *sha256* and *size* are None where the index does not say."""

    filename: str
    url: str
    sha256: str | None
    size: int | None
    uploaded: datetime | None


def resolve(
    request: Request,
    indexes: Indexes,
    environment: Mapping[str, str],
    download: Download,
    reporter: Reporter,
) -> tuple[PythonPackage, ...]:
    """The wheels of *request*, sorted by name, which takes no sdists; else like :func:`resolve_all`."""
    assert not request.from_source
    return resolve_all(request, indexes, environment, download, reporter).packages


def resolve_all(
    request: Request,
    indexes: Indexes,
    environment: Mapping[str, str],
    download: Download,
    reporter: Reporter,
) -> Resolution:
    """What answers *request*. *environment* is uv's: PATH, HOME, proxies, its cache; no index.

    Raises ResolveError with the chain of reasons (NoWheels where that is the reason), FetchError or OfflineError where
    an index could not be asked.
    """
    requirements = [*_runtime(request), *request.requires]
    with reporter.activity("resolve", request.platform), tempfile.TemporaryDirectory() as name:
        run = _Uv(Path(name), request, indexes, environment, reporter)
        packages = run.compile(requirements)
        sources = run.indexes_of(packages)
    used = {each.name for each in request.used}
    chosen = [_choose(each, request) for each in packages if canonicalize_name(each["name"]) not in used]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        pinned = list(pool.map(lambda each: _pin(each, request, indexes, sources, download, reporter), chosen))
    pinned.sort(key=lambda each: each.name)
    return Resolution(
        tuple(each for each in pinned if isinstance(each, PythonPackage)),
        tuple(each for each in pinned if isinstance(each, Sdist)),
    )


# -- what is asked -----------------------------------------------------------------------------------------


def _runtime(request: Request) -> tuple[str, ...]:
    """The runtime's requirement, and in the minimal closure those that stand for its dependencies."""
    if request.closure == "none":
        return ()
    if request.closure == "full":
        return (request.runtime,)
    return (request.runtime, *MINIMAL[_minimal_key(request.runtime)])


def _minimal_key(runtime: str) -> tuple[str, str]:
    requirement = Requirement(runtime)
    key = (canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("=="))
    if key not in MINIMAL:
        known = ", ".join(f"{name}=={version}" for name, version in MINIMAL)
        raise ResolveError(
            f"nobody knows the minimal closure of {runtime}",
            f'set [runtime] closure = "full" in image.toml, or package to one of: {known}',
        )
    return key


def python_platform(platform: str, libc: str) -> str:
    """uv's name of *platform* with *libc*: never newer than the image's.

    >>> python_platform("linux/amd64", "glibc 2.41")
    'x86_64-manylinux_2_40'
    """
    minor = _glibc_minor(libc)
    known = [each for each in _MANYLINUX if each <= minor]
    if _musl_minor(libc) >= _MUSL and platform in ARCHITECTURES:
        return f"{ARCHITECTURES[platform]}-unknown-linux-musl"
    if not known or platform not in ARCHITECTURES:
        raise ResolveError(f"there are no wheels to look for on {platform} with {libc}", "use a newer base")
    return f"{ARCHITECTURES[platform]}-manylinux_2_{known[-1]}"


def image_tags(python: Interpreter, platform: str) -> list[Tag]:
    """The tags that the image's interpreter accepts, best first: computed, never those of the host."""
    major, minor = map(int, python.minor.split("."))
    architecture = ARCHITECTURES[platform]
    platforms = []
    for each in range(_musl_minor(python.libc), 0, -1):
        platforms.append(f"musllinux_1_{each}_{architecture}")  # PEP 656
    for each in range(_glibc_minor(python.libc), _OLDEST[architecture] - 1, -1):
        platforms.append(f"manylinux_2_{each}_{architecture}")
        if each in _LEGACY:
            platforms.append(f"{_LEGACY[each]}_{architecture}")
    platforms.append(f"linux_{architecture}")
    interpreter = f"cp{major}{minor}"
    best = cpython_tags((major, minor), [interpreter], platforms)
    return [*best, *compatible_tags((major, minor), interpreter, platforms)]


def _glibc_minor(libc: str) -> int:
    """36 of "glibc 2.36"; 0 for a libc that manylinux (PEP 600) does not speak of."""
    found = re.fullmatch(r"glibc 2\.(\d+)", libc)
    return int(found[1]) if found else 0


def _musl_minor(libc: str) -> int:
    """2 of "musl 1.2"; 0 for another libc."""
    found = re.fullmatch(r"musl 1\.(\d+)", libc)
    return int(found[1]) if found else 0


# -- uv ----------------------------------------------------------------------------------------------------


class _Uv:
    """Runs of uv in one temporary folder, with one configuration."""

    def __init__(
        self,
        folder: Path,
        request: Request,
        indexes: Indexes,
        environment: Mapping[str, str],
        reporter: Reporter,
    ) -> None:
        self._folder, self._request, self._indexes, self._reporter = folder, request, indexes, reporter
        self._environment = {**environment, **_variables(indexes)}
        self._secrets = indexes.secrets | secrets_of(each for each in environment.values() if "://" in each)
        self._local = {wheel.filename: wheel for wheel in request.wheels}
        (folder / "uv.toml").write_text(_configuration(request), "utf-8")

    def compile(self, requirements: Sequence[str]) -> list[dict[str, Any]]:
        """The ``packages`` of the pylock.toml (PEP 751) that answers *requirements* and the local wheels."""
        output = self._folder / "pylock.toml"
        if preferences := _preferences(self._request):
            output.write_text(preferences, "utf-8")
        given = [*map(self._link, self._request.wheels), *map(self._stand_in, self._request.used)]
        self._write("requirements.in", [*requirements, *given])
        options = ["--output-file", output.name, "--format", "pylock.toml", *self._upgrades()]
        if self._request.constraints:
            self._write("constraints.txt", self._request.constraints)
            options += ["--constraints", "constraints.txt"]
        self._run(["requirements.in", *options])
        packages: list[dict[str, Any]] = tomllib.loads(output.read_text("utf-8")).get("packages", [])
        return packages

    def indexes_of(self, packages: Sequence[dict[str, Any]]) -> dict[str, str]:
        """The name of the index of each package. uv's pylock.toml does not say, its other format does."""
        if len(self._indexes.active) == 1 and not self._indexes.find_links:
            return {each["name"]: self._indexes.active[0].name for each in packages}
        listed = [f"{each['name']}=={each['version']}" for each in packages if "wheels" in each or "sdist" in each]
        if not listed:
            return {}
        self._write("pins.in", listed)
        text = self._run(["pins.in", "--no-deps", "--emit-index-annotation", "--no-annotate"])
        names = {_bare(each.url): each.name for each in self._indexes.active}
        found = re.findall(r"^([\w.-]+)==.*?^\s*# from (\S+)", text, re.M | re.S)
        return {canonicalize_name(name): names.get(_bare(url), FIND_LINKS) for name, url in found}

    def _run(self, arguments: Sequence[str]) -> str:
        command = [uv.find_uv_bin(), "pip", "compile", *arguments, *self._options()]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        told = self._clean(done.stderr)
        if done.returncode:
            raise failure(told, self._request)
        for line in told.splitlines():
            # uv remarks on every host that lacks the image's Python, which does not matter here.
            if line.startswith("warning: ") and "requested Python version" not in line:
                self._reporter.warn(line.removeprefix("warning: "))
        return done.stdout

    def _upgrades(self) -> list[str]:
        options = ["--upgrade"] if self._request.upgrade else []
        for name in self._request.upgrade_packages:
            options += ["--upgrade-package", name]
        return options

    def _options(self) -> list[str]:
        python, platform = self._request.python, self._request.platform
        options = ["--config-file", "uv.toml", "--only-binary", ":all:", "--generate-hashes", "--no-header"]
        options += ["--python-platform", python_platform(platform, python.libc)]
        options += ["--python-version", python.version, "--python", sys.executable, "--no-python-downloads"]
        options += ["--color", "never", "--no-progress"]
        for name in self._request.from_source:
            options += ["--no-binary", name]
        return options + (["--no-index"] if self._indexes.no_index else [])

    def _link(self, wheel: LocalWheel) -> str:
        """A requirement for *wheel*, under its own name: in a store the file's name is its digest."""
        path = self._folder / wheel.filename
        path.symlink_to(wheel.path.resolve())
        extras = f"[{','.join(wheel.extras)}]" if wheel.extras else ""
        return f"{wheel_name(wheel)}{extras} @ {path.as_uri()}"

    def _stand_in(self, package: BroughtPackage) -> str:
        """A requirement that only a package of the base meets: a wheel that says its name and version, no more.

        So what the base has need not be on any index, and what it was installed with is not asked for again.
        """
        name, version = package.name.replace("-", "_"), str(Version(package.version))
        path, info = self._folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return f"{package.name} @ {path.as_uri()}"

    def _write(self, name: str, lines: Iterable[str]) -> None:
        (self._folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def _clean(self, text: str) -> str:
        """What uv said, without colours, credentials and paths of the temporary folder."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        for folder in (self._folder.as_uri(), str(self._folder)):
            text = text.replace(f"{folder}/", "")
        return redact(text, self._secrets)


def _variables(indexes: Indexes) -> dict[str, str]:
    """The places of *indexes* as uv's variables: the main index is its default, the rest go before."""
    variables: dict[str, str] = {"UV_INDEX_STRATEGY": indexes.strategy}
    if indexes.active:
        variables["UV_DEFAULT_INDEX"] = indexes.active[-1].url
        variables["UV_INDEX"] = " ".join(f"{each.name}={each.url}" for each in indexes.active[:-1])
    if indexes.find_links:
        variables["UV_FIND_LINKS"] = ",".join(indexes.find_links)
    if indexes.cert:
        variables["SSL_CERT_FILE"] = str(indexes.cert)
    return variables


def _configuration(request: Request) -> str:
    """A uv.toml that says what uv is not to find out.

    The runtime has no dependencies, for the minimal closure, whoever requires it. What is built from source has those
    that are known; of a version that was not built yet, none so far.
    """
    said = [Metadata(*_minimal_key(request.runtime))] if request.closure == "minimal" else []
    tables = [_dependency_metadata(each) for each in [*said, *request.metadata]]
    tables += [f'[[dependency-metadata]]\nname = "{name}"\nrequires-dist = []\n' for name in request.from_source]
    return "\n".join(tables)


def _dependency_metadata(known: Metadata) -> str:
    said = {"name": known.name, "version": known.version, "requires-dist": list(known.requires_dist)}
    said |= {"requires-python": known.requires_python} if known.requires_python else {}
    said |= {"provides-extra": list(known.extras)} if known.extras else {}
    return "\n".join(["[[dependency-metadata]]", *(f"{key} = {json.dumps(value)}" for key, value in said.items()), ""])


def _preferences(request: Request) -> str:
    """A pylock.toml of the existing pins: uv prefers the versions that it finds in its output file."""
    header = 'lock-version = "1.0"\ncreated-by = "pesto-repro"\n'
    pins = [
        f'\n[[packages]]\nname = "{each.name}"\nversion = "{each.version}"\n'
        for each in request.keep
        if each.resource is None
    ]
    return header + "".join(pins) if pins else ""


def wheel_name(wheel: LocalWheel) -> str:
    """The package that *wheel* is of. Raises ResolveError for what is no wheel."""
    try:
        return parse_wheel_filename(wheel.filename)[0]
    except InvalidWheelFilename:
        raise ResolveError(
            f'requirement "{wheel.key}": {wheel.filename} is not a wheel', "name a wheel or a source distribution"
        ) from None


# -- the one wheel -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chosen:
    name: str
    version: str
    file: _Offer
    local: LocalWheel | None = None
    is_sdist: bool = False


def _choose(package: Mapping[str, Any], request: Request) -> _Chosen:
    """The best wheel of a ``[[packages]]`` table of PEP 751, or the wheel that the project brought."""
    name = canonicalize_name(package["name"])
    if "archive" in package:
        return _brought(name, package, request)
    if name in request.from_source and "sdist" in package:
        return _Chosen(name, package["version"], _offer(package["sdist"]), is_sdist=True)
    offers = [_offer(each) for each in package.get("wheels", ())]
    best = _best(offers, request, name)
    if best is None:
        raise NoWheels(f"{name} {package['version']} has no wheel for {request.target}", [name])
    return _Chosen(name, package["version"], best)


def _brought(name: str, package: Mapping[str, Any], request: Request) -> _Chosen:
    archive = package["archive"]
    for wheel in request.wheels:
        if wheel.filename == _basename(archive.get("path") or archive.get("url", "")):
            version = package.get("version") or str(parse_wheel_filename(wheel.filename)[1])
            offer = _Offer(wheel.filename, "", wheel.digest.hex, wheel.size, None)
            return _Chosen(name, version, offer, wheel)
    raise ResolveError(
        f"{name} is required from an address by another package; a lock names no host",
        "require it yourself, from a git repository or a folder, or bring its wheel as a "
        '"type": "pip" entry of requirements.json',
    )


def _offer(table: Mapping[str, Any]) -> _Offer:
    url = table.get("url", "")
    path = table.get("path")
    address = url or (Path(path).as_uri() if path else "")
    return _Offer(
        table.get("name") or _basename(address),
        address,
        table.get("hashes", {}).get("sha256"),
        table.get("size"),
        table.get("upload-time"),
    )


def _best(offers: Sequence[_Offer], request: Request, name: str) -> _Offer | None:
    """The wheel pinned so far if it is still offered, else the one whose tag comes first, if one fits."""
    rank = {tag: number for number, tag in enumerate(image_tags(request.python, request.platform))}
    fitting = {each.filename: each for each in offers if _rank(each.filename, rank) is not None}
    pinned = _kept(request, name)
    if pinned is not None and pinned.wheel.name in fitting:
        return fitting[pinned.wheel.name]
    return min(fitting.values(), key=lambda each: (_rank(each.filename, rank), each.filename), default=None)


def _rank(filename: str, rank: Mapping[Tag, int]) -> tuple[int, int, str] | None:
    """Less is better. PEP 427: the build number "acts as a tie-breaker"; the higher is the newer."""
    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    accepted = [rank[tag] for tag in tags if tag in rank]
    number, suffix = build or (0, "")
    return (min(accepted), -number, suffix) if accepted else None


def _kept(request: Request, name: str) -> PythonPackage | None:
    found = (each for each in request.keep if each.name == name and each.resource is None)
    return next(found, None) if request.keeps(name) else None


def _pin(
    chosen: _Chosen,
    request: Request,
    indexes: Indexes,
    sources: Mapping[str, str],
    download: Download,
    reporter: Reporter,
) -> PythonPackage | Sdist:
    """What the lock says of *chosen*; bytes whose digest or size the index does not tell are downloaded."""
    offer = _as_pinned(chosen, request, reporter)
    if chosen.local is not None:
        return _package(chosen, offer, resource=chosen.local.key)
    if offer.sha256 is None or offer.size is None:
        offer = _measured(offer, indexes, download)
    if chosen.is_sdist:
        return _sdist(chosen, replace(offer, url=_asked_as(offer.url, indexes)), sources.get(chosen.name))
    return _package(chosen, offer, index=sources.get(chosen.name))


def _as_pinned(chosen: _Chosen, request: Request, reporter: Reporter) -> _Offer:
    """The offer of *chosen*, with the size that the existing pin knows. A file that was replaced is told."""
    offer, kept = chosen.file, _kept(request, chosen.name)
    pinned = (kept.source if chosen.is_sdist else kept.wheel) if kept is not None else None
    if pinned is None or pinned.name != offer.filename:
        return offer
    if offer.sha256 in (None, pinned.sha256):
        return replace(offer, sha256=pinned.sha256, size=pinned.size)
    if kept is not None and kept.source is not None and not chosen.is_sdist:
        return offer  # nobody replaced what was built here, of a folder or a branch that went on
    reporter.warn(
        f"{offer.filename} is not the file that was pinned: sha256:{pinned.sha256}, now sha256:{offer.sha256}",
        "find out who replaced it before you trust the new pin",
    )
    return offer


def _measured(offer: _Offer, indexes: Indexes, download: Download) -> _Offer:
    """*offer* with the digest and size of its bytes."""
    digest, size = download(_asked_as(offer.url, indexes), offer.filename)
    if offer.sha256 not in (None, digest.hex):
        raise MismatchError(
            f"{offer.filename} is not what its index says: sha256:{offer.sha256} is listed, {digest} was sent",
            "try again; if it stays so, the index is broken",
        )
    return replace(offer, sha256=digest.hex, size=size)


def _asked_as(url: str, indexes: Indexes) -> str:
    """*url* with the credentials of the index that it belongs to."""
    for each in (*(index.url for index in indexes.active), *indexes.find_links):
        url = with_credentials(url, each)
    return url


def _sdist(chosen: _Chosen, offer: _Offer, index: str | None) -> Sdist:
    assert offer.sha256 is not None
    assert offer.size is not None
    file = Pin(name=offer.filename, sha256=offer.sha256, size=offer.size)
    return Sdist(chosen.name, chosen.version, file, offer.url, index, _rfc3339(offer.uploaded))


def _package(chosen: _Chosen, offer: _Offer, *, index: str | None = None, resource: str | None = None) -> PythonPackage:
    assert offer.sha256 is not None
    assert offer.size is not None
    wheel = Pin(name=offer.filename, sha256=offer.sha256, size=offer.size)
    return PythonPackage(
        name=chosen.name,
        version=chosen.version,
        index=index,
        resource=resource,
        upload_time=_rfc3339(offer.uploaded),
        wheel=wheel,
        source=chosen.local.source if chosen.local is not None else None,
    )


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def _basename(address: str) -> str:
    return unquote(urlsplit(address).path).rpartition("/")[2]


def _bare(url: str) -> str:
    """*url* as uv prints it, to compare: without credentials and trailing slash."""
    return public(url).rstrip("/")
