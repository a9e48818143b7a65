"""``init``: a new project. ``schema``: what image.toml may say."""

from __future__ import annotations

from pathlib import Path

import click

from pesto_repro import scaffold
from pesto_repro.cli.console import show, show_json
from pesto_repro.project.settings import json_schema


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", help="The service's name; default: the folder's.")
def init(target: Path, name: str | None) -> None:
    """Write a small project in PESTO's layout into the folder TARGET.

    \b
    pesto-repro init hello-service
    """
    for path in scaffold.create(target, name):
        show(str(path))
    click.echo(f"Next: pesto-repro lock {target}, then pesto-repro build {target}", err=True)


@click.command()
@click.argument("document", type=click.Choice(["image.toml"]), default="image.toml")
def schema(document: str) -> None:
    """Print the JSON Schema of image.toml, for editors that complete from it."""
    show_json(json_schema())
