"""Is this the image that lock and project give? An image and its rebuilt twin, compared from the layers up.

Every blob of the image is read, also those whose digest the twin has: that an archive names a layer is no proof that it
holds it. Of layers the diff_id counts first, then the compressed bytes; then config, manifest and index. What was
rebuilt shares nothing with the image and no layer with the usual store: only pinned inputs are lent.
"""

from __future__ import annotations

import contextlib
import difflib
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pesto_repro.audit.compare import (
    ABSENT,
    Change,
    Held,
    HeldLayer,
    HeldPlatform,
    LayerReader,
    changes,
    config_changes,
    labels_of,
    opened,
    platforms,
    said,
)
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import LockError, PestoError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.plan.make import LOCK_LABEL, LOCK_PLACE, LOCK_TYPE
from pesto_repro.registry.content import RemoteContent
from pesto_repro.registry.ports import Repository
from pesto_repro.registry.referrers import fetch, referrers
from pesto_repro.store import Store

Owners = Callable[[Digest], Mapping[str, str]]
"""Of a rebuilt layer, by its diff_id: who brought each path ("numpy 2.3.1")."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: in the *image* a thing is so, *rebuilt* it is otherwise.

    *where* is "linux/amd64: layer 3, python: numpy 2.3.1", or a document; *path* a file of the layer and *package* who
    brings it.
    """

    where: str
    what: str
    image: str
    rebuilt: str
    path: str = ""
    package: str = ""

    def __str__(self) -> str:
        what = " ".join(filter(None, (f"{self.path}:" if self.path else "", self.what)))
        owner = f"{self.package}: " if self.package else ""
        if self.what == "entry":
            fate = "is missing in the image" if self.image == ABSENT else "is only in the image"
            return f"{owner}{self.path} {fate}: {self.rebuilt if self.image == ABSENT else self.image}"
        if not self.rebuilt:
            return f"{owner}{what}: {self.image}"
        return f"{owner}{what}: {self.image} in the image, {self.rebuilt} rebuilt"


def findings(image: Held, rebuilt: Held, owners: Owners) -> Iterator[Finding]:
    """Everything in which *image* is not *rebuilt*, all of it read; nothing if they are identical."""
    found, made = platforms(image), platforms(rebuilt)
    for name in made:
        if name not in found:
            yield Finding(name, "platform", ABSENT, str(made[name].manifest.descriptor.digest))
    for name, platform in found.items():
        if name not in made:
            yield Finding(name, "platform", str(platform.manifest.descriptor.digest), ABSENT)
        else:
            yield from _platform(image, rebuilt, platform, made[name], owners)
    if image.root.digest != rebuilt.root.digest and (image.index or rebuilt.index):
        yield Finding("the index", "digest", str(image.root.digest), str(rebuilt.root.digest))


def _platform(image: Held, rebuilt: Held, found: HeldPlatform, made: HeldPlatform, owners: Owners) -> Iterator[Finding]:
    for number, one, other in _pairs(found.layers, made.layers):
        layer = one or other
        assert layer is not None
        where = f"{found.platform}: layer {number}, {(other or layer).name}"
        if one is None or other is None:
            digests = [str(each.descriptor.digest) if each else ABSENT for each in (one, other)]
            yield Finding(where, "layer", *digests)
        else:
            yield from _layer(image, rebuilt, one, other, where, owners)
    config = f"{found.platform}: config"
    for key, here, there in config_changes(found.config, made.config):
        yield Finding(config, key, said(here), said(there))
    yield from _digests(config, found.manifest.blobs[0].digest, made.manifest.blobs[0].digest)
    yield from _digests(
        f"{found.platform}: manifest", found.manifest.descriptor.digest, made.manifest.descriptor.digest
    )


def _digests(where: str, found: Digest, made: Digest) -> Iterator[Finding]:
    if found != made:
        yield Finding(where, "digest", str(found), str(made))


def _pairs(
    found: tuple[HeldLayer, ...], made: tuple[HeldLayer, ...]
) -> Iterator[tuple[int, HeldLayer | None, HeldLayer | None]]:
    """Layers that belong together, by the number of the upper one: equal diff_ids, and what stands between them."""
    matcher = difflib.SequenceMatcher(
        None, [each.diff_id for each in found], [each.diff_id for each in made], autojunk=False
    )
    for _, one, one_end, other, other_end in matcher.get_opcodes():
        for step in range(max(one_end - one, other_end - other)):
            here = found[one + step] if one + step < one_end else None
            there = made[other + step] if other + step < other_end else None
            yield (one if here else other) + step + 1, here, there


def _layer(
    image: Held, rebuilt: Held, found: HeldLayer, made: HeldLayer, where: str, owners: Owners
) -> Iterator[Finding]:
    actual: str | None
    with contextlib.ExitStack() as stack:
        same = found.descriptor.digest == made.descriptor.digest
        ours = None if same else stack.enter_context(opened(rebuilt.content, made.descriptor))
        try:
            if ours is None:
                _read(image, found)
                actual = made.diff_id
            else:
                actual = yield from _contents(image, ours, found, made, where, owners)
        except PestoError as error:
            yield Finding(where, "cannot be read", error.message, "")
            return
    if actual is not None and actual != found.diff_id:
        yield Finding(where, "diff_id in the config", str(found.diff_id), actual)
    if found.descriptor.media_type != made.descriptor.media_type:
        yield Finding(where, "media type", found.descriptor.media_type, made.descriptor.media_type)
    yield from _digests(where, found.descriptor.digest, made.descriptor.digest)


