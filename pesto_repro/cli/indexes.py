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
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args
from urllib.parse import quote, urlsplit, urlunsplit

import tomli

from pesto_repro.errors import PestoError
from pesto_repro.fetch.index import DEFAULT_INDEX_URL, Index, Indexes, Strategy, without_userinfo

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
    requirement_options: Sequence[str] = (),
    *,
    system: Path = Path("/etc"),
    environment_root: Path = Path(sys.prefix),
) -> tuple[Indexes, dict[str, str]]:
    """The one effective :class:`Indexes`, and the environment for uv (without any index).

    *index_url* and *find_links* are image.toml's, *requirement_options* lines such as ``--extra-index-url
    URL`` of requirements files. Raises PestoError for a configuration file that cannot be read.
    """
    declared = Places(main=index_url, find_links=_located(find_links, project_root))
    written = _requirement_options(requirement_options, env, project_root)
    nearest, *files = _uv(env, home, project_root, system)
    certificates = env.get("SSL_CERT_FILE") or env.get("PIP_CERT") or env.get("REQUESTS_CA_BUNDLE")
    if not any(each.says_something for each in (nearest, *files)):
        options = _pip_files(env, home, system, environment_root)
        nearest, files = _pip(_pip_environment(env)), [_pip(options)]
        certificates = certificates or options.get("cert")
    main = _first(each.main for each in (nearest, declared, written, *files))
    merged = _merge([nearest, declared, written, *files])
    name = "project" if main is not None and nearest.main is None and main in (index_url, written.main) else "default"
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


def _located(texts: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Addresses as they are, paths as file addresses; relative ones are below *folder*."""
    return tuple(each if "://" in each else (folder / Path(each).expanduser()).as_uri() for each in texts)


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
    words = env.get("UV_INDEX", "").split()
    extra = env.get("UV_EXTRA_INDEX_URL", "").split()
    named = [_named(each, here) for each in words] + [Index("", each) for each in _located(extra, here)]
    main = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL")
    links = [each.strip() for each in env.get("UV_FIND_LINKS", "").split(",")]
    return Places(
        _named(main, here).url if main else None,
        tuple(named),
        _located(filter(None, links), here),
        _flag(env.get("UV_NO_INDEX")),
        env.get("UV_INDEX_STRATEGY"),
    )


def _named(text: str, folder: Path) -> Index:
    """uv's ``name=address`` or ``address``."""
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(.+)", text)
    name, address = match.groups() if match else ("", text)
    return Index(name, _located([address], folder)[0])


def _uv_project(project_root: Path) -> Places:
    """uv: the nearest uv.toml, or pyproject.toml with [tool.uv]; beside each other, uv.toml counts."""
    for folder in (project_root.resolve(), *project_root.resolve().parents):
        if (folder / "uv.toml").is_file():
            return _uv_file(folder / "uv.toml")
        if (folder / "pyproject.toml").is_file():
            table = _toml(folder / "pyproject.toml").get("tool", {}).get("uv")
            if table is not None:
                return _uv_table(table, folder)
    return Places()


def _uv_file(path: Path) -> Places:
    return _uv_table(_toml(path), path.parent)


def _uv_table(table: Mapping[str, Any], folder: Path) -> Places:
    """The index settings of a uv configuration; those below ``pip`` come first, as for ``uv pip``."""
    return _merge([_uv_settings(each, folder) for each in (table.get("pip", {}), table)])


def _uv_settings(table: Mapping[str, Any], folder: Path) -> Places:
    """One table. An ``explicit`` index serves only packages that name it as their source: none do here."""
    listed = [each for each in table.get("index", ()) if not each.get("explicit")]
    flat = [each["url"] for each in listed if each.get("format") == "flat"]
    simple = [each for each in listed if each.get("format") != "flat"]
    main = [each["url"] for each in simple if each.get("default")] + [table.get("index-url")]
    named = [Index(each.get("name", ""), each["url"]) for each in simple if not each.get("default")]
    named += [Index("", each) for each in table.get("extra-index-url", ())]
    address = _first(main)
    return Places(
        _located([address], folder)[0] if address else None,
        tuple(replace(each, url=_located([each.url], folder)[0]) for each in named),
        _located([*table.get("find-links", ()), *flat], folder),
        table.get("no-index"),
        table.get("index-strategy"),
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomli.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PestoError(f"{path} cannot be read: {without_userinfo(str(error))}") from None


# -- pip ---------------------------------------------------------------------------------------------------


def _pip(options: Mapping[str, str]) -> Places:
    """pip's options as places: several values of one option are separated by white space."""
    here = Path.cwd()
    return Places(
        options.get("index-url"),
        tuple(Index("", each) for each in options.get("extra-index-url", "").split()),
        _located(options.get("find-links", "").split(), here),
        _flag(options.get("no-index")),
    )


def _pip_environment(env: Mapping[str, str]) -> dict[str, str]:
    names = ("index-url", "extra-index-url", "find-links", "no-index")
    variables = {name: f"PIP_{name.upper().replace('-', '_')}" for name in names}
    return {name: env[variable] for name, variable in variables.items() if env.get(variable)}


def _pip_files(env: Mapping[str, str], home: Path, system: Path, environment_root: Path) -> dict[str, str]:
    """pip: later files override earlier ones, a command's section overrides [global]."""
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}, "install": {}}
    for path in _pip_paths(env, home, system, environment_root):
        parsed = _ini(path)
        for name, options in sections.items():
            if parsed.has_section(name):
                options.update({key.replace("_", "-"): value for key, value in parsed.items(name)})
    return {key: value for options in sections.values() for key, value in options.items() if value}


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


def _requirement_options(lines: Sequence[str], env: Mapping[str, str], folder: Path) -> Places:
    """pip: "${NAME}" in a requirements file is replaced by the environment's value where there is one."""
    read: dict[str, Callable[[str], Places]] = {
        "-i": lambda value: Places(main=value),
        "--index-url": lambda value: Places(main=value),
        "--extra-index-url": lambda value: Places(named=(Index("", value),)),
        "-f": lambda value: Places(find_links=_located([value], folder)),
        "--find-links": lambda value: Places(find_links=_located([value], folder)),
        "--no-index": lambda _: Places(no_index=True),
    }
    found = []
    for line in lines:
        expanded = re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: env.get(name[1], name[0]), line)
        option, value = _option(expanded)
        if option in read:
            found.append(read[option](value))
    return _merge(found)


def _option(line: str) -> tuple[str, str]:
    words = shlex.split(line, comments=True)
    option, equals, value = (words or [""])[0].partition("=")
    return option, value if equals else (words[1] if len(words) > 1 else "")


def _flag(text: str | None) -> bool | None:
    return None if not text else text.lower() in _TRUE
