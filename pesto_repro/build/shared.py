"""Steps realised with a cache: a layer that others made is not made here, nor are its inputs fetched.

It wraps :func:`~pesto_repro.build.realise.realise`, and keeps its protocol. What the cache claims of a step is enough
to know the image; the layer's bytes come only when somebody needs them, which is said by calling again with the layer
in *lost*. Then they are verified, their digest and the diff_id computed anew; what is not as claimed is made here.

What came from a cache is recorded as that, with its origin and the key that it was signed with, and never among the
steps and layers that were made here: no claim becomes a fact by being remembered. The one fact that is, is *checked*:
that this blob holds this diff_id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from pesto_repro.build.compress import decompressed
from pesto_repro.build.realise import Realised, Workshop, known, layer_of, realise
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import BuildError, FetchError, MismatchError, StoreError
from pesto_repro.oci import MEDIA_TYPES, Descriptor
from pesto_repro.plan import Step
from pesto_repro.store import BlobWriter, Record

if TYPE_CHECKING:
    from pesto_repro.registry.cache import Alive, Cache, Claim


class Shared:
    """One build with a *cache*, which it may *write* to; without one it does what :func:`realise` does."""

    def __init__(self, shop: Workshop, cache: Cache | None = None, *, write: bool = False) -> None:
        self.shop, self._cache, self._write = shop, cache, write
        self._refused: set[Digest] = set()
        self._there: set[Digest] = set()

    def realise(self, steps: Iterable[Step], lost: Collection[Digest] = ()) -> dict[Digest, Realised]:
        """The layer of every step, by the step's key. Layers whose blob is in *lost* are brought, or made."""
        wanted = {step.key: step for step in steps}
        lacking = {key: step for key, step in wanted.items() if self._lacks(step, lost)}
        borrowed = self._borrowed(lacking, lost) if self._cache else {}
        made = realise([step for key, step in wanted.items() if key not in borrowed], self.shop, lost)
        return made | borrowed

    def mountable(self, host: str) -> dict[Digest, str]:
        """The blobs that are in the cache, and its repository, if the cache is on *host*."""
        if self._cache is None or self._cache.repository.host != host:
            return {}
        return dict.fromkeys(self._there, self._cache.repository.name)

    def offer(self, realised: Iterable[Realised]) -> int:
        """Put layers that were made here, now or before, into the cache where it lacks them; how many it has then."""
        if self._cache is None or not self._write:
            return 0
        from pesto_repro.registry.cache import Claim  # imported late: most builds have no cache

        made = [each for each in realised if each.origin is None]
        claims = [
            Claim(each.step.key, self.shop.compressor, each.layer.diff_id, each.layer.descriptor)
            for each in made
            if self.shop.store.path(each.layer.descriptor.digest).exists()
        ]
        there = self._cache.offer(claims, self._open)
        self._there.update(claim.layer.digest for claim in there)
        return len(there)

    def _lacks(self, step: Step, lost: Collection[Digest]) -> bool:
        layer = known(step, self.shop)
        return layer is None or layer.descriptor.digest in lost

    def _borrowed(self, steps: Mapping[Digest, Step], lost: Collection[Digest]) -> dict[Digest, Realised]:
        """Those of *steps* whose layer the cache has."""
        assert self._cache is not None
        claims = self._claims(list(steps), self._cache)
        needed = [claim for claim in claims if claim.layer.digest in lost]
        self._refused.update(claim.step for claim in set(needed) - self._bring(needed, self._cache, steps))
        found = [claim for claim in claims if claim.step not in self._refused]
        if found and self._cache.key is None and not self._there:
            self.shop.reporter.info(f"the cache {self._cache.origin} is believed unsigned: no --cache-key was given")
        self._there.update(claim.layer.digest for claim in found)
        return {claim.step: self._realised(claim, steps[claim.step], self._cache) for claim in found}

    def _realised(self, claim: Claim, step: Step, cache: Cache) -> Realised:
        layer = layer_of(step, claim.diff_id, claim.layer.digest, claim.layer.size, self.shop)
        return Realised(step, layer, cached=True, origin=cache.origin)

    # -- claims --------------------------------------------------------------------------------------------------

    def _claims(self, keys: Sequence[Digest], cache: Cache) -> list[Claim]:
        """What may be believed of the steps *keys*: remembered from earlier builds, else asked."""
        found = {key: claim for key in keys if (claim := self._remembered(key, cache))}
        new = cache.find((key for key in keys if key not in found), self.shop.compressor, self._media_type)
        for claim in new.values():
            self._remember(claim, cache)
        return [claim for claim in (found | new).values() if self._fits_the_store(claim, cache)]

    def _remember(self, claim: Claim, cache: Cache) -> None:
        value: Record = {
            "origin": cache.origin,
            "key": str(cache.key.fingerprint) if cache.key else "",
            "diff-id": str(claim.diff_id),
            "digest": str(claim.layer.digest),
            "size": claim.layer.size,
        }
        self.shop.store.remember("claim", self._slot(claim.step), value)

    def _remembered(self, step: Digest, cache: Cache) -> Claim | None:
        """A claim of this cache, learned under the key that is asked for now, if one is."""
        value = self.shop.store.record("claim", self._slot(step))
        if value is None or value["origin"] != cache.origin:
            return None
        if cache.key is not None and value["key"] != str(cache.key.fingerprint):
            return None
        from pesto_repro.registry.cache import Claim  # imported late, as above

        layer = Descriptor(self._media_type, Digest.parse(str(value["digest"])), int(value["size"]))
        return Claim(step, self.shop.compressor, Digest.parse(str(value["diff-id"])), layer)

    def _slot(self, step: Digest) -> str:
        return f"{step.hex}.{self.shop.compressor.replace(' ', '-')}"

    @property
    def _media_type(self) -> str:
        return MEDIA_TYPES[self.shop.compression]

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _bring(self, claims: Sequence[Claim], cache: Cache, steps: Mapping[Digest, Step]) -> set[Claim]:
        """Download and verify the layers of *claims*; those that are as claimed."""

        def take(claim: Claim, stream: BinaryIO, alive: Alive) -> None:
            name, size = steps[claim.step].name, claim.layer.size
            with self.shop.reporter.activity("download", name, size) as activity:

                def pieces() -> Iterator[bytes]:
                    for piece in chunks(stream):
                        alive()
                        activity.advance(len(piece))
                        yield piece

                self._keep(claim, pieces())

        return cache.bring(claims, take)

    def _keep(self, claim: Claim, pieces: Iterator[bytes]) -> None:
        """Put *pieces* into the store if they are the layer that *claim* says. Raises MismatchError."""
        store = self.shop.store
        with store.writer() as blob:
            try:
                _require_diff_id(claim, _diff_id(_written(pieces, blob), self.shop.compression))
            except MismatchError:
                for _ in pieces:  # to the end: bytes that are not even the blob's are the registry's lie, said there
                    pass
                raise
            digest = blob.commit()
        if digest != claim.layer.digest:
            store.discard(digest)
            raise MismatchError(f"its digest is {digest}")
        store.remember("checked", digest.hex, {"diff-id": str(claim.diff_id)})

    def _fits_the_store(self, claim: Claim, cache: Cache) -> bool:
        """Bytes that are here already are looked at before anyone builds on the claim."""
        store, digest = self.shop.store, claim.layer.digest
        checked = store.record("checked", digest.hex)
        if checked is None and not store.path(digest).exists():
            return True
        try:
            if checked is None:
                with store.open(digest) as stream:
                    checked = {"diff-id": str(_diff_id(chunks(stream), self.shop.compression))}
                store.remember("checked", digest.hex, checked)
            _require_diff_id(claim, Digest.parse(str(checked["diff-id"])))
        except MismatchError as error:
            self.shop.reporter.warn(f"{digest} of the cache {cache.origin} ignored: {error.message}")
            self._refused.add(claim.step)
            return False
        except StoreError:
            return True  # it is broken, and gone now: as if it had never been here
        return True

    def _open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        try:
            return self.shop.store.open(descriptor.digest)
        except StoreError as error:
            raise FetchError(error.message, error.hint) from None


def _written(pieces: Iterable[bytes], blob: BlobWriter) -> Iterator[bytes]:
    for piece in pieces:
        blob.write(piece)
        yield piece


def _diff_id(pieces: Iterable[bytes], compression: str) -> Digest:
    """The digest of the tar in a layer. Raises MismatchError for what is no layer."""
    state = hashlib.sha256()
    try:
        for piece in decompressed(pieces, compression):
            state.update(piece)
    except BuildError as error:
        raise MismatchError(error.message) from None
    return Digest(state.hexdigest())


def _require_diff_id(claim: Claim, actual: Digest) -> None:
    if actual != claim.diff_id:
        raise MismatchError(f"its diff_id is {actual}, not {claim.diff_id}")
