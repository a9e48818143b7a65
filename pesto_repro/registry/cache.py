"""The registry as a shared store: which layer a step makes, by the step's key.

::

    <cache>:step-<40 hex>    of the sha256 over the step's key and the compressor
      artifactType           application/vnd.pesto-repro.step.v1
      config                 the empty descriptor
      layers[0]              the layer's blob, as images have it
      annotations            the step's key, the diff_id, the compressor; perhaps a signature over all that is claimed

Such an entry is a *claim*: that this step makes that layer. A digest proves which bytes a layer is, but not that the
step makes them: for that there is a key. With one, a claim that is not signed with it is not looked at.

A cache never fails a build. It has little time to answer; the first time that it does not, it is left alone until the
build ends, with a warning.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from pesto_repro.digest import Digest, canonical_json, digest_of_value
from pesto_repro.errors import FetchError, MismatchError, RegistryError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.registry.ports import Manifest, Repository

if TYPE_CHECKING:
    from pesto_repro.registry.signing import PrivateKey, PublicKey

T = TypeVar("T")
R = TypeVar("R")

ARTIFACT_TYPE = "application/vnd.pesto-repro.step.v1"
# manifest.md, "Guidance for an Empty Descriptor": "the media type ... application/vnd.oci.empty.v1+json" with the
# content "{}"
EMPTY = Descriptor.of("application/vnd.oci.empty.v1+json", b"{}")
PATIENCE = 5.0
"""For how many seconds a cache may be silent."""
BUDGET = 20.0
"""How many seconds all questions of one kind may take together."""
WORKERS = 8
_UPLOADS = 4
_LARGEST = 64 << 10


@dataclass(frozen=True, slots=True)
class Claim:
    """That *step* makes the tar *diff_id*, which *compressor* (the lock's words) makes the blob *layer*."""

    step: Digest
    compressor: str
    diff_id: Digest
    layer: Descriptor

    def statement(self) -> bytes:
        """What is signed: everything that is claimed, and as what."""
        return canonical_json(
            {
                "claim": ARTIFACT_TYPE,
                "step": str(self.step),
                "compressor": self.compressor,
                "diff-id": str(self.diff_id),
                "layer": self.layer.document(),
            }
        )


def tag(step: Digest, compressor: str) -> str:
    """Under which tag a claim about *step* is."""
    return f"step-{digest_of_value({'step': str(step), 'compressor': compressor}).hex[:40]}"


def entry(claim: Claim, signature: str | None = None) -> Manifest:
    """*claim* as a registry holds it (manifest.md, "Guidelines for Artifact Usage")."""
    annotations = {
        "org.pesto-repro.step": str(claim.step),
        "org.pesto-repro.compressor": claim.compressor,
        "org.pesto-repro.diff-id": str(claim.diff_id),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": EMPTY.document(),
        "layers": [claim.layer.document()],
        "annotations": annotations | ({"org.pesto-repro.signature": signature} if signature else {}),
    }
    data = canonical_json(document)
    return Manifest(MediaType.MANIFEST, Digest.of(data), data)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _LayerModel(_Model):
    media_type: str = Field(alias="mediaType")
    digest: str
    size: int = Field(ge=0)


class _Annotations(_Model):
    step: str = Field(alias="org.pesto-repro.step")
    compressor: str = Field(alias="org.pesto-repro.compressor")
    diff_id: str = Field(alias="org.pesto-repro.diff-id")
    signature: str | None = Field(default=None, alias="org.pesto-repro.signature")


class _Entry(_Model):
    artifact_type: Literal["application/vnd.pesto-repro.step.v1"] = Field(alias="artifactType")
    layers: list[_LayerModel] = Field(min_length=1, max_length=1)
    annotations: _Annotations


def read_entry(data: bytes) -> tuple[Claim, str | None]:
    """The claim in an entry, and its signature if it has one. Raises ValueError for anything else."""
    if len(data) > _LARGEST:
        raise ValueError(f"larger than {_LARGEST} bytes")
    found = _Entry.model_validate_json(data)
    layer, said = found.layers[0], found.annotations
    descriptor = Descriptor(layer.media_type, Digest.parse(layer.digest), layer.size)
    claim = Claim(Digest.parse(said.step), said.compressor, Digest.parse(said.diff_id), descriptor)
    return claim, said.signature


@dataclass(frozen=True, slots=True)
class Ignored:
    """An entry that is not believed, and why."""

    reason: str


Answer = Claim | Ignored | None
"""What the cache says of a step: None, nothing."""
Opener = Callable[[Descriptor], AbstractContextManager[BinaryIO]]
Alive = Callable[[], None]
"""Called now and then by what takes long, to say that it gets on."""


class Cache:
    """A repository that holds claims: *key* is what they must be signed with, *signer* signs those that are put there.

    *repository* is one that does not wait long; *uploads* gives the same one with the time that sending takes. No
    method raises for what goes wrong there: it is a warning, and from then on the cache is empty, as it is *offline*.
    """

    def __init__(
        self,
        repository: Repository,
        reporter: Reporter,
        *,
        key: PublicKey | None = None,
        signer: PrivateKey | None = None,
        uploads: Callable[[], Repository] | None = None,
        patience: float = PATIENCE,
        offline: bool = False,
    ) -> None:
        self.repository, self.reporter, self.key = repository, reporter, key
        self._signer, self._patience = signer, patience
        self._uploads = uploads or (lambda: repository)
        self._left = offline

    @property
    def origin(self) -> str:
        """``host/name``."""
        return f"{self.repository.host}/{self.repository.name}"

    def find(self, steps: Iterable[Digest], compressor: str, media_type: str) -> dict[Digest, Claim]:
        """What the cache claims about *steps*, as far as it may be believed."""
        answers = self._asked(steps, compressor, self.key)
        for step, each in answers.items():
            if isinstance(each, Claim) and each.layer.media_type != media_type:
                answers[step] = Ignored(f"it is of the type {each.layer.media_type}, not {media_type}")
        ignored = Counter(each.reason for each in answers.values() if isinstance(each, Ignored))
        for reason, count in sorted(ignored.items()):
            entries = "an entry" if count == 1 else f"{count} entries"
            self.reporter.warn(f"{entries} of the cache {self.origin} ignored: {reason}")
        return {step: each for step, each in answers.items() if isinstance(each, Claim)}

    def bring(self, claims: Sequence[Claim], take: Callable[[Claim, BinaryIO, Alive], None]) -> set[Claim]:
        """Let *take* read the layers of *claims*, side by side; those that it took.

        *take* gets a stream and a function to call now and then as it gets on. It raises MismatchError for bytes
        that are not what is claimed, which is told and harms nobody else. Nobody waits for a call that does not get on.
        """

        def one(claim: Claim, alive: Alive) -> MismatchError | None:
            try:
                with self.repository.open_blob(claim.layer) as stream:
                    take(claim, stream, alive)
            except MismatchError as error:
                return error
            return None

        largest = sorted(claims, key=lambda claim: (-claim.layer.size, claim.step))
        taken = set()
        for claim, error in self._answers(one, largest, 2 * self._patience, None):
            if error is None:
                taken.add(claim)
            else:
                self.reporter.warn(f"{claim.layer.digest} of the cache {self.origin} ignored: {error}")
        return taken

    def offer(self, claims: Sequence[Claim], open_layer: Opener) -> tuple[Claim, ...]:
        """Put those *claims* there, with their layers, that the cache lacks; those that are there now."""
        key = self._signer.public if self._signer else None
        there: dict[Digest, Answer] = {}
        for compressor in sorted({claim.compressor for claim in claims}):
            there |= self._asked((each.step for each in claims if each.compressor == compressor), compressor, key)
        missing = [claim for claim in claims if claim.step in there and there[claim.step] != claim]
        for claim in missing:
            if isinstance(there[claim.step], Claim):
                self.reporter.warn(f"the cache {self.origin} said otherwise of the step {claim.step}: replaced")
        put = self._put_all(missing, open_layer)
        return tuple(claim for claim in claims if claim in put or there.get(claim.step) == claim)

    # -- asking --------------------------------------------------------------------------------------------------

    def _asked(self, steps: Iterable[Digest], compressor: str, key: PublicKey | None) -> dict[Digest, Answer]:
        """By step: a claim, None where there is none, or why it is not to be believed. Not answered: not there."""
        ask = partial(self._ask, compressor, key)
        return dict(self._answers(ask, list(dict.fromkeys(steps)), self._patience, BUDGET))

    def _ask(self, compressor: str, key: PublicKey | None, step: Digest, alive: Alive) -> Answer:
        found = self.repository.has_manifest(tag(step, compressor))
        if found is None:
            return None
        manifest = self.repository.manifest(str(found))
        try:
            claim, signature = read_entry(manifest.data)
        except ValueError:
            return Ignored("it is not what this version writes")
        if (claim.step, claim.compressor) != (step, compressor):
            return Ignored("it is about another step")
        if key is not None and signature is None:
            return Ignored("it is not signed")
        if key is not None and not key.verifies(claim.statement(), str(signature)):
            return Ignored("it is not signed with the key that is asked for")
        return claim

    def _answers(
        self, ask: Callable[[T, Alive], R], items: Sequence[T], patience: float, budget: float | None
    ) -> Iterator[tuple[T, R]]:
        """The answers as they come; at the first failure, or silence, that was all, and the cache is left alone."""
        if self._left or not items:
            return
        try:
            yield from hurried(ask, items, patience, budget)
        except FetchError as error:
            self._leave(error.message)

    def _leave(self, reason: str) -> None:
        self._left = True
        self.reporter.warn(f"the cache {self.origin} is left alone: {reason}", "the build goes on without it")

    # -- putting -------------------------------------------------------------------------------------------------

    def _put_all(self, claims: Sequence[Claim], open_layer: Opener) -> set[Claim]:
        """Put *claims* there, the largest first, until one fails; those that were put."""
        if self._left or not claims:
            return set()
        largest = sorted(claims, key=lambda claim: (-claim.layer.size, claim.step))
        putting: dict[Future[None], Claim] = {}
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="cache") as pool:
            try:
                target = self._uploads()
                _push_blob(target, EMPTY, lambda _: BytesIO(b"{}"))
                putting = {pool.submit(self._put, target, each, open_layer): each for each in largest}
                for future in as_completed(putting):
                    future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, FetchError):
                    raise
                self._leave(error.message)
        return {claim for future, claim in putting.items() if not future.cancelled() and not future.exception()}

    def _put(self, target: Repository, claim: Claim, open_layer: Opener) -> None:
        """The blob first: a registry takes no manifest that names what it does not have."""
        _push_blob(target, claim.layer, open_layer)
        signature = self._signer.sign(claim.statement()) if self._signer else None
        target.push_manifest(tag(claim.step, claim.compressor), entry(claim, signature))


