"""The environment as values: what this program reads of variables, configuration files and clock is read here.

The variables of uv and pip are given to :mod:`~pesto_repro.cli.indexes`, which reads the files that they and the
home folder lead to. What goes over the network is sent by ``requests``, which by itself heeds proxies, netrc
and CA bundles.

=========================== ====================================================================================
PESTO_REPRO_STORE           the store; default: pesto-repro in the XDG cache folder
PESTO_REPRO_DEBIAN_MIRROR   where Debian packages come from; default: this machine's own apt sources
SOURCE_DATE_EPOCH           the image's "created", when locking (seconds since 1970)
UV_*, PIP_*                 package indexes, as uv and pip read them
HOME, XDG_CACHE_HOME        where the store is unless named; HOME, XDG_CONFIG_HOME: uv's and pip's configuration
SSL_CERT_FILE               the certificate authorities to trust; else PIP_CERT, else REQUESTS_CA_BUNDLE
*_PROXY, NO_PROXY, NETRC    the way to the network, and credentials, as ``requests`` and ``uv`` read them
=========================== ====================================================================================
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_repro.errors import OfflineError, PestoError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors, mirrors
from pesto_repro.fetch.world import World
from pesto_repro.progress import Reporter
from pesto_repro.project import Project, layout_path
from pesto_repro.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_repro.build.base import Source, Sources
    from pesto_repro.fetch.index import Indexes
    from pesto_repro.registry.client import Registries


def store_at(explicit: Path | None) -> Store:
    """The store: where ``--store`` says, else PESTO_REPRO_STORE, else below the XDG cache folder."""
    named = os.environ.get("PESTO_REPRO_STORE")
    if explicit is None and named:
        explicit = Path(named)
    return Store(explicit or _cache_folder() / "pesto-repro")


def world_of(project: Project, store: Store, reporter: Reporter, *, offline: bool = False) -> World:
    """Whom to ask for *project*, by this machine's configuration."""
    indexes = cache(partial(_indexes, project, offline))
    return World(
        fetcher=Fetcher(store, reporter, offline=offline, authorities=lambda: indexes()[0].cert),
        indexes=indexes,
        mirrors=cache(partial(_mirrors, project.settings.base.mirror)),
        reporter=reporter,
        now=datetime.now(UTC),
        epoch=_source_date_epoch(),
        environment=dict(os.environ),
    )


@contextmanager
def base_sources(
    project: Project, reporter: Reporter, target: str | None = None, *, offline: bool = False
) -> Iterator[Sources]:
    """Where the base image of *project* lies: a registry, or a layout or an archive beside it.

    *target* is the host that is pushed to, if any.
    """
    stack = ExitStack()

    @cache
    def registries() -> Registries:
        from pesto_repro.cli.registries import reachable  # imported late: most builds have what they need

        return stack.enter_context(reachable(reporter, target or _base_host(project)))()

    @cache
    def source(original: str) -> Source:
        from pesto_repro.build.base import RemoteSource, layout_source
        from pesto_repro.registry.content import RemoteContent
        from pesto_repro.registry.reference import RemoteReference

        local = layout_source(original, project.root)
        if local is not None:
            return local
        if offline:
            raise OfflineError(
                f"the base image {original} is not all in the store, and the network is not to be used",
                "run once without --offline, or point --store at a store that has it",
            )
        reference = RemoteReference.parse(original)
        return RemoteSource(RemoteContent(registries().repository(reference)), reference)

    with stack:
        yield source


def _base_host(project: Project) -> str | None:
    """The host of the base image's registry, if it comes from one."""
    from pesto_repro.registry.reference import RemoteReference

    name = project.docker_base_image
    return RemoteReference.parse(name).host if name and layout_path(name) is None else None


def _cache_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():
        return Path(named)
    return _home("set HOME, or name a store with --store or PESTO_REPRO_STORE") / ".cache"


def _home(hint: str) -> Path:
    try:
        return Path.home()
    except RuntimeError:
        message = f"there is no home folder: HOME is not set and user {os.getuid()} has no account"
        raise PestoError(message, hint) from None


def _indexes(project: Project, offline: bool) -> tuple[Indexes, Mapping[str, str]]:
    from pesto_repro.cli.indexes import indexes_from_environment  # imported late: most builds ask nobody

    python = project.settings.python
    indexes, uv_environment = indexes_from_environment(
        os.environ, _home("set HOME"), project.root, python.index_url, python.find_links, project.index_options
    )
    return indexes, uv_environment | ({"UV_OFFLINE": "1"} if offline else {})


def _mirrors(stated: str | None) -> Mirrors:
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    wanted = [path for path in files if path.suffix in (".list", ".sources") and path.is_file()]
    texts = [path.read_text(errors="replace") for path in wanted]
    return mirrors(stated, os.environ.get("PESTO_REPRO_DEBIAN_MIRROR"), texts)


def _source_date_epoch() -> str | None:
    """https://reproducible-builds.org/specs/source-date-epoch: an ASCII number of seconds since 1970."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise PestoError(
            f"SOURCE_DATE_EPOCH is {text!r}, which is no number of seconds since 1970", "unset or correct it"
        ) from None
