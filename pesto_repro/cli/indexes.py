"""Where Python packages lie, by uv's and pip's usual configuration: one value, to resolve and to download.

Precedence is that of uv and pip: environment, then the project (image.toml, options in its requirements
files, its uv.toml or ``[tool.uv]``), then the user, then the system. pip's configuration counts where uv's
says nothing at all. A nearer place decides the main index; additional indexes and find-links add up, nearer
ones first.

uv is then run without configuration files of its own and gets this value. So only *where* packages lie is
taken from a configuration, never which version is chosen: that is the project's to say, and the lock's to
record.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_args
from urllib.parse import quote, urlsplit, urlunsplit

import tomli

from pesto_repro.addresses import can_be_asked, public, redact
from pesto_repro.errors import PestoError
from pesto_repro.fetch.index import DEFAULT_INDEX_URL, Index, Indexes, Strategy
from pesto_repro.project import IndexOption
from pesto_repro.project.documents import kind

T = TypeVar("T")

PASSED_ON = (
    "PATH HOME TMPDIR XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME NETRC "
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy "
    "SSL_CERT_FILE SSL_CERT_DIR SSL_CLIENT_CERT UV_CACHE_DIR UV_NO_CACHE UV_HTTP_TIMEOUT UV_HTTP_RETRIES "
    "UV_CONCURRENT_DOWNLOADS UV_NATIVE_TLS UV_SYSTEM_CERTS UV_INSECURE_HOST UV_OFFLINE"
).split()
"""What uv may know of the environment: how to reach the network and its cache, not what to choose."""

_TRUE = frozenset(["1", "true", "yes", "on", "y", "t"])


@dataclass(frozen=True, slots=True)
class Places:
    """What one place of configuration says; None and () where it says nothing."""

    main: str | None = None
    named: tuple[Index, ...] = ()
    """Additional indexes; the name is empty where none is given."""
    find_links: tuple[str, ...] = ()
    no_index: bool | None = None
    strategy: str | None = None

    @property
    def says_something(self) -> bool:
        return self != Places()


def indexes_from_environment(
    env: Mapping[str, str],
    home: Path,
    project_root: Path,
    index_url: str | None = None,
    find_links: Sequence[str] = (),
    requirement_options: Sequence[IndexOption] = (),
    *,
    system: Path = Path("/etc"),
    environment_root: Path = Path(sys.prefix),
) -> tuple[Indexes, dict[str, str]]:
    """The one effective :class:`Indexes`, and the environment for uv (without any index).

    *index_url* and *find_links* are image.toml's, *requirement_options* those of the requirements files. Raises
    PestoError for a configuration file that cannot be read, and for what is no address.
    """
    declared = Places(
        _first(_located([index_url] if index_url else [], project_root, "python.index-url of image.toml")),
        find_links=_located(find_links, project_root, "python.find-links of image.toml"),
    )
    written = _merge([_requirement_option(each, env, project_root) for each in requirement_options])
    nearest, *files = _uv(env, home, project_root, system)
    certificates = env.get("SSL_CERT_FILE") or env.get("PIP_CERT") or env.get("REQUESTS_CA_BUNDLE")
    if not any(each.says_something for each in (nearest, *files)):
        options = _pip_files(env, home, system, environment_root)
        nearest, files = _pip(_pip_environment(env)), [_pip(options)]
        certificates = certificates or (options["cert"].value if "cert" in options else None)
    main = _first(each.main for each in (nearest, declared, written, *files))
    merged = _merge([nearest, declared, written, *files])
    name = (
        "project" if main is not None and nearest.main is None and main in (declared.main, written.main) else "default"
    )
    cert = Path(certificates) if certificates else None
    passed = {key: env[key] for key in PASSED_ON if key in env} | {"HOME": str(home)}
    return _effective(merged, name, cert, env), passed


def _effective(places: Places, name: str, cert: Path | None, env: Mapping[str, str]) -> Indexes:
    numbers = iter(range(1, len(places.named) + 1))
    named = [replace(each, name=each.name or f"extra-{next(numbers)}") for each in places.named]
    unique = {each.name: each for each in reversed(named)}
    main = Index(name, places.main or DEFAULT_INDEX_URL)
    ordered = [each for each in named if unique[each.name] is each and each.name != name]
    return Indexes(
        tuple(_with_variables(each, env) for each in (*ordered, main)),
        tuple(dict.fromkeys(places.find_links)),
        bool(places.no_index),
        _strategy(places.strategy),
        cert,
    )


def _merge(all_places: Sequence[Places]) -> Places:
    """Nearest first: the nearest decides, lists add up."""
    return Places(
        main=_first(each.main for each in all_places),
        named=tuple(index for each in all_places for index in each.named),
        find_links=tuple(link for each in all_places for link in each.find_links),
        no_index=_first(each.no_index for each in all_places),
        strategy=_first(each.strategy for each in all_places),
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((each for each in values if each is not None), None)


def _strategy(text: str | None) -> Strategy:
    if text is not None and text not in get_args(Strategy):
        raise PestoError(f"{text!r} is no index strategy", f"use one of {', '.join(get_args(Strategy))}")
    return cast("Strategy", text or "first-index")


def _with_variables(index: Index, env: Mapping[str, str]) -> Index:
    """uv: UV_INDEX_<NAME>_USERNAME and _PASSWORD, in capitals, "_" for all but letters and digits."""
    name = re.sub(r"[^A-Z0-9]", "_", index.name.upper())
    user, password = (env.get(f"UV_INDEX_{name}_{what}", "") for what in ("USERNAME", "PASSWORD"))
    parts = urlsplit(index.url)
    if not (user or password):
        return index
    userinfo = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    netloc = f"{userinfo}@{parts.netloc.rpartition('@')[2]}"
    return replace(index, url=urlunsplit(parts._replace(netloc=netloc)))


def _located(texts: Iterable[str], folder: Path, where: str) -> tuple[str, ...]:
    """Addresses as they are, paths as file addresses; relative ones are below *folder*.

    Raises PestoError for what is neither, naming *where* it is written.
    """
    return tuple(_address(each, folder, where) for each in texts)


def _address(text: str, folder: Path, where: str) -> str:
    # Path.expanduser fails for a user that is unknown; here "~x" is then a name as any other.
    found = text if "://" in text else (folder.absolute() / os.path.expanduser(text)).as_uri()  # noqa: PTH111
    if not can_be_asked(found):
        raise PestoError(f"{where} is no address: {public(text)}", "write https://HOST/PATH, file:///FOLDER or a path")
    return found


# -- uv ----------------------------------------------------------------------------------------------------


def _uv(env: Mapping[str, str], home: Path, project_root: Path, system: Path) -> list[Places]:
    """What uv would read, nearest first; the environment is always the first of them."""
    found = [_uv_environment(env)]
    if env.get("UV_CONFIG_FILE"):
        return [*found, _uv_file(Path(env["UV_CONFIG_FILE"]))]
    if env.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return found
    configuration = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    files = [configuration / "uv/uv.toml", system / "uv/uv.toml"]
    return [*found, _uv_project(project_root), *(_uv_file(each) for each in files if each.is_file())]


def _uv_environment(env: Mapping[str, str]) -> Places:
    here = Path.cwd()
    main = [_named(env[key], here, key).url for key in ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if env.get(key)]
    named = [_named(each, here, "UV_INDEX") for each in env.get("UV_INDEX", "").split()]
    extra = _located(env.get("UV_EXTRA_INDEX_URL", "").split(), here, "UV_EXTRA_INDEX_URL")
    links = [each.strip() for each in env.get("UV_FIND_LINKS", "").split(",")]
    return Places(
        _first(main),
        (*named, *(Index("", each) for each in extra)),
        _located(filter(None, links), here, "UV_FIND_LINKS"),
        _flag(env.get("UV_NO_INDEX")),
        env.get("UV_INDEX_STRATEGY"),
    )


def _named(text: str, folder: Path, where: str) -> Index:
    """uv's ``name=address`` or ``address``."""
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(.+)", text)
    name, address = match.groups() if match else ("", text)
    return Index(name, _address(address, folder, where))


