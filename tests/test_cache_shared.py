"""Builds with a cache in memory: what is asked, what is believed, and what a cache that fails or lies can do."""

from __future__ import annotations

import io
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pesto_repro.build.compress import describe
from pesto_repro.build.realise import Realised, Workshop, known
from pesto_repro.build.shared import Shared
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, RegistryError
from pesto_repro.oci import Descriptor, Layer, MediaType
from pesto_repro.plan import Pinned, Step
from pesto_repro.progress import Reporter
from pesto_repro.registry.cache import Cache, Claim, entry, hurried, tag
from pesto_repro.registry.ports import Manifest
from pesto_repro.registry.signing import PrivateKey, PublicKey
from pesto_repro.store import Store
from tests.memory_registry import MemoryRegistry, MemoryRepository

COMPRESSOR = describe("gzip")
KEY, OTHER = PrivateKey(bytes(range(32))), PrivateKey(bytes(32))
CACHE = "registry.example/team/steps"
INPUTS = {Digest.of(data): data for data in (b"one", b"two" * 1000, b"three")}


def step(name: str, data: bytes) -> Step:
    return Step("file", name, "resources", {"to": f"opt/{name}"}, (Pinned(name, Digest.of(data), len(data)),))


STEPS = tuple(step(f"step-{number}", data) for number, data in enumerate(INPUTS.values()))
FIRST, SECOND, THIRD = STEPS


class Heard(Reporter):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str, hint: str | None = None) -> None:
        self.warnings.append(message)


@dataclass
class Machine:
    """A machine with a store of its own, and what was fetched on it."""

    store: Store
    heard: Heard = field(default_factory=Heard)
    fetched: list[Digest] = field(default_factory=list)

    def build(
        self,
        repository: MemoryRepository | None,
        *,
        key: PublicKey | None = None,
        signer: PrivateKey | None = None,
        write: bool = False,
        archive: bool = False,
        steps: Sequence[Step] = STEPS,
    ) -> dict[Digest, Realised]:
        """One build; with *archive* every layer's bytes are needed."""
        cache = Cache(repository, self.heard, key=key, signer=signer, patience=0.5) if repository else None
        shared = Shared(self.shop, cache, write=write)
        made = shared.realise(steps)
        for _ in range(2):
            lost = {each.layer.descriptor.digest for each in made.values()}
            lost = {digest for digest in lost if not self.store.has(digest)}
            if archive and lost:
                made = shared.realise(steps, lost)
        assert not archive or not lost
        shared.offer(made.values())
        return made

    @property
    def shop(self) -> Workshop:
        return Workshop(self.store, {}, self.fetch, "gzip", COMPRESSOR, self.heard, workers=2)

    def fetch(self, digest: Digest) -> None:
        self.fetched.append(digest)
        self.store.put(INPUTS[digest])

    def has(self, layer: Layer) -> bool:
        return self.store.has(layer.descriptor.digest)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def steps_there(registry: MemoryRegistry) -> MemoryRepository:
    return registry.repository("team/steps")


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[], Machine]:
    """Makes machines."""
    numbers = iter(range(100))
    return lambda: Machine(Store(tmp_path / str(next(numbers))))


Machines = Callable[[], Machine]


@pytest.fixture
def right(machine: Machines) -> dict[Digest, Layer]:
    """The layers that the steps make, by step."""
    return layers(machine().build(None))


def layers(realised: dict[Digest, Realised]) -> dict[Digest, Layer]:
    return {key: each.layer for key, each in realised.items()}


def write(repository: MemoryRepository, claim: Claim, signer: PrivateKey | None = None) -> None:
    """Put an entry there, as anyone may who can push."""
    signature = signer.sign(claim.statement()) if signer else None
    repository.manifests[tag(claim.step, COMPRESSOR)] = manifest = entry(claim, signature)
    repository.manifests[str(manifest.digest)] = manifest


def claim_of(step: Step, made: Layer, layer: Descriptor | None = None) -> Claim:
    """That *step* makes *made*; or what says so, but names the blob *layer*."""
    return Claim(step.key, COMPRESSOR, made.diff_id, layer or made.descriptor)


def layer_at(repository: MemoryRepository, data: bytes) -> Descriptor:
    """A blob there, described as a layer."""
    descriptor = Descriptor.of(MediaType.LAYER_GZIP, data)
    repository.blobs[descriptor.digest] = data
    return descriptor


