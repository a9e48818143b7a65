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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pesto_repro.addresses import public, redact, secrets_of
from pesto_repro.errors import ResolveError
from pesto_repro.fetch.index import FIND_LINKS, Indexes
from pesto_repro.lock.model import BroughtPackage, PythonPackage
from pesto_repro.progress import Reporter
from pesto_repro.resolve.failures import failure
from pesto_repro.resolve.request import LocalWheel, Metadata, Request, Resolution, Sdist, wheel_name
from pesto_repro.resolve.wheel_choice import Download, choose, pin
from pesto_repro.resolve.wheel_tags import python_platform

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

_PARALLEL = 8


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
    chosen = [choose(each, request) for each in packages if canonicalize_name(each["name"]) not in used]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        pinned = list(pool.map(lambda each: pin(each, request, indexes, sources, download, reporter), chosen))
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


def _bare(url: str) -> str:
    """*url* as uv prints it, to compare: without credentials and trailing slash."""
    return public(url).rstrip("/")