def _uv_project(project_root: Path) -> Places:
    """uv: the nearest uv.toml, or pyproject.toml with [tool.uv]; beside each other, uv.toml counts."""
    for folder in (project_root.resolve(), *project_root.resolve().parents):
        if (folder / "uv.toml").is_file():
            return _uv_file(folder / "uv.toml")
        if (folder / "pyproject.toml").is_file():
            tool = _document(folder / "pyproject.toml").table("tool")
            if "uv" in tool.content:
                return _uv_table(tool.table("uv"))
    return Places()


def _uv_file(path: Path) -> Places:
    return _uv_table(_document(path))


def _uv_table(table: _Table) -> Places:
    """The index settings of a uv configuration; those below ``pip`` come first, as for ``uv pip``."""
    return _merge([_uv_settings(table.table("pip")), _uv_settings(table)])


def _uv_settings(table: _Table) -> Places:
    """One table. An ``explicit`` index serves only packages that name it as their source: none do here."""
    listed = [each for each in table.tables("index") if not each.flag("explicit")]
    flat = [each.address("url") for each in listed if each.text("format") == "flat"]
    simple = [each for each in listed if each.text("format") != "flat"]
    main = [each.address("url") for each in simple if each.flag("default")]
    main += [table.address("index-url")] if table.text("index-url") else []
    named = [Index(each.text("name") or "", each.address("url")) for each in simple if not each.flag("default")]
    named += [Index("", each) for each in table.addresses("extra-index-url")]
    return Places(
        _first(main),
        tuple(named),
        (*table.addresses("find-links"), *flat),
        table.flag("no-index"),
        table.text("index-strategy"),
    )