# -- warm and cold -----------------------------------------------------------------------------------------------------


def test_an_empty_machine_borrows_everything(machine: Machines, steps_there: MemoryRepository) -> None:
    """One machine fills the cache; another makes nothing, fetches nothing, downloads no blob, and gets the same."""
    first = machine()
    made = first.build(steps_there, write=True)
    steps_there.registry.log.clear()
    second = machine()
    borrowed = second.build(steps_there)
    assert layers(made) == layers(borrowed)
    assert ([], []) == (second.fetched, second.heard.warnings)
    assert {CACHE} == {each.origin for each in borrowed.values()}
    assert {"HEAD-MANIFEST": 3, "GET-MANIFEST": 3} == dict(steps_there.registry.verbs())


def test_bytes_come_when_they_are_needed(machine: Machines, steps_there: MemoryRepository) -> None:
    """For an archive the layers are downloaded, each once, and still nothing is made or fetched."""
    made = machine().build(steps_there, write=True)
    steps_there.registry.log.clear()
    second = machine()
    assert layers(made) == layers(second.build(steps_there, archive=True))
    assert all(second.has(each) for each in layers(made).values())
    assert ([], []) == (second.fetched, second.heard.warnings)
    assert 3 == steps_there.registry.verbs()["GET-BLOB"]


def test_what_is_known_is_not_asked_again(machine: Machines, steps_there: MemoryRepository) -> None:
    """Neither what was made here nor what was learned from this cache."""
    first, second = machine(), machine()
    first.build(steps_there, write=True)
    second.build(steps_there)
    steps_there.registry.log.clear()
    first.build(steps_there)
    second.build(steps_there)
    assert [] == steps_there.registry.log


def test_a_changed_step_is_made_and_the_rest_borrowed(machine: Machines, steps_there: MemoryRepository) -> None:
    """A miss is no error."""
    machine().build(steps_there, write=True, steps=STEPS[:2])
    second = machine()
    found = second.build(steps_there)
    assert {FIRST.key: True, SECOND.key: True, THIRD.key: False} == {key: each.cached for key, each in found.items()}
    assert [THIRD.inputs[0].digest] == second.fetched


def test_writing_again_sends_nothing(machine: Machines, steps_there: MemoryRepository) -> None:
    """Three questions, no upload."""
    first = machine()
    first.build(steps_there, write=True)
    steps_there.registry.log.clear()
    first.build(steps_there, write=True)
    assert {"HEAD-MANIFEST": 3, "GET-MANIFEST": 3} == dict(steps_there.registry.verbs())


def test_a_warm_store_fills_an_empty_cache(machine: Machines, steps_there: MemoryRepository) -> None:
    """What was made before the cache was named goes there too."""
    first = machine()
    made = first.build(None)
    first.build(steps_there, write=True)
    assert {each.descriptor.digest for each in layers(made).values()} < set(steps_there.blobs)


