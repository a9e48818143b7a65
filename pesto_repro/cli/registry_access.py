"""The environment as an :class:`Access`: who we are for which registry, whom to trust, where TLS is not wanted.

============================= ==================================================================================
PESTO_REPRO_REGISTRY_USER     a user name, with PESTO_REPRO_REGISTRY_PASSWORD: for the registry that
                              PESTO_REPRO_REGISTRY_HOST names, else the one that the command names; no other gets it
REGISTRY_AUTH_FILE            a file of credentials, instead of the usual ones
XDG_RUNTIME_DIR               containers/auth.json in it: where login writes, as podman does
DOCKER_CONFIG                 the folder of docker's config.json; default: ~/.docker
PESTO_REPRO_REGISTRY_CA       a file of certificate authorities to trust; else SSL_CERT_FILE
PESTO_REPRO_REGISTRY_PLAIN_HTTP hosts that are spoken to without TLS, separated by commas
PESTO_REPRO_REGISTRY_TIMEOUT  seconds that a registry may be silent; default: 60
============================= ==================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pesto_repro.errors import PestoError
from pesto_repro.registry.access import TIMEOUT, Access, Credential
from pesto_repro.registry.credentials import find
from pesto_repro.registry.reference import canonical_host, is_host

USER, PASSWORD, HOST = (f"PESTO_REPRO_REGISTRY_{word}" for word in ("USER", "PASSWORD", "HOST"))
AUTHORITIES, PLAIN_HTTP, SECONDS = (f"PESTO_REPRO_REGISTRY_{word}" for word in ("CA", "PLAIN_HTTP", "TIMEOUT"))


def access_from_environment(env: Mapping[str, str], home: Path, target: str | None = None) -> Access:
    """How registries are reached; *target* is the host that the command names, if any. Raises PestoError."""
    explicit = _explicit(env, target)
    files = auth_files(env, home)

    @cache
    def credentials(host: str) -> Credential | None:
        return explicit[host] if host in explicit else find(files, host)

    hosts = [canonical_host(each.strip()) for each in env.get(PLAIN_HTTP, "").split(",") if each.strip()]
    return Access(credentials, _authorities(env), frozenset(hosts), _timeout(env))


def auth_files(env: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Where credentials may be, best first; podman looks there in this order."""
    if named := env.get("REGISTRY_AUTH_FILE"):
        return (Path(named).expanduser(),)
    docker = Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    return (*_containers_files(env, home), docker)


def login_file(env: Mapping[str, str], home: Path) -> Path:
    """Where ``login`` writes."""
    named = env.get("REGISTRY_AUTH_FILE")
    return Path(named).expanduser() if named else _containers_files(env, home)[0]


def _containers_files(env: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """containers-auth.json(5): ${XDG_RUNTIME_DIR}/containers/auth.json, $HOME/.config/containers/auth.json."""
    folders = [Path(text) for text in (env.get("XDG_RUNTIME_DIR"),) if text]
    folders.append(Path(env.get("XDG_CONFIG_HOME") or home / ".config"))
    return tuple(folder / "containers/auth.json" for folder in folders)


def _explicit(env: Mapping[str, str], target: str | None) -> dict[str, Credential]:
    user, password = env.get(USER), env.get(PASSWORD)
    if not user and not password:
        return {}
    if not user or not password:
        raise PestoError(f"{USER} and {PASSWORD} belong together: {PASSWORD if user else USER} is missing")
    host = env.get(HOST) or target
    if not host:
        raise PestoError(f"{USER} is set, but not for which registry", f"set {HOST} to its host")
    if not is_host(host):
        raise PestoError(f'{HOST} is "{host}", which is no host', "it reads HOST or HOST:PORT")
    return {canonical_host(host): Credential(user, password)}


def _authorities(env: Mapping[str, str]) -> Path | None:
    for name in (AUTHORITIES, "SSL_CERT_FILE"):
        if text := env.get(name):
            path = Path(text).expanduser()
            if not path.is_file():
                raise PestoError(f"{name} is {text}, where no file is", "name a file of certificates in PEM form")
            return path
    return None


def _timeout(env: Mapping[str, str]) -> float:
    text = env.get(SECONDS)
    if not text:
        return TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 86400.0:
        raise PestoError(f'{SECONDS} is "{text}", which is no number of seconds')
    return seconds