def _document(path: Path) -> _Table:
    try:
        return _Table(path, "", tomli.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise PestoError(f"{path} cannot be read: {redact(str(error))}") from None


@dataclass(frozen=True, slots=True)
class _Table:
    """The table called *name* of a TOML file. A value of another type is an error that names file and key."""

    file: Path
    name: str
    content: Mapping[str, Any]

    def text(self, key: str) -> str | None:
        return self._typed(key, str)

    def flag(self, key: str) -> bool | None:
        return self._typed(key, bool)

    def table(self, key: str) -> _Table:
        return _Table(self.file, self._path(key), self._typed(key, dict) or {})

    def tables(self, key: str) -> list[_Table]:
        items = self._items(key)
        return [items.table(number) for number in items.content]

    def address(self, key: str) -> str:
        """The address that must be there."""
        found = self.text(key)
        if not found:
            raise PestoError(f"{self._where(key)} is missing")
        return _address(found, self.file.parent, self._where(key))

    def addresses(self, key: str) -> tuple[str, ...]:
        items = self._items(key)
        return tuple(items.address(number) for number in items.content)

    def _items(self, key: str) -> _Table:
        """The items of an array by their numbers."""
        items = enumerate(self._typed(key, list) or [])
        return _Table(self.file, self._path(key), {str(number): each for number, each in items})

    def _typed(self, key: str, wanted: type[T]) -> T | None:
        value = self.content.get(key)
        if value is None or isinstance(value, wanted):
            return value
        raise PestoError(f"{self._where(key)} must be {kind(wanted())}, not {kind(value)}")

    def _path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def _where(self, key: str) -> str:
        return f"{self.file}: {self._path(key)}"


# -- pip ---------------------------------------------------------------------------------------------------


class _Said(NamedTuple):
    """An option's *value*, and *where* it is written."""

    value: str
    where: str


def _pip(options: Mapping[str, _Said]) -> Places:
    """pip's options as places: several values of one option are separated by white space."""
    here = Path.cwd()
    main, extra, links = (
        _located(options[name].value.split(), here, options[name].where) if name in options else ()
        for name in ("index-url", "extra-index-url", "find-links")
    )
    no_index = options["no-index"].value if "no-index" in options else None
    return Places(_first(main), tuple(Index("", each) for each in extra), links, _flag(no_index))


def _pip_environment(env: Mapping[str, str]) -> dict[str, _Said]:
    names = ("index-url", "extra-index-url", "find-links", "no-index")
    variables = {name: f"PIP_{name.upper().replace('-', '_')}" for name in names}
    return {name: _Said(env[variable], variable) for name, variable in variables.items() if env.get(variable)}


def _pip_files(env: Mapping[str, str], home: Path, system: Path, environment_root: Path) -> dict[str, _Said]:
    """pip: later files override earlier ones, a command's section overrides [global]."""
    sections: dict[str, dict[str, _Said]] = {"global": {}, "download": {}, "install": {}}
    for path in _pip_paths(env, home, system, environment_root):
        parsed = _ini(path)
        for name, options in sections.items():
            for key, value in parsed.items(name) if parsed.has_section(name) else ():
                options[key.replace("_", "-")] = _Said(value, f"{path}: {key}")
    return {key: said for options in sections.values() for key, said in options.items() if said.value}


def _pip_paths(env: Mapping[str, str], home: Path, system: Path, environment_root: Path) -> Iterator[Path]:
    """pip: global, user, site, then PIP_CONFIG_FILE, which replaces the user's; os.devnull means none."""
    own = env.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    configuration = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    paths = [system / "xdg/pip/pip.conf", system / "pip.conf"]
    if not (own and Path(own).exists()):
        paths += [home / ".pip/pip.conf", configuration / "pip/pip.conf"]
    paths += [environment_root / "pip.conf", *([Path(own)] if own else [])]
    yield from (each for each in paths if each.is_file())


def _ini(path: Path) -> configparser.RawConfigParser:
    """The file at *path*. The parser's own message would repeat the line, which may hold a password."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, ValueError, configparser.Error) as error:
        raise PestoError(f"{path} is not a pip configuration file ({type(error).__name__})") from None
    return parser


# -- requirements files ------------------------------------------------------------------------------------


def _requirement_option(option: IndexOption, env: Mapping[str, str], folder: Path) -> Places:
    """pip: "${NAME}" in a requirements file is replaced by the environment's value where there is one."""
    if option.kind == "no-index":
        return Places(no_index=True)
    expanded = re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: env.get(name[1], name[0]), option.value)
    address = _address(expanded, folder, f"--{option.kind} of the project's requirements files")
    if option.kind == "index-url":
        return Places(main=address)
    return Places(named=(Index("", address),)) if option.kind == "extra-index-url" else Places(find_links=(address,))


def _flag(text: str | None) -> bool | None:
    return None if not text else text.lower() in _TRUE