def test_two_writers_at_once(machine: Machines, steps_there: MemoryRepository) -> None:
    """Equal steps make equal entries: whoever comes last changes nothing."""
    writers = [machine() for _ in range(2)]
    threads = [threading.Thread(target=each.build, args=(steps_there,), kwargs={"write": True}) for each in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = machine()
    assert layers(machine().build(None)) == layers(third.build(steps_there, archive=True))
    assert ([], []) == (third.fetched, [warning for each in (*writers, third) for warning in each.heard.warnings])


def test_only_a_cache_on_the_same_host_is_mounted_from(machine: Machines, steps_there: MemoryRepository) -> None:
    """Which blobs may be mounted, borrowed or put there, is known; elsewhere they have to be sent."""
    first = machine()
    shared = Shared(first.shop, Cache(steps_there, first.heard), write=True)
    made = shared.realise(STEPS)
    assert {} == shared.mountable("registry.example")
    assert 3 == shared.offer(made.values())
    expected = {each.layer.descriptor.digest: "team/steps" for each in made.values()}
    assert expected == shared.mountable("registry.example")
    assert {} == shared.mountable("other.example")


# -- signed ------------------------------------------------------------------------------------------------------------


def test_a_signed_cache(machine: Machines, steps_there: MemoryRepository) -> None:
    """What is signed with the key is believed."""
    machine().build(steps_there, write=True, signer=KEY)
    second = machine()
    second.build(steps_there, key=KEY.public)
    assert ([], []) == (second.fetched, second.heard.warnings)


@pytest.mark.parametrize(
    ("signer", "reason"), [(None, "it is not signed"), (OTHER, "it is not signed with the key that is asked for")]
)
def test_another_signature_is_ignored(
    machine: Machines, steps_there: MemoryRepository, signer: PrivateKey | None, reason: str
) -> None:
    """With one warning, and a local build."""
    machine().build(steps_there, write=True, signer=signer)
    second = machine()
    second.build(steps_there, key=KEY.public)
    assert set(INPUTS) == set(second.fetched)
    assert [f"3 entries of the cache {CACHE} ignored: {reason}"] == second.heard.warnings


def test_an_unsigned_claim_is_never_taken_for_a_signed_one(machine: Machines, steps_there: MemoryRepository) -> None:
    """What was learned without a key counts for nothing in a build that asks for one, nor may it be signed here."""
    machine().build(steps_there, write=True)
    second = machine()
    second.build(steps_there, archive=True)
    second.build(steps_there, signer=KEY, write=True)
    assert not any(b"signature" in each.data for each in steps_there.manifests.values())
    assert [] == second.fetched
    second.build(steps_there, key=KEY.public)
    assert set(INPUTS) == set(second.fetched)


def test_what_was_learned_from_one_cache_is_not_of_another(machine: Machines, registry: MemoryRegistry) -> None:
    """Nor is it believed in a build without a cache."""
    machine().build(registry.repository("team/steps"), write=True)
    for other in (None, registry.repository("another")):
        second = machine()
        second.build(registry.repository("team/steps"))
        second.build(other)
        assert set(INPUTS) == set(second.fetched)


def test_a_signer_replaces_what_is_not_signed(machine: Machines, steps_there: MemoryRepository) -> None:
    """A cache can be signed later; and who does not sign does not take signatures away."""
    first = machine()
    first.build(steps_there, write=True)
    first.build(steps_there, write=True, signer=KEY)
    first.build(steps_there, write=True)
    second = machine()
    second.build(steps_there, key=KEY.public)
    assert [] == second.fetched


# -- poisoned ----------------------------------------------------------------------------------------------------------

OTHER_BYTES = zlib.compress(b"other", wbits=31)
Poison = Callable[[MemoryRepository, dict[Digest, Layer]], Claim]


def other_bytes(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """Right annotations, another blob."""
    return claim_of(FIRST, right[FIRST.key], layer=layer_at(repository, OTHER_BYTES))


def other_step(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """The diff_id of the step, the blob of another step."""
    return claim_of(FIRST, right[FIRST.key], layer=right[SECOND.key].descriptor)


def no_layer(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """A blob that is no gzip stream."""
    return claim_of(FIRST, right[FIRST.key], layer=layer_at(repository, b"no gzip stream"))


def absent(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """A blob that is not there."""
    return claim_of(FIRST, right[FIRST.key], layer=Descriptor(MediaType.LAYER_GZIP, Digest.of(b"absent"), 6))


def other_type(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """Right in all but the media type."""
    layer = right[FIRST.key].descriptor
    return claim_of(FIRST, right[FIRST.key], layer=Descriptor(MediaType.LAYER, layer.digest, layer.size))


def all_of_another(repository: MemoryRepository, right: dict[Digest, Layer]) -> Claim:
    """Consistent, but it is what another step makes: without a key nobody can see it."""
    return claim_of(FIRST, right[SECOND.key])


BROKEN = [other_bytes, other_step, no_layer, absent, other_type]


@pytest.fixture
def filled(machine: Machines, steps_there: MemoryRepository) -> MemoryRepository:
    """A cache with right entries, signed."""
    machine().build(steps_there, write=True, signer=KEY)
    return steps_there


@pytest.mark.parametrize("poison", BROKEN)
def test_poison_is_found_when_it_is_downloaded(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], poison: Poison
) -> None:
    """Without a key: digest, diff_id and kind of the layer must be what is claimed, else the step is made here."""
    write(filled, poison(filled, right))
    second = machine()
    assert right == layers(second.build(filled, archive=True))
    assert 1 == len(second.heard.warnings)
    assert FIRST.inputs[0].digest in second.fetched
    assert not second.store.has(Digest.of(OTHER_BYTES))


@pytest.mark.parametrize("poison", BROKEN)
def test_poison_is_found_when_the_bytes_are_here_already(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], poison: Poison
) -> None:
    """That a blob is in the store proves nothing: before anyone builds on it, its diff_id is computed."""
    claim = poison(filled, right)
    write(filled, claim)
    second = machine()
    second.build(None, steps=[SECOND])
    for data in filled.blobs.values():
        second.store.put(data)
    assert right == layers(second.build(filled, archive=True))
    assert right == layers(second.build(filled, archive=True)), "nor is it believed the next time"


def test_a_registry_that_gives_other_bytes(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer]
) -> None:
    """The same tar, compressed otherwise, under the digest that was signed: it would be another image."""
    digest = right[FIRST.key].descriptor.digest
    filled.blobs[digest] = other = zlib.compress(zlib.decompress(filled.blobs[digest], wbits=31), 1, wbits=31)
    second = machine()
    assert right == layers(second.build(filled, archive=True, key=KEY.public))
    assert [f"{digest} of the cache {CACHE} ignored: its digest is {Digest.of(other)}"] == second.heard.warnings
    assert not second.store.has(Digest.of(other))


@pytest.mark.parametrize("signer", [None, OTHER])
@pytest.mark.parametrize("poison", [*BROKEN, all_of_another])
def test_poison_is_nothing_to_who_has_a_key(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], poison: Poison, signer: PrivateKey | None
) -> None:
    """With a key nothing of it is looked at, whether the bytes are needed or not."""
    write(filled, poison(filled, right), signer)
    second = machine()
    assert right == layers(second.build(filled, key=KEY.public))
    assert [FIRST.inputs[0].digest] == second.fetched
    assert 1 == len(second.heard.warnings)


def test_signed_entries_cannot_be_exchanged(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer]
) -> None:
    """A good entry under another step's tag is about another step."""
    moved = filled.manifests[tag(SECOND.key, COMPRESSOR)]
    filled.manifests[tag(FIRST.key, COMPRESSOR)] = moved
    second = machine()
    assert right == layers(second.build(filled, key=KEY.public))
    assert [f"an entry of the cache {CACHE} ignored: it is about another step"] == second.heard.warnings


def test_a_false_claim_is_replaced_by_whoever_made_the_step(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer]
) -> None:
    """Whoever writes and knows better says so."""
    write(filled, all_of_another(filled, right))
    knows = machine()
    knows.build(None)
    knows.build(filled, write=True)
    assert [f"the cache {CACHE} said otherwise of the step {FIRST.key}: replaced"] == knows.heard.warnings
    assert right == layers(machine().build(filled))


