"""The command line: ``pesto-repro COMMAND PROJECT [-p PROFILE...]``.

stdout is data, stderr is talk. Exit codes: 0 done, 1 an expected failure (``error:`` then ``hint:``), 2 usage,
130 interrupted. Commands are imported when they are called, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pesto_repro import __version__
from pesto_repro.cli.console import Console
from pesto_repro.errors import EXIT_FAILURE, EXIT_INTERRUPTED, PestoError

COMMANDS = {
    "init": ("init:init", "Make a new project at TARGET."),
    "lock": ("lock:lock", "Pin everything PROJECT depends on into its lock."),
    "plan": ("plan:plan", "Show the steps of PROJECT's image, and what the store has."),
    "explain": ("explain:explain", "Say why steps of PROJECT are to be made again."),
    "build": ("build:build", "Build PROJECT's image from its lock."),
    "run": ("run:run", "Run an image's service, or one request, without Docker."),
    "test": ("test:test", "Test an image's service with the project's own cases."),
    "push": ("push:push", "Push an archive or a layout to a registry."),
    "copy": ("push:copy", "Copy an image from anywhere to anywhere."),
    "inspect": ("inspect:inspect", "Show what is in an image."),
    "diff": ("diff:diff", "Say how two locks, plans or images differ."),
    "verify": ("verify:verify", "Check an image: its form, its signature, or by making it again."),
    "sbom": ("sbom:sbom", "Write the bill of materials."),
    "provenance": ("sbom:provenance", "Write the provenance statement."),
    "export": ("export:export", "Write the lock in another tool's format."),
    "vendor": ("vendor:vendor", "Write everything that a build needs as one bundle."),
    "keygen": ("sign:keygen", "Make a pair of keys."),
    "sign": ("sign:sign", "Sign a registry's image."),
    "referrers": ("referrers:referrers", "List what is attached to a registry's image."),
    "store": ("store:store", "Look after the store."),
    "login": ("login:login", "Remember a registry's credentials."),
    "logout": ("login:logout", "Forget a registry's credentials."),
    "schema": ("init:schema", "Print the JSON Schema of image.toml."),
}
"""Each command's place below this package, and what it does in a line: so that ``--help`` imports none of them."""
# Before pydantic is imported: it would look through all installed packages for plugins, at each start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
_PROFILES = ("-p", "--profile", "--profiles")


class _Commands(click.Group):
    """The commands, imported one by one when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"pesto_repro.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pesto-repro")
def cli() -> None:
    """Reproducible OCI images of PESTO algorithm services, without Docker.

    \b
    pesto-repro init hello-service
    pesto-repro lock hello-service
    pesto-repro build hello-service
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    if arguments is None and sys.getfilesystemencoding() != "utf-8":
        # File names are bytes: read by another encoding they would be other names, and another image.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; its exit code."""
    try:
        result = cli.main(spread_profiles(arguments), prog_name="pesto-repro", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PestoError as error:
        Console().failure(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout went away; what is still buffered for them goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def spread_profiles(arguments: Sequence[str]) -> list[str]:
    """PESTO's ``-p p1 p2`` as ``-p p1 -p p2``: all words after ``-p`` up to the next option are profiles.

    What comes after ``--`` is not ours.

    >>> spread_profiles(["build", "x", "-p", "p1", "p2", "-o", "f"])
    ['build', 'x', '-p', 'p1', '-p', 'p2', '-o', 'f']
    """
    found: list[str] = []
    inside = False
    for index, argument in enumerate(arguments):
        if argument == "--":
            return [*found, *arguments[index:]]
        if argument.startswith("-"):
            inside = argument in _PROFILES
        elif inside and found[-1] not in _PROFILES:
            found.append(_PROFILES[0])
        found.append(argument)
    return found
