"""``login`` and ``logout``: a credential for a registry, where podman and docker keep theirs too."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from pesto_repro.cli.console import Console
from pesto_repro.cli.registry_access import access_from_environment, auth_files, login_file
from pesto_repro.registry.access import Credential
from pesto_repro.registry.credentials import erase, find, store
from pesto_repro.registry.reference import canonical_host, is_host


def _host(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not is_host(value):
        raise click.BadParameter(f'"{value}" is no registry: it reads HOST or HOST:PORT')
    return canonical_host(value)


@click.command()
@click.argument("host", callback=_host)
@click.option("-u", "--username", metavar="USER", help="Who you are there; asked for if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or an access token, from stdin.")
@click.option("-v", "--verbose", count=True, help="Say more.")
def login(host: str, username: str | None, password_stdin: bool, verbose: int) -> None:
    """Check a user name and password with a registry, and keep them for later.

    \b
    pesto-repro login registry.example:5000 -u ada --password-stdin < token.txt

    They are written where podman reads them, to $REGISTRY_AUTH_FILE if it is set. docker reads the same file as
    config.json in $DOCKER_CONFIG.
    """
    from pesto_repro.registry.client import Registries  # imported late: it takes a while

    console = Console(verbose=verbose)
    credential = Credential(username or _asked("Username"), _password(password_stdin))
    access = access_from_environment(os.environ, Path.home(), host)
    registries = Registries(replace(access, credentials=lambda name: credential if name == host else None), console)
    try:
        registries.check(host)
    finally:
        registries.close()
    path = login_file(os.environ, Path.home())
    store(path, host, credential)
    console.info(f"logged in to {host}; kept in {path}")


@click.command()
@click.argument("host", callback=_host)
def logout(host: str) -> None:
    """Forget the credential for a registry that ``login`` has kept."""
    console = Console()
    path = login_file(os.environ, Path.home())
    console.info(f"logged out of {host}" if erase(path, host) else f"{path} has no credential for {host}")
    others = [each for each in auth_files(os.environ, Path.home()) if each != path]
    if still := next((each for each in others if find([each], host)), None):
        console.warn(f"{still} has a credential for {host} too, which is used from now on")


def _asked(label: str, *, hidden: bool = False) -> str:
    if not sys.stdin.isatty():
        option = "--password-stdin" if hidden else "-u USER"
        raise click.UsageError(f"there is nobody to ask: say {option}")
    answer: str = click.prompt(label, hide_input=hidden, err=True)
    return answer


def _password(from_stdin: bool) -> str:
    """The password; its last line break is not part of it."""
    text = sys.stdin.read().removesuffix("\n").removesuffix("\r") if from_stdin else _asked("Password", hidden=True)
    if not text:
        raise click.UsageError("the password is empty")
    return text
