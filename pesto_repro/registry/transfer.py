"""Sends an image to a repository: only what is missing there, bytes that others have by mounting, tags last.

Rules:

* Asked first is whether the image is there: a manifest never comes before what it names, so where a manifest is, all
  of it is. Pushing again therefore costs a question for each tag.
* Where a tag is moved from one image to the next, what both have is there: of the rest each is asked for.
* Each missing blob is mounted if another repository of the registry is known to have it, else streamed; several side
  by side, the largest first, none of them held in memory or kept on disk.
* Then the manifests, byte-exact, bottom-up; tags last. What fails leaves no tag on half an image, and the next push
  sends only the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from io import BufferedIOBase
from typing import BinaryIO, cast

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, RegistryError
from pesto_repro.oci import Descriptor
from pesto_repro.progress import Activity, Reporter
from pesto_repro.registry.content import Document, LostLayers, RemoteContent, blobs_of, documents, read_document
from pesto_repro.registry.ports import Content, Manifest, Repository

WORKERS = 4
"""Blobs on their way at once."""


class How(Enum):
    """How a blob came to be in the repository."""

    UPLOADED = "uploaded"
    MOUNTED = "mounted"
    EXISTING = "existing"


@dataclass(frozen=True, slots=True)
class Report:
    """What a push did, by blob. *refused*: mounts that the registry did not make, so that the bytes were sent.

    *bytes* counts what was sent: blobs and manifests.
    """

    digest: Digest
    uploaded: tuple[Digest, ...] = ()
    mounted: tuple[Digest, ...] = ()
    existing: tuple[Digest, ...] = ()
    refused: tuple[Digest, ...] = ()
    bytes: int = 0


class _Stopped(FetchError):
    """Another blob failed: this one need not go on."""


def push(
    content: Content,
    image: Sequence[Document],
    target: Repository,
    tags: Sequence[str],
    *,
    mount_from: Mapping[Digest, str] | None = None,
    reporter: Reporter | None = None,
    workers: int = WORKERS,
) -> Report:
    """Send the image, whose documents :func:`~pesto_repro.registry.content.documents` gave, and tag it.

    *mount_from* says which repository of the same registry has a blob. Without *tags* it is known by its digest only.
    Raises RegistryError, or what *content* raises; LostLayers, with all of them, once everything else is there.
    """
    root = image[-1]
    found = {tag: target.has_manifest(tag) for tag in tags}
    stale = [tag for tag in tags if found[tag] != root.descriptor.digest]
    tagged = len(stale) < len(tags)
    absent = [] if tagged else list(_absent(image, target))
    transfer = _Transfer(content, target, mount_from or {}, reporter or Reporter())
    missing = blobs_of(absent)
    there = _blobs_there(target, found.values()) if missing else frozenset()
    if there:
        transfer.new = frozenset(each.blobs[0].digest for each in absent if each.blobs)
    transfer.place_all((blob for blob in missing if blob.digest not in there), workers)
    put = partial(_put_all, target, absent, root, stale)
    try:
        sent = put()
    except RegistryError:
        doubtful = [blob for blob in missing if blob.digest in there]
        if not doubtful:
            raise
        transfer.place_all(doubtful, workers)
        sent = put()
    return transfer.report(root.descriptor.digest, missing, blobs_of(image), sent)


def _put_all(target: Repository, absent: Sequence[Document], root: Document, stale: Sequence[str]) -> int:
    """Push the documents that are *absent*, and *root* last, under each tag that is *stale*; how many bytes."""
    sent = sum(_put(target, each, str(each.descriptor.digest)) for each in absent if each is not root)
    if absent or stale:
        sent += sum(_put(target, root, name) for name in stale or [str(root.descriptor.digest)])
    return sent


def _blobs_there(target: Repository, roots: Iterable[Digest | None]) -> frozenset[Digest]:
    """What the images *roots* consist of, which the repository has: so has it all of this.

    Of documents that cannot be read nothing follows: each blob is asked for then.
    """
    found: set[Digest] = set()
    for root in {each for each in roots if each is not None}:
        try:
            manifest = target.manifest(str(root))
            descriptor = Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
            document = read_document(descriptor, manifest.data)
            below = [each for child in document.children for each in documents(RemoteContent(target), child)]
            found |= {blob.digest for blob in blobs_of([document, *below])}
        except FetchError:
            continue
    return frozenset(found)


def _absent(image: Sequence[Document], target: Repository) -> Iterator[Document]:
    """The documents that *target* does not have, bottom-up. Below one that it has, nobody is asked for."""
    by_digest = {document.descriptor.digest: document for document in image}
    asked: set[Digest] = set()

    def search(document: Document) -> Iterator[Document]:
        digest = document.descriptor.digest
        if digest in asked:
            return
        asked.add(digest)
        if target.has_manifest(str(digest)) is None:
            for child in document.children:
                yield from search(by_digest[child.digest])
            yield document

    return search(image[-1])


def _put(target: Repository, document: Document, name: str) -> int:
    """Push one document under *name*, a tag or its digest; its size."""
    described = document.descriptor
    target.push_manifest(name, Manifest(described.media_type, described.digest, document.data))
    return len(document.data)


@dataclass
class _Transfer:
    """Blobs on their way to one repository."""

    content: Content
    target: Repository
    mount_from: Mapping[Digest, str]
    reporter: Reporter
    new: frozenset[Digest] = frozenset()
    """Nobody is asked for these: the config of an image that is not there is hardly there, and small."""
    stop: threading.Event = field(default_factory=threading.Event)
    done: dict[Digest, How] = field(default_factory=dict)
    refused: list[Digest] = field(default_factory=list)
    lost: list[LostLayers] = field(default_factory=list)

    def place_all(self, blobs: Iterable[Descriptor], workers: int) -> None:
        """See that the repository has every one of *blobs*. The first failure ends it."""
        ordered = sorted(blobs, key=lambda blob: (-blob.size, blob.digest))
        if not ordered:
            return
        with ThreadPoolExecutor(min(workers, len(ordered)), thread_name_prefix="push") as pool:
            try:
                _first_failure([pool.submit(self._place, blob) for blob in ordered])
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self.lost:
            raise LostLayers(frozenset().union(*(each.digests for each in self.lost)), self.lost[0].reason)

    def report(self, root: Digest, missing: Sequence[Descriptor], blobs: Sequence[Descriptor], sent: int) -> Report:
        """What was done, in the order of the image."""

        def those(how: How) -> tuple[Digest, ...]:
            return tuple(each.digest for each in blobs if self.done.get(each.digest, How.EXISTING) is how)

        sent += sum(blob.size for blob in missing if self.done.get(blob.digest) is How.UPLOADED)
        refused = tuple(each.digest for each in blobs if each.digest in self.refused)
        return Report(root, those(How.UPLOADED), those(How.MOUNTED), those(How.EXISTING), refused, sent)

    def _place(self, blob: Descriptor) -> None:
        try:
            self.done[blob.digest] = self._placed(blob)
        except LostLayers as error:
            self.lost.append(error)

    def _placed(self, blob: Descriptor) -> How:
        """distribution-spec, "Pushing blobs", after "Checking if content exists" and "Mounting a blob"."""
        if blob.digest not in self.new and self.target.has_blob(blob.digest):
            return How.EXISTING
        if self._mounted(blob):
            return How.MOUNTED
        with self.reporter.activity("push", blob.digest.hex[:12], blob.size) as activity:
            self.target.push_blob(blob, partial(self._opened, blob, _Meter(activity)))
        return How.UPLOADED

    def _mounted(self, blob: Descriptor) -> bool:
        source = self.mount_from.get(blob.digest)
        if source is None or source == self.target.name:
            return False
        try:
            if self.target.mount(blob.digest, source):
                return True
            reason = ""
        except FetchError as error:  # a registry may answer anything: what matters is that the bytes get there
            reason = f" ({error.message})"
        where = f"{self.target.host}/{self.target.name}"
        self.refused.append(blob.digest)
        self.reporter.info(f"{where}: {blob.digest} could not be mounted from {source}, so it is sent{reason}")
        return False

    @contextmanager
    def _opened(self, blob: Descriptor, meter: _Meter) -> Iterator[BinaryIO]:
        """The blob for one try: what an earlier one sent counts no more."""
        meter.restart()
        with self.content.open(blob) as stream:
            yield cast(BinaryIO, _Watched(stream, meter, self.stop))


@dataclass
class _Meter:
    """What of a blob is under way, for people."""

    activity: Activity
    sent: int = 0

    def restart(self) -> None:
        """Begin anew."""
        self.advance(-self.sent)

    def advance(self, amount: int) -> None:
        self.sent += amount
        self.activity.advance(amount)


class _Watched(BufferedIOBase):
    """A stream that tells how far it was read, and ends at once when the push has failed elsewhere."""

    def __init__(self, stream: BinaryIO, meter: _Meter, stop: threading.Event) -> None:
        self._stream, self._meter, self._stop = stream, meter, stop

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stop.is_set():
            raise _Stopped("the push was given up")
        data = self._stream.read(-1 if size is None else size)
        self._meter.advance(len(data))
        return data


def _first_failure(futures: Sequence[Future[None]]) -> None:
    """Wait until all are done or one failed; raise what that one raised."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
