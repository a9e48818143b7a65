"""Attaching to an image: the manifests, the list at the fallback tag, several writers at once."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, RegistryError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.registry import shared_tag
from pesto_repro.registry.client import Registries
from pesto_repro.registry.ports import Manifest, Repository
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.registry.referrers import (
    Artifact,
    Payload,
    Referrer,
    attach,
    fallback_tag,
    fetch,
    manifest_of,
    referrers,
)
from pesto_repro.registry.shared_tag import Read, Wait, Write, additions
from tests.memory_registry import MemoryRegistry, MemoryRepository
from tests.registries import LiveRegistry
from tests.registry_client import OCI_INDEX, OCI_MANIFEST, Blob, index_of, pushed
from tests.registry_client import manifest_of as image_of

SBOM = "application/spdx+json"
SUBJECT = Descriptor.of(MediaType.MANIFEST, b"the image")


def artifact(text: str, artifact_type: str = SBOM) -> Artifact:
    return Artifact.of_file(artifact_type, artifact_type, f"{text}.json", text.encode())


def at_once(repository: Repository, tag: str, mine: shared_tag.Entries, form: shared_tag.Form) -> None:
    """Adds without waiting."""
    shared_tag.add(repository, tag, mine, form, sleep=lambda seconds: None)


def memory(*, lists: bool) -> MemoryRepository:
    return MemoryRegistry(lists=lists).repository("team/app")


def test_the_manifest_of_an_artifact() -> None:
    """image-spec, manifest.md: the empty config, the payload as a layer, the subject; the bytes are pinned."""
    made = manifest_of(artifact("sbom"), SUBJECT)
    payload = Descriptor.of(SBOM, b"sbom").document()
    expected = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": SBOM,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [payload | {"annotations": {"org.opencontainers.image.title": "sbom.json"}}],
        "subject": SUBJECT.document(),
    }
    assert expected == json.loads(made.data)
    assert "sha256:72670c8c4b570b05e5063ea479dd6265da488370ecdbaa1d4fb897f3d76b1b23" == str(made.digest)


@pytest.mark.parametrize("lists", [True, False])
def test_what_is_attached_is_listed_and_fetched(lists: bool) -> None:
    """With the referrers API and without: the same list, of all or of one type, and the same bytes."""
    repository = memory(lists=lists)
    first, second = artifact("one"), Artifact("text/plain", (Payload("text/plain", b"two"),), {"by": "ada"})
    made = attach(repository, SUBJECT, [first, second], at_once)
    assert sorted(made, key=lambda each: each.artifact_type) == list(referrers(repository, SUBJECT.digest))
    (found,) = referrers(repository, SUBJECT.digest, "text/plain")
    assert {"by": "ada"} == found.annotations
    assert second == fetch(repository, SUBJECT.digest, found)
    assert () == referrers(repository, Digest.of(b"another"))


@pytest.mark.parametrize("lists", [True, False])
def test_attaching_again_changes_nothing(lists: bool) -> None:
    """Equal bytes make an equal manifest: no blob is sent twice, no tag is written twice."""
    repository = memory(lists=lists)
    attach(repository, SUBJECT, [artifact("one")], at_once)
    before = dict(repository.manifests)
    repository.registry.log.clear()
    attach(repository, SUBJECT, [artifact("one")], at_once)
    assert before == repository.manifests
    assert 0 == repository.registry.verbs()["PUSH-BLOB"]
    assert f"PUT-MANIFEST {fallback_tag(SUBJECT.digest)}" not in repository.registry.log


def test_no_tag_is_made_where_the_registry_lists() -> None:
    """distribution-spec, "Referrers Tag Schema": only where the API is not supported."""
    repository = memory(lists=True)
    attach(repository, SUBJECT, [artifact("one")], at_once)
    assert [] == list(repository.tags())


def test_a_list_without_types_is_completed() -> None:
    """A registry that does not know "artifactType" says the empty config's type; the manifest says its own."""
    repository = memory(lists=False)
    (made,) = attach(repository, SUBJECT, [artifact("one")], at_once)
    entry = made.descriptor.document() | {"artifactType": "application/vnd.oci.empty.v1+json"}
    data = json.dumps({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": [entry]}).encode()
    repository.push_manifest(fallback_tag(SUBJECT.digest), Manifest(MediaType.INDEX, Digest.of(data), data))
    assert (made,) == referrers(repository, SUBJECT.digest, SBOM)


def test_entries_of_others_stay_as_they_are() -> None:
    """What another client wrote at the fallback tag is kept, with fields that we do not know; the order is ours."""
    repository = memory(lists=False)
    other = manifest_of(artifact("other"), SUBJECT)
    attach(repository, SUBJECT, [artifact("other")], at_once)
    tag = fallback_tag(SUBJECT.digest)
    index = json.loads(repository.manifests[tag].data)
    index["manifests"][0]["urls"] = ["https://example.org/x"]
    data = json.dumps(index).encode()
    repository.push_manifest(tag, Manifest(MediaType.INDEX, Digest.of(data), data))
    attach(repository, SUBJECT, [artifact("one")], at_once)
    entries = json.loads(repository.manifests[tag].data)["manifests"]
    assert ["https://example.org/x"] in [each.get("urls") for each in entries]
    assert sorted(each["digest"] for each in entries) == [each["digest"] for each in entries]
    assert 2 == len(entries)
    assert str(other.digest) in {each["digest"] for each in entries}


def test_a_referrer_of_another_image_is_refused() -> None:
    """A list says what it likes; the artifact itself says whose it is."""
    repository = memory(lists=False)
    (made,) = attach(repository, SUBJECT, [artifact("one")], at_once)
    other = Digest.of(b"another")
    with pytest.raises(FetchError) as caught:
        fetch(repository, other, made)
    assert (
        f"{made.descriptor.digest} is listed as a referrer of {other}, but is one of {SUBJECT.digest}"
        == caught.value.message
    )


def test_a_fallback_tag_on_something_else_is_not_written_over() -> None:
    """Whoever has an image at that tag keeps it."""
    repository = memory(lists=False)
    made = manifest_of(artifact("one"), SUBJECT)
    attach(memory(lists=False), SUBJECT, [artifact("one")], at_once)
    repository.manifests[fallback_tag(SUBJECT.digest)] = repository.manifests[str(made.digest)] = made
    with pytest.raises(FetchError) as caught:
        attach(repository, SUBJECT, [artifact("two")], at_once)
    assert f"{made.digest} is of the type {MediaType.MANIFEST}, which lists no referrers" == caught.value.message
    assert made == repository.manifests[fallback_tag(SUBJECT.digest)]


def test_whoever_loses_every_time_says_so() -> None:
    """The rounds are bounded: an endless fight over the tag ends with an error."""
    repository = memory(lists=False)

    def forget(seconds: float) -> None:
        del repository.manifests[fallback_tag(SUBJECT.digest)]

    with pytest.raises(RegistryError) as caught:
        attach(repository, SUBJECT, [artifact("one")], lambda *rest: shared_tag.add(*rest, sleep=forget))
    tag = fallback_tag(SUBJECT.digest)
    assert (
        f"registry.example/team/app: others write {tag} again and again, and lose what is added" == caught.value.message
    )


@dataclass
class World:
    """A tag and its writers, in a time of its own. Every request takes effect at some moment while it lasts."""

    chance: random.Random
    slowest: float
    tag: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0
    agenda: list[tuple[float, int, Any]] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)

    def later(self, delay: float, action: Any) -> None:
        heapq.heappush(self.agenda, (self.now + delay, len(self.agenda) + self.chance.randrange(1 << 40), action))

    def start(self, name: str) -> None:
        steps = additions({name: name}, self.chance.random)
        self.later(self.chance.random() * self.slowest, lambda: self.advance(steps, None))

    def advance(self, steps: shared_tag.Steps, answer: object) -> None:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            self.ends.append(end.value)
            return
        began = self.now
        if isinstance(step, Wait):
            self.later(step.seconds, lambda: self.advance(steps, None))
            return
        there, back = (self.chance.random() * self.slowest / 4 for _ in range(2))

        def effect() -> None:
            found = dict(self.tag)
            if isinstance(step, Write):
                self.tag = dict(step.entries)
            else:
                assert isinstance(step, Read)
            self.later(back, lambda: self.advance(steps, self.now if isinstance(step, Write) else (found, began)))

        self.later(there, effect)

    def run(self) -> None:
        while self.agenda:
            self.now, _, action = heapq.heappop(self.agenda)
            action()


@given(st.integers(0, 1 << 32), st.integers(1, 12), st.floats(0.001, 0.49))
def test_however_writers_interleave_all_are_listed(seed: int, writers: int, slowest: float) -> None:
    """As long as reading and writing takes less than the shortest wait, nobody's entry is lost."""
    world = World(random.Random(seed), slowest)
    for number in range(writers):
        world.start(f"writer-{number}")
    world.run()
    assert {f"writer-{number}" for number in range(writers)} == world.tag.keys()
    assert [True] * writers == world.ends


def test_without_staying_entries_are_lost() -> None:
    """The world above does show lost updates: read, add and write alone loses some."""
    world = World(random.Random(1), 0.4)

    def careless(name: str) -> shared_tag.Steps:
        found, _ = yield Read()
        yield Write({**found, name: name})
        return True

    for number in range(8):
        steps = careless(f"writer-{number}")
        world.later(0.01 * number, lambda steps=steps: world.advance(steps, None))
    world.run()
    assert len(world.tag) < 8


@pytest.fixture
def image(plain_registry: LiveRegistry) -> Iterator[tuple[Registries, RemoteReference, Descriptor]]:
    """An image in docker-registry, which has no referrers API."""
    reference = RemoteReference(plain_registry.host, "team/app", "1.0")
    registries = Registries(plain_registry.access(), Reporter())
    client = registries.repository(reference)
    made = image_of(OCI_MANIFEST, pushed(client, Blob()), pushed(client, Blob()))
    client.push_manifest("1.0", made)
    yield registries, reference, Descriptor(made.media_type, made.digest, len(made.data))
    registries.close()


@pytest.mark.judge
def test_eight_at_once_on_a_real_registry(
    image: tuple[Registries, RemoteReference, Descriptor], plain_registry: LiveRegistry
) -> None:
    """Eight clients attach at the same time to one image; all eight are listed, and can be fetched."""
    registries, reference, subject = image

    def one(number: int) -> Referrer:
        own = Registries(plain_registry.access(), Reporter())
        try:
            (made,) = attach(own.repository(reference), subject, [artifact(f"number {number}")])
            return made
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(8)))
    repository = registries.repository(reference)
    found = referrers(repository, subject.digest)
    assert {each.descriptor.digest for each in made} == {each.descriptor.digest for each in found}
    texts = {fetch(repository, subject.digest, each).payloads[0].data for each in found}
    assert {f"number {number}".encode() for number in range(8)} == texts


@pytest.mark.judge
def test_referrers_of_an_index_on_a_real_registry(plain_registry: LiveRegistry) -> None:
    """A subject may be an index; a registry that does not know the API is asked, and the tag is read."""
    registries = Registries(plain_registry.access(), Reporter())
    client = registries.repository(RemoteReference(plain_registry.host, "team/app"))
    child = image_of(OCI_MANIFEST, pushed(client, Blob()))
    client.push_manifest(str(child.digest), child)
    index = index_of(OCI_INDEX, child)
    client.push_manifest("1.0", index)
    subject = Descriptor(index.media_type, index.digest, len(index.data))
    assert None is client.referrers(subject.digest)
    (made,) = attach(client, subject, [artifact("one")])
    assert (made,) == referrers(client, subject.digest)
    assert artifact("one") == fetch(client, subject.digest, made)
    registries.close()
