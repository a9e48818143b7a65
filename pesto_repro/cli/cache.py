"""Which cache a build has: ``--cache``, else PESTO_REPRO_CACHE, else the nearest pyproject.toml that names one.

::

    [tool.pesto-repro.cache]
    ref = "registry.example/team/steps"     # a repository; entries are tags in it
    key = "cache.pub.pem"                   # beside this file: what entries must be signed with
    write = true                            # as --cache-write

Each of the three is said by the option, where there is one, and else by the file. What is wrong with them is an error;
what is wrong with the cache is a warning.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from pesto_repro.build.realise import Workshop
from pesto_repro.build.shared import Shared
from pesto_repro.errors import PestoError, Problem, ProjectError, RegistryError
from pesto_repro.progress import Reporter
from pesto_repro.project.documents import at, did_you_mean, kind, parse_toml
from pesto_repro.registry.access import Access

if TYPE_CHECKING:
    from pesto_repro.registry.cache import Cache
    from pesto_repro.registry.reference import RemoteReference
    from pesto_repro.registry.signing import PrivateKey, PublicKey

VARIABLE = "PESTO_REPRO_CACHE"
PYPROJECT = "pyproject.toml"
POLICIES = frozenset("C1 C2 C3 CACHE_UP_TO_PESTO CACHE_UP_TO_PIP_REQ CACHE_UP_TO_ALGO".split())
"""What ``pesto build -c`` takes. Old scripts say so; it means nothing here."""
_PAUSE = 0.5
"""Seconds between two tries: a cache that needs longer is slower than a build."""
_TABLE = ("tool", "pesto-repro", "cache")
_KEYS: Mapping[str, type] = {"ref": str, "key": str, "write": bool}


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """What was said of the cache; *ref* None: there is none."""

    ref: str | None = None
    write: bool = False
    key: Path | None = None
    sign: Path | None = None


_OPTIONS = [
    click.option(
        "-c", "--cache", "cache_ref", metavar="REF", help=f"A repository with steps made before. [env: {VARIABLE}]"
    ),
    click.option("--cache-write", is_flag=True, help="Put what was made into the cache."),
    click.option(
        "--cache-key", type=click.Path(path_type=Path), help="Public key that its entries must be signed with."
    ),
    click.option("--cache-sign", type=click.Path(path_type=Path), help="Private key to sign what is put there."),
]


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; *function* gets a CacheChoice as ``cache`` in their place."""

    @wraps(function)
    def wrapper(
        *arguments: Any,
        cache_ref: str | None,
        cache_write: bool,
        cache_key: Path | None,
        cache_sign: Path | None,
        **rest: Any,
    ) -> Any:
        return function(*arguments, cache=CacheChoice(cache_ref, cache_write, cache_key, cache_sign), **rest)

    decorated: Callable[..., Any] = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def chosen(said: CacheChoice, root: Path) -> CacheChoice:
    """*said* on the command line, completed by the environment and by the configuration around the project *root*."""
    stated = _nearest(root)
    ref = said.ref or os.environ.get(VARIABLE) or stated.ref
    if ref is None:
        _require_no_orphans(said)
        return said
    return CacheChoice(ref, said.write or stated.write, said.key or stated.key, said.sign)


def shared_build(said: CacheChoice, root: Path, shop: Workshop, host: str | None, *, offline: bool) -> Shared:
    """The build of *shop* with the cache that is chosen for the project *root*; *host* is that which is pushed to."""
    if said.ref in POLICIES:
        shop.reporter.warn(f"-c/--cache {said.ref} does nothing: what did not change is never built again")
        said = replace(said, ref=None)
    choice = chosen(said, root)
    if choice.ref is None:
        return Shared(shop)
    from pesto_repro.cli.registry_access import access_from_environment  # imported late: most builds have no cache

    def access_to(cache_host: str) -> Access:
        return access_from_environment(os.environ, Path.home(), host or cache_host)

    cache = open_cache(choice, access_to, shop.reporter, offline=offline)
    return Shared(shop, cache, write=not offline and may_write(choice, shop.reporter))


