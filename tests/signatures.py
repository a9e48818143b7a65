"""Which signatures of an image are somebody's."""

from __future__ import annotations

from pesto_repro.digest import Digest
from pesto_repro.registry.cosign import Claim, claims
from pesto_repro.registry.ports import Repository
from pesto_repro.registry.signing import ImageKey


def signed_by(repository: Repository, image: Digest, key: ImageKey) -> tuple[Claim, ...]:
    """The signatures of *image* by *key*."""
    return tuple(each for each in claims(repository, image) if each.holds(image, key))