def test_what_is_learned_is_never_recorded_as_made(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer]
) -> None:
    """A consistent lie that was believed without a key is forgotten by a build without that cache."""
    write(filled, all_of_another(filled, right))
    second = machine()
    believed = second.build(filled, archive=True)
    assert right[SECOND.key].diff_id == believed[FIRST.key].layer.diff_id
    assert all(known(each, second.shop) is None for each in STEPS)
    assert right == layers(second.build(None))


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9999, b"\xff", b"x" * 100_000])
def test_what_is_no_entry_is_ignored(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], data: bytes
) -> None:
    """Anything may lie under the tag."""
    manifest = Manifest(MediaType.MANIFEST, Digest.of(data), data)
    filled.manifests[tag(FIRST.key, COMPRESSOR)] = filled.manifests[str(manifest.digest)] = manifest
    second = machine()
    assert right == layers(second.build(filled))
    assert [f"an entry of the cache {CACHE} ignored: it is not what this version writes"] == second.heard.warnings


# -- dead, slow, lying -------------------------------------------------------------------------------------------------


def failing(verb: str) -> Callable[[str], None]:
    def fail(request: str) -> None:
        if request.startswith(verb):
            raise RegistryError(f"{verb} failed")

    return fail


@pytest.mark.parametrize("verb", ["HEAD-MANIFEST", "GET-MANIFEST", "GET-BLOB"])
def test_a_cache_that_fails_is_left_alone(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], verb: str
) -> None:
    """One warning, and everything that is missing is made here."""
    filled.registry.fail = failing(verb)
    second = machine()
    assert right == layers(second.build(filled, archive=True))
    assert [f"the cache {CACHE} is left alone: {verb} failed"] == second.heard.warnings
    assert all(second.has(each) for each in right.values())