def open_cache(
    choice: CacheChoice, access_to: Callable[[str], Access], reporter: Reporter, *, offline: bool = False
) -> Cache | None:
    """The cache of *choice*, if it names one that can be reached; *access_to* says how its host is.

    Raises PestoError for what was said wrongly.
    """
    if choice.ref is None:
        return None
    from pesto_repro.registry.cache import PATIENCE, Cache
    from pesto_repro.registry.client import Client, Registries

    reference = _reference(choice.ref)
    key, signer = _keys(choice)
    if offline:
        silent = Client(reference.host, reference.repository, Access(), reporter)
        return Cache(silent, reporter, key=key, offline=True)
    access = access_to(reference.host)
    hasty = Registries(replace(access, timeout=PATIENCE), reporter, sleep=lambda seconds: sleep(min(seconds, _PAUSE)))
    try:
        repository = hasty.repository(reference)
    except RegistryError as error:
        reporter.warn(f"the cache {choice.ref} is left alone: {error.message}", "the build goes on without it")
        return None
    uploads = partial(Registries(access, reporter).repository, reference)
    return Cache(repository, reporter, key=key, signer=signer, uploads=uploads)


def may_write(choice: CacheChoice, reporter: Reporter) -> bool:
    """Whether what was made goes into the cache."""
    if choice.ref is None or not choice.write:
        return False
    if choice.key is not None and choice.sign is None:
        reporter.warn(
            f"nothing is put into the cache {choice.ref}: unsigned, it would not be believed",
            "sign it: --cache-sign FILE",
        )
        return False
    return True


def _require_no_orphans(said: CacheChoice) -> None:
    options = {"--cache-write": said.write, "--cache-key": said.key, "--cache-sign": said.sign}
    given = [option for option, value in options.items() if value]
    if given:
        raise PestoError(f"{' and '.join(given)}: there is no cache", f"name one: --cache REF, or {VARIABLE}")


def _reference(text: str) -> RemoteReference:
    from pesto_repro.registry.reference import LATEST, RemoteReference

    reference = RemoteReference.parse(text)
    if reference.digest is not None or reference.tag != LATEST:
        raise PestoError(f'"{text}" is an image, not a cache', "name a repository, without a tag or digest")
    return replace(reference, tag=None)


# -- keys --------------------------------------------------------------------------------------------------------------


def _keys(choice: CacheChoice) -> tuple[PublicKey | None, PrivateKey | None]:
    """What entries must be signed with, and what signs them. Raises PestoError if the two are no pair."""
    key = _public(choice.key) if choice.key else None
    signer = _private(choice.sign) if choice.sign else None
    if key and signer and signer.public != key:
        raise PestoError(
            f"{choice.sign} is not the private half of {choice.key}: what it signs would not be believed here",
            f"make the public half anew: openssl pkey -in {choice.sign} -pubout -out {choice.key}",
        )
    return key, signer


def _public(path: Path) -> PublicKey:
    from pesto_repro.registry.signing import public_key

    return public_key(_key_bytes(path), str(path))


def _private(path: Path) -> PrivateKey:
    from pesto_repro.registry.signing import private_key

    data = _key_bytes(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise PestoError(f"{path} is a private key that others may read: its mode is {mode:04o}", f"chmod 600 {path}")
    return private_key(data, str(path))


def _key_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PestoError(f"{path} cannot be read: {error.strerror or error}") from None


# -- pyproject.toml ----------------------------------------------------------------------------------------------------


def _nearest(root: Path) -> CacheChoice:
    """What the nearest pyproject.toml with a table for the cache says. Raises ProjectError."""
    for folder in (root, *root.parents):
        file = folder / PYPROJECT
        if file.is_file():
            table = at(parse_toml(file.as_posix(), file.read_bytes()), *_TABLE)
            if table is not None:
                return _stated(file, table)
    return CacheChoice()


def _stated(file: Path, table: object) -> CacheChoice:
    place = ".".join(_TABLE)
    if not isinstance(table, dict):
        raise ProjectError([Problem(file.as_posix(), place, f"must be a table, not {kind(table)}")])
    problems = []
    for name, value in table.items():
        if name not in _KEYS:
            problems.append(Problem(file.as_posix(), f"{place}.{name}", f"unknown key{did_you_mean(name, _KEYS)}"))
        elif not isinstance(value, _KEYS[name]):
            wanted = "a string" if _KEYS[name] is str else "a boolean"
            problems.append(Problem(file.as_posix(), f"{place}.{name}", f"must be {wanted}, not {kind(value)}"))
    if problems:
        raise ProjectError(problems)
    key = Path(os.path.normpath(file.parent / table["key"])) if "key" in table else None
    return CacheChoice(table.get("ref"), table.get("write", False), key)
