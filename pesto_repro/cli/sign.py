"""``keygen`` and ``sign``: keys, and signatures of a registry's images, as cosign has them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pesto_repro.cli.console import Console, show, show_json
from pesto_repro.cli.options import talking_command
from pesto_repro.cli.places import tagged
from pesto_repro.cli.registries import reachable
from pesto_repro.errors import PestoError
from pesto_repro.registry.reference import RemoteReference

if TYPE_CHECKING:
    from pesto_repro.oci import Descriptor
    from pesto_repro.registry.cosign import Claim
    from pesto_repro.registry.ports import Repository
    from pesto_repro.registry.signing import ImageKey, ImageSigner

PASSWORD = "PESTO_REPRO_KEY_PASSWORD"


@click.command()
@click.option(
    "-o", "--output", "prefix", default="pesto-repro", show_default=True, metavar="PREFIX", help="Begins both names."
)
@click.option("--no-password", is_flag=True, help="Keep the private key as it is: whoever reads the file has it.")
@talking_command
def keygen(console: Console, as_json: bool, prefix: str, no_password: bool) -> int:
    """Make a pair of keys, ECDSA over P-256: PREFIX.key to sign with, PREFIX.pub for whoever checks.

    The private key is encrypted with the pass phrase in PESTO_REPRO_KEY_PASSWORD, or with one that you are asked for.
    Nothing is written over.

    \b
    pesto-repro keygen -o team
    """
    from pesto_repro.registry.signing import ImageSigner  # imported late: it takes a while

    private, public = Path(f"{prefix}.key"), Path(f"{prefix}.pub")
    _require_free(private, public)
    password = None if no_password else _new_password()
    signer = ImageSigner.new()
    _write_new(private, signer.pem(password), 0o600)
    try:
        _write_new(public, signer.public.pem, 0o644)
    except PestoError:
        private.unlink()
        raise
    if as_json:
        show_json({"private": str(private), "public": str(public), "key": str(signer.public.fingerprint)})
    else:
        show(str(public))
    console.info(f"{private} signs, and is to be kept secret; {public} checks: {signer.public.fingerprint}")
    return 0


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--key", "path", type=click.Path(path_type=Path), required=True, help="The private key.")
@talking_command
def sign(console: Console, as_json: bool, reference: str, path: Path) -> int:
    """Sign REF, an image in a registry, with a key of `pesto-repro keygen` or of cosign.

    What is signed is the digest that REF leads to now; `REF@sha256:...` says which. The pass phrase is in
    PESTO_REPRO_KEY_PASSWORD, or you are asked for it.

    \b
    pesto-repro sign registry.example/team/hello-service:1.0.0 --key team.key
    pesto-repro verify registry.example/team/hello-service:1.0.0 --key team.pub
    cosign verify --key team.pub --insecure-ignore-tlog registry.example/team/hello-service:1.0.0
    """
    from pesto_repro.registry import cosign  # imported late: it takes a while

    target = RemoteReference.parse(reference.removeprefix("docker://"))
    signer = read_signer(path)
    with reachable(console, target.host) as registries:
        repository = registries().repository(target)
        image = root_of(repository, target)
        claims = cosign.sign(repository, image, signer)
    if as_json:
        show_json(_signed_json(target, image, signer.public, claims))
    else:
        show(f"{tagged(target)}@{image.digest}")
    console.info(f"signed {image.digest} with {signer.public.fingerprint}")
    return 0


def read_key(path: Path) -> ImageKey:
    """The public key at *path*. Raises PestoError."""
    from pesto_repro.registry.signing import image_key  # imported late: it takes a while

    return image_key(_read(path), str(path))


def read_signer(path: Path) -> ImageSigner:
    """The private key at *path*, opened. Raises PestoError."""
    from pesto_repro.registry.signing import image_signer  # imported late: it takes a while

    return image_signer(_read(path), str(path), lambda: _password(f"Pass phrase of {path}"))


def root_of(repository: Repository, reference: RemoteReference) -> Descriptor:
    """What *reference* leads to now. Raises RegistryError."""
    from pesto_repro.registry.content import RemoteContent

    return RemoteContent(repository).root(reference.target)


def _signed_json(
    target: RemoteReference, image: Descriptor, key: ImageKey, claims: tuple[Claim, ...]
) -> dict[str, Any]:
    return {
        "reference": tagged(target),
        "digest": str(image.digest),
        "key": str(key.fingerprint),
        "signatures": [{"form": each.form, "digest": str(each.digest)} for each in claims],
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PestoError(f"the key {path} cannot be read: {error.strerror or error}") from None


def _require_free(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise PestoError(f"{path} is there already, and keys are never written over", "say another name with -o")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write *path*, which nobody else may read before it has its *mode*, whole or not at all."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise PestoError(f"{path} cannot be written: {error.strerror or error}", "say another name with -o") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PestoError(f"{path} cannot be written: {error.strerror or error}", "choose another place") from None


def _new_password() -> bytes:
    found = _password("Pass phrase of the new key", confirm=True)
    if not found:
        raise PestoError("the pass phrase is empty", "for a key without one say --no-password")
    return found


def _password(label: str, *, confirm: bool = False) -> bytes:
    """The pass phrase out of the environment, or from whoever sits there. Raises PestoError."""
    found = os.environ.get(PASSWORD)
    if found is None:
        if not sys.stdin.isatty():
            raise PestoError(f"{label}: there is nobody to ask", f"set {PASSWORD}")
        found = click.prompt(
            label, hide_input=True, confirmation_prompt=confirm, default="", show_default=False, err=True
        )
    return os.fsencode(found)