@pytest.mark.parametrize("verb", ["HEAD-MANIFEST", "HEAD-BLOB", "PUSH-BLOB", "PUT-MANIFEST"])
def test_a_cache_that_takes_nothing_fails_no_build(
    machine: Machines, steps_there: MemoryRepository, right: dict[Digest, Layer], verb: str
) -> None:
    """The build has ended by then: a warning."""
    steps_there.registry.fail = failing(verb)
    first = machine()
    assert right == layers(first.build(steps_there, write=True))
    assert [f"the cache {CACHE} is left alone: {verb} failed"] == first.heard.warnings


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that comes when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("verb", ["HEAD-MANIFEST", "GET-MANIFEST", "GET-BLOB"])
def test_a_silent_cache_is_left_alone(
    machine: Machines, filled: MemoryRepository, right: dict[Digest, Layer], verb: str, never: threading.Event
) -> None:
    """Nobody waits for it, and it is asked nothing more."""

    def silent(request: str) -> None:
        if request.startswith(verb):
            never.wait()

    filled.registry.fail = silent
    second = machine()
    assert right == layers(second.build(filled, archive=True))
    seconds = 1 if verb == "GET-BLOB" else 0.5
    expected = f"the cache {CACHE} is left alone: no answer within {seconds} seconds"
    assert [expected] == second.heard.warnings


def test_questions_have_an_end() -> None:
    """Each answer in time, but too many of them: what came so far counts."""
    answers = hurried(lambda item, alive: item, range(3), patience=60, budget=0)
    assert next(answers)[0] in range(3)
    with pytest.raises(RegistryError) as caught:
        next(answers)
    assert "it is too slow: 2 questions are not answered yet" == caught.value.message


class Dripping(io.BytesIO):
    """Gives byte after byte, and after the first no more until *event*."""

    def __init__(self, data: bytes, event: threading.Event) -> None:
        super().__init__(data)
        self._event = event

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            self._event.wait()
        return super().read(1)


def test_a_download_that_stops_is_given_up(
    machine: Machines,
    filled: MemoryRepository,
    right: dict[Digest, Layer],
    never: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came so far is not kept."""
    monkeypatch.setattr(filled, "open_blob", lambda descriptor: Dripping(filled.blobs[descriptor.digest], never))
    second = machine()
    assert right == layers(second.build(filled, archive=True))
    assert [f"the cache {CACHE} is left alone: no answer within 1 seconds"] == second.heard.warnings


def test_another_error_is_not_swallowed(machine: Machines, filled: MemoryRepository) -> None:
    """A bug is no failing cache."""

    def fail(request: str) -> None:
        raise ZeroDivisionError(request)

    filled.registry.fail = fail
    with pytest.raises(ZeroDivisionError):
        machine().build(filled)


def test_a_blob_that_lacks_in_the_store_is_not_offered(machine: Machines, steps_there: MemoryRepository) -> None:
    """A record without its blob, as after a clean-up: the others are put there."""
    first = machine()
    made = layers(first.build(None))
    first.store.discard(made[FIRST.key].descriptor.digest)
    first.build(steps_there, write=True)
    assert {made[each.key].descriptor.digest for each in (SECOND, THIRD)} < set(steps_there.blobs)
    assert made[FIRST.key].descriptor.digest not in steps_there.blobs
    assert [] == first.heard.warnings


def test_a_lost_blob_comes_from_the_cache(machine: Machines, steps_there: MemoryRepository) -> None:
    """What was made here and lost is downloaded, not made again."""
    first = machine()
    made = layers(first.build(steps_there, write=True))
    first.store.discard(made[FIRST.key].descriptor.digest)
    first.fetched.clear()
    assert made == layers(first.build(steps_there, archive=True))
    assert [] == first.fetched


def test_what_the_cache_holds_is_readable(machine: Machines, steps_there: MemoryRepository) -> None:
    """For people with a registry browser: JSON that names the step."""
    machine().build(steps_there, write=True, steps=[FIRST])
    document = json.loads(steps_there.manifests[tag(FIRST.key, COMPRESSOR)].data)
    assert str(FIRST.key) == document["annotations"]["org.pesto-repro.step"]


def test_failing_fetches_fail(machine: Machines, steps_there: MemoryRepository) -> None:
    """A cache hides no failure of the build itself."""
    broken = machine()
    broken.fetch = lambda digest: (_ for _ in ()).throw(FetchError("gone"))  # type: ignore[method-assign]
    with pytest.raises(FetchError, match="gone"):
        broken.build(steps_there)