def _read(image: Held, layer: HeldLayer) -> None:
    """Read a layer to its end, which verifies it. Raises FetchError."""
    with image.content.open(layer.descriptor) as stream:
        for _ in chunks(stream):
            pass


def _contents(
    image: Held, ours: LayerReader, found: HeldLayer, made: HeldLayer, where: str, owners: Owners
) -> Generator[Finding, None, str]:
    """What differs inside; gives the diff_id that the image's layer really has."""
    files: list[Change] = []
    with opened(image.content, found.descriptor) as theirs:
        try:
            for change in changes(ours.entries(), theirs.entries()):
                files.append(change)
            actual, expected = str(theirs.diff_id()), str(ours.diff_id())
        except PestoError:
            yield from _files(files, where, made, owners)
            raise
    if actual != expected:
        yield Finding(where, "diff_id", actual, expected)
    yield from _files(files, where, made, owners)
    if actual != expected and not files:
        yield Finding(where, "the form of the tar, none of its entries", actual, expected)
    return actual


def _files(files: list[Change], where: str, made: HeldLayer, owners: Owners) -> Iterator[Finding]:
    brought = owners(Digest.parse(str(made.diff_id))) if files else {}
    for each in sorted(files, key=lambda each: (each.path.split("/"), each.what)):
        yield Finding(where, each.what, each.after, each.before, each.path, _package(brought.get(each.path, "")))


def _package(origin: str) -> str:
    """ "libc6 2.41-2" of the .deb's name; a wheel's files have it already."""
    return " ".join(origin.split("_")[:2]) if origin.endswith(".deb") else origin


# -- the lock that travels with an image -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Travelling:
    """A lock that came with an image: "in the image", or "attached" to it as a referrer."""

    lock: Lock
    where: Literal["in the image", "attached"]


def travelling_lock(image: Held) -> Travelling | None:
    """The lock that *image* was made from, if it comes with it. Raises LockError if it is not the one the label names.

    Of several that are attached the one that the label names counts.
    """
    parts = platforms(image).values()
    labels = {str(labels_of(part.config).get(LOCK_LABEL) or "") for part in parts} - {""}
    found: list[Travelling] = []
    for part in parts:
        found += [Travelling(lock, "in the image") for lock in _embedded(image, part)]
    if not found and isinstance(image.content, RemoteContent):
        found += [Travelling(lock, "attached") for lock in _attached(image.content.repository, image.root.digest)]
    right = [each for each in found if labels in ({each.lock.content_hash}, set())]
    if found and not right:
        other, named = found[0], ", ".join(sorted(labels))
        raise LockError(f"the lock that is {other.where} is {other.lock.content_hash}; the image's label names {named}")
    return right[0] if right else None


def _embedded(image: Held, part: HeldPlatform) -> Iterator[Lock]:
    for layer in part.layers:
        if layer.name == f"lock: /{LOCK_PLACE}" and (text := _lock_text(image, layer)) is not None:
            yield lock_text.loads(text, f"/{LOCK_PLACE} of the image")


def _attached(repository: Repository, image: Digest) -> Iterator[Lock]:
    for referrer in referrers(repository, image, LOCK_TYPE):
        for payload in fetch(repository, image, referrer).payloads:
            try:
                yield lock_text.loads(payload.data.decode(), "the lock that is attached to the image")
            except UnicodeDecodeError:
                raise LockError("the lock that is attached to the image is no text") from None


def _lock_text(image: Held, layer: HeldLayer) -> str | None:
    with opened(image.content, layer.descriptor) as reader:
        for info, content in reader.members():
            if info.name == LOCK_PLACE and content is not None:
                try:
                    return content.read().decode()
                except UnicodeDecodeError:
                    raise LockError(f"/{LOCK_PLACE} of the image is no text") from None
    return None


# -- what a rebuild is given -------------------------------------------------------------------------------------


@dataclass
class Lending:
    """Brings pinned inputs into *fresh*: out of *usual*, where *fetch* has them downloaded first if they lack.

    Bytes are lent by digest, verified. Only what the lock pins is asked for, so that no layer ever is.
    """

    usual: Store
    fresh: Store
    fetch: Callable[[Digest], None]
    lent: set[Digest] = field(default_factory=set)
    fetched: set[Digest] = field(default_factory=set)

    def __call__(self, digest: Digest) -> None:
        """Have the bytes of *digest* in *fresh*. Raises FetchError."""
        (self.lent if self.usual.has(digest) else self.fetched).add(digest)
        self.fetch(digest)
        if self.fresh.has(digest):
            return
        with self.usual.open(digest) as source, self.fresh.writer() as blob:
            shutil.copyfileobj(source, blob, 1 << 20)
            blob.commit()