def _push_blob(target: Repository, descriptor: Descriptor, opener: Opener) -> None:
    if not target.has_blob(descriptor.digest):
        target.push_blob(descriptor, lambda: opener(descriptor))


class _Alive:
    """What a question puts among the answers to say that it gets on."""


def hurried(
    ask: Callable[[T, Alive], R], items: Sequence[T], patience: float, budget: float | None
) -> Iterator[tuple[T, R]]:
    """Each of *items* with what *ask* answers, as the answers come.

    Raises what *ask* raised, and RegistryError if there was no sign of life for *patience* seconds, or not every
    answer within *budget* seconds. The threads that ask are daemons: nobody waits for a server that says nothing,
    not even the end of the program.
    """
    questions: SimpleQueue[T] = SimpleQueue()
    answers: SimpleQueue[tuple[T, R] | Exception | _Alive] = SimpleQueue()
    stopped = threading.Event()
    for item in items:
        questions.put(item)
    for _ in range(min(WORKERS, len(items))):
        threading.Thread(target=_work, args=(ask, questions, answers, stopped), name="cache", daemon=True).start()
    deadline = None if budget is None else time.monotonic() + budget
    try:
        yield from _collected(answers, len(items), patience, deadline)
    finally:
        stopped.set()


def _collected(
    answers: SimpleQueue[tuple[T, R] | Exception | _Alive], count: int, patience: float, deadline: float | None
) -> Iterator[tuple[T, R]]:
    while count:
        try:
            answer = answers.get(timeout=patience)
        except Empty:
            raise RegistryError(f"no answer within {patience:g} seconds") from None
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, _Alive):
            count -= 1
            yield answer
        if deadline is not None and time.monotonic() > deadline and count:
            raise RegistryError(f"it is too slow: {count} questions are not answered yet")


def _work(
    ask: Callable[[T, Alive], R],
    questions: SimpleQueue[T],
    answers: SimpleQueue[tuple[T, R] | Exception | _Alive],
    stopped: threading.Event,
) -> None:
    while not stopped.is_set():
        try:
            item = questions.get_nowait()
        except Empty:
            return
        try:
            answers.put((item, ask(item, lambda: answers.put(_Alive()))))
        except Exception as error:  # whatever it is, it is raised where the answers are collected
            answers.put(error)
            return
