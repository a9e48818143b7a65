"""Pushing to a registry in memory: what is sent, in which order, and what is left after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pesto_repro.build.entry import data
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.oci import Descriptor, Image
from pesto_repro.progress import Activity, Reporter
from pesto_repro.registry.content import LostLayers, RemoteContent, StoreContent, blobs_of, documents
from pesto_repro.registry.transfer import Report, push
from pesto_repro.store import Store
from tests.images import as_base, make_image, make_layer, make_layers, noise
from tests.memory_registry import MemoryRegistry, Refused


class Heard(Reporter):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moved: dict[str, list[int]] = {}

    def info(self, message: str) -> None:
        self.said.append(message)

    def activity(self, verb: str, name: str, total: int | None = None) -> Activity:
        moved = self.moved.setdefault(f"{verb} {name} {total}", [])

        class _Heard(Activity):
            def advance(self, amount: int) -> None:
                moved.append(amount)

        return _Heard()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def send(image: Image, store: Store, registry: MemoryRegistry, name: str = "team/hello", **how: object) -> Report:
    """Push *image* to *name* with the tag 1.0, or what *how* says."""
    content = StoreContent.of(image, store, how.pop("base", None))  # type: ignore[arg-type]
    tags = how.pop("tags", ["1.0"])
    found = documents(content, image.descriptor)
    return push(content, found, registry.repository(name), tags, **how)  # type: ignore[arg-type]


def digests(image: Image) -> tuple[Digest, ...]:
    """The blobs of *image*: configs and layers, manifest by manifest."""
    found: dict[Digest, None] = {}
    for each in image.platforms:
        found |= dict.fromkeys([each.config_descriptor.digest, *(layer.descriptor.digest for layer in each.layers)])
    return tuple(found)


def failing(words: str, count: int = 1) -> Callable[[str], None]:
    """Fails the first *count* requests that begin with *words*."""
    left = [count]

    def fail(request: str) -> None:
        if request.startswith(words) and left[0]:
            left[0] -= 1
            raise Refused(f"{request} failed")

    return fail


def test_a_first_push_sends_everything(store: Store, registry: MemoryRegistry) -> None:
    """Blobs, then the manifest as its tag; the bytes are counted."""
    image = make_image(make_layers(store))
    report = send(image, store, registry)
    there = registry.repository("team/hello")
    sizes = sum(map(len, there.blobs.values())) + len(image.platforms[0].manifest)
    assert Report(image.digest, uploaded=digests(image), bytes=sizes) == report
    assert image.platforms[0].manifest == there.manifests["1.0"].data
    assert set(digests(image)) == set(there.blobs)
    assert {"HEAD-MANIFEST": 2, "HEAD-BLOB": 4, "PUSH-BLOB": 4, "PUT-MANIFEST": 1} == registry.verbs()


def test_pushing_again_asks_once_per_tag(store: Store, registry: MemoryRegistry) -> None:
    """Nothing is sent, and everything is reported as there."""
    image = make_image(make_layers(store))
    send(image, store, registry, tags=["1.0", "1"])
    registry.log.clear()
    report = send(image, store, registry, tags=["1.0", "1"])
    assert Report(image.digest, existing=digests(image)) == report
    assert ["HEAD-MANIFEST 1.0", "HEAD-MANIFEST 1"] == registry.log


def test_a_tag_that_moves_on_vouches_for_what_both_have(store: Store, registry: MemoryRegistry) -> None:
    """Only what the image before does not have is asked for, whatever the number of layers."""
    layers = make_layers(store)
    before = make_image(layers, "linux/amd64", "linux/arm64")
    send(before, store, registry)
    registry.log.clear()
    changed = make_layer(store, "algorithm", data("opt/algorithm/process.py", b"print(1)\n"))
    after = make_image((layers[0], changed, layers[2]), "linux/amd64", "linux/arm64")
    report = send(after, store, registry)
    new = set(digests(after)) - set(digests(before))
    assert (3, new) == (len(new), set(report.uploaded))
    assert set(digests(after)) - new == set(report.existing)
    verbs = {"HEAD-MANIFEST": 4, "GET-MANIFEST": 3, "HEAD-BLOB": 1, "PUSH-BLOB": 3, "PUT-MANIFEST": 3}
    assert verbs == registry.verbs()


def test_a_blob_that_is_gone_from_the_image_before_is_sent(store: Store, registry: MemoryRegistry) -> None:
    """Somebody deleted it: the registry refuses the manifest, and then each blob is asked for."""
    layers = make_layers(store)
    send(make_image(layers), store, registry)
    there = registry.repository("team/hello")
    del there.blobs[layers[0].descriptor.digest]
    image = make_image((*layers, make_layer(store, "new", data("new", b""))))
    report = send(image, store, registry)
    assert layers[0].descriptor.digest in report.uploaded
    assert image.digest == there.manifests["1.0"].digest
    assert set(digests(image)) <= set(there.blobs)


def test_an_image_before_that_cannot_be_read_vouches_for_nothing(store: Store, registry: MemoryRegistry) -> None:
    """Each blob is asked for."""
    layers = make_layers(store)
    send(make_image(layers), store, registry)
    registry.log.clear()
    registry.fail = failing("GET-MANIFEST")
    report = send(make_image((*layers, make_layer(store, "new", data("new", b"")))), store, registry)
    assert (2, 5) == (len(report.uploaded), registry.verbs()["HEAD-BLOB"])


def test_another_tag_costs_its_manifest(store: Store, registry: MemoryRegistry) -> None:
    """The image is there, so only the tag is put."""
    image = make_image(make_layers(store))
    send(image, store, registry)
    registry.log.clear()
    report = send(image, store, registry, tags=["2.0"])
    assert Report(image.digest, existing=digests(image), bytes=len(image.platforms[0].manifest)) == report
    assert ["HEAD-MANIFEST 2.0", f"HEAD-MANIFEST {image.digest}", "PUT-MANIFEST 2.0"] == registry.log


def test_without_a_tag_the_digest_names_it(store: Store, registry: MemoryRegistry) -> None:
    """The manifest is put by its digest, and no second time."""
    image = make_image(make_layers(store))
    send(image, store, registry, tags=[])
    assert {str(image.digest)} == set(registry.repository("team/hello").manifests)
    registry.log.clear()
    assert 0 == send(image, store, registry, tags=[]).bytes
    assert [f"HEAD-MANIFEST {image.digest}"] == registry.log


def test_one_changed_layer_is_sent_alone(store: Store, registry: MemoryRegistry) -> None:
    """Of blobs, the layer and the config; of documents, the manifest."""
    before = make_layers(store)
    send(make_image(before), store, registry)
    changed = make_layer(store, "algorithm", data("opt/algorithm/process.py", noise(50_000, 7)))
    image, registry.sent = make_image((before[0], changed, before[2])), 0
    report = send(image, store, registry)
    config = image.platforms[0].config_descriptor
    assert (config.digest, changed.descriptor.digest) == report.uploaded
    assert config.size + changed.descriptor.size == registry.sent
    assert registry.sent + len(image.platforms[0].manifest) == report.bytes < 1.1 * changed.descriptor.size


def test_an_index_comes_after_its_manifests(store: Store, registry: MemoryRegistry) -> None:
    """Blobs that platforms share are sent once; manifests by digest, and the index as the tag, last."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    report = send(image, store, registry)
    manifests = [str(each.descriptor.digest) for each in image.platforms]
    puts = [each for each in registry.log if each.startswith("PUT-MANIFEST")]
    assert [f"PUT-MANIFEST {each}" for each in (*manifests, "1.0")] == puts
    assert puts == registry.log[-3:]
    assert digests(image) == report.uploaded
    assert image.index == registry.repository("team/hello").manifests["1.0"].data


def test_a_platform_that_is_there_is_not_asked_about(store: Store, registry: MemoryRegistry) -> None:
    """Where a manifest is, its blobs are."""
    layers = make_layers(store)
    send(make_image(layers), store, registry, tags=["one"])
    registry.log.clear()
    image = make_image(layers, "linux/amd64", "linux/arm64")
    report = send(image, store, registry)
    arm = image.platforms[1].config_descriptor.digest
    assert (arm,) == report.uploaded
    assert f"HEAD-BLOB {image.platforms[0].config_descriptor.digest}" not in registry.log


def test_the_largest_go_first(store: Store, registry: MemoryRegistry) -> None:
    """One worker shows the order."""
    image = make_image(make_layers(store))
    send(image, store, registry, workers=1)
    sizes = {
        str(each.digest): each.size for each in blobs_of(documents(StoreContent.of(image, store), image.descriptor))
    }
    pushed = [sizes[each.removeprefix("PUSH-BLOB ")] for each in registry.log if each.startswith("PUSH-BLOB")]
    assert sorted(pushed, reverse=True) == pushed
    assert 4 == len(pushed)


def test_blobs_go_side_by_side(store: Store, registry: MemoryRegistry) -> None:
    """Each push waits for the others: one after the other they would never meet."""
    image, meeting = make_image(make_layers(store)), threading.Barrier(4)

    def meet(request: str) -> None:
        if request.startswith("PUSH-BLOB"):
            meeting.wait(30)

    registry.fail = meet
    assert 4 == len(send(image, store, registry, workers=4).uploaded)


def test_base_layers_are_mounted(store: Store, registry: MemoryRegistry) -> None:
    """From the base's repository, and never read: the store does not have them."""
    first, *others = make_layers(store)
    registry.repository("base/python").blobs[first.descriptor.digest] = store.path(first.descriptor.digest).read_bytes()
    store.discard(first.descriptor.digest)
    image = make_image((as_base(first), *others))
    report = send(image, store, registry, mount_from={first.descriptor.digest: "base/python"})
    assert (first.descriptor.digest,) == report.mounted
    assert set(digests(image)) - {first.descriptor.digest} == set(report.uploaded)
    assert () == report.refused


@pytest.mark.parametrize("why", ["asked for the bytes", "answered with an error"])
def test_a_refused_mount_is_seen_and_the_layer_sent(store: Store, registry: MemoryRegistry, why: str) -> None:
    """Registry to registry, from the base's repository; a line says so."""
    first, *others = make_layers(store)
    digest, heard = first.descriptor.digest, Heard()
    base = registry.repository("base/python")
    base.blobs[digest] = store.path(digest).read_bytes()
    store.discard(digest)
    registry.mounts = False
    if why == "answered with an error":
        registry.fail = failing("MOUNT")
    image = make_image((as_base(first), *others))
    sources = {digest: "base/python"}
    report = send(image, store, registry, base=RemoteContent(base), mount_from=sources, reporter=heard)
    reason = f" (MOUNT {digest} failed)" if why == "answered with an error" else ""
    line = f"registry.example/team/hello: {digest} could not be mounted from base/python, so it is sent{reason}"
    assert [line] == heard.said
    assert ((), (digest,), digests(image)) == (report.mounted, report.refused, report.uploaded)
    assert f"GET-BLOB {digest}" in registry.log


@pytest.mark.parametrize("request_", ["HEAD-MANIFEST", "HEAD-BLOB", "PUSH-BLOB", "PUT-MANIFEST"])
def test_a_failed_push_is_repeated_by_running_it_again(store: Store, registry: MemoryRegistry, request_: str) -> None:
    """No tag is left; the second push sends what the first did not, and together they send everything once."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    registry.fail = failing(request_)
    with pytest.raises(Refused, match=r"failed$"):
        send(image, store, registry, workers=1)
    there = registry.repository("team/hello")
    assert [] == [each for each in there.manifests if not each.startswith("sha256:")]
    report = send(image, store, registry)
    assert set(digests(image)) == {*report.uploaded, *report.existing}
    assert sum(map(len, there.blobs.values())) == registry.sent
    assert image.index == there.manifests["1.0"].data


def test_a_failure_stops_the_others(store: Store, registry: MemoryRegistry) -> None:
    """What is under way ends at its next read: nobody waits for large layers of a push that failed."""
    layers = tuple(
        make_layer(store, name, data(name, noise(4_000_000, seed)), compression="none")
        for seed, name in enumerate(("a", "b"))
    )
    image, underway = make_image(layers), threading.Event()
    largest = max(layers, key=lambda layer: (layer.descriptor.size, layer.descriptor.digest.hex)).descriptor.digest
    other = next(each.descriptor.digest for each in layers if each.descriptor.digest != largest)

    class Slow(Reporter):
        def activity(self, verb: str, name: str, total: int | None = None) -> Activity:
            return _Slow() if name == largest.hex[:12] else Activity()

    class _Slow(Activity):
        def advance(self, amount: int) -> None:
            underway.set()
            threading.Event().wait(0.01)

    def fail(request: str) -> None:
        if request == f"PUSH-BLOB {other}":
            underway.wait(30)
            raise Refused("the disk is full")

    registry.fail = fail
    with pytest.raises(Refused, match=r"^the disk is full$"):
        send(image, store, registry, reporter=Slow(), workers=2)
    assert largest not in registry.repository("team/hello").blobs


def test_layers_that_the_store_lost_are_named(store: Store, registry: MemoryRegistry) -> None:
    """All of them, so that they can be made again; the rest is sent, nothing is tagged."""
    layers = make_layers(store)
    lost = {each.descriptor.digest for each in layers[:2]}
    for each in lost:
        store.discard(each)
    image = make_image(layers)
    with pytest.raises(LostLayers) as caught:
        send(image, store, registry)
    assert lost == caught.value.digests
    names = ", ".join(map(str, sorted(lost)))
    assert f"the store has no intact {names}: No such file or directory" == caught.value.message
    there = registry.repository("team/hello")
    assert ({}, set(digests(image)) - lost) == (there.manifests, set(there.blobs))


@pytest.mark.parametrize("harm", ["altered", "truncated"])
def test_a_broken_layer_is_never_sent_whole(store: Store, registry: MemoryRegistry, harm: str) -> None:
    """It is noticed before its last byte, and removed from the store."""
    layers = make_layers(store)
    broken = layers[0].descriptor
    path = store.path(broken.digest)
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"x" + content[1:] if harm == "altered" else content[:-1])
    with pytest.raises(LostLayers) as caught:
        send(make_image(layers), store, registry)
    assert {broken.digest} == caught.value.digests
    assert broken.digest not in registry.repository("team/hello").blobs
    assert not path.exists()


def test_progress_counts_each_byte_once(store: Store, registry: MemoryRegistry) -> None:
    """A second try of a blob begins anew."""
    layer = make_layer(store, "one", data("one", noise(100_000)), compression="none")
    image, heard = make_image((layer,)), Heard()
    there = registry.repository("team/hello")

    class Twice:
        host, name = there.host, there.name

        def __getattr__(self, name: str) -> object:
            return getattr(there, name)

        def push_blob(self, descriptor: Descriptor, opener: object) -> None:
            with opener() as stream:  # type: ignore[operator]
                stream.read(1000)
            there.push_blob(descriptor, opener)  # type: ignore[arg-type]

    content = StoreContent.of(image, store)
    push(content, documents(content, image.descriptor), Twice(), ["1.0"], reporter=heard)  # type: ignore[arg-type]
    moved = heard.moved[f"push {layer.descriptor.digest.hex[:12]} {layer.descriptor.size}"]
    assert layer.descriptor.size == sum(moved)
    assert -1000 in moved


def test_copying_between_repositories_mounts(store: Store, registry: MemoryRegistry) -> None:
    """Nothing is downloaded but documents."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    send(image, store, registry)
    source = registry.repository("team/hello")
    content = RemoteContent(source)
    registry.log.clear()
    found = documents(content, content.root("1.0"))
    mounts = {each.digest: source.name for each in blobs_of(found)}
    report = push(content, found, registry.repository("other/hello"), ["1.0"], mount_from=mounts)
    assert (image.digest, digests(image), ()) == (report.digest, report.mounted, report.uploaded)
    assert 0 == registry.verbs()["GET-BLOB"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "is not what the image-spec says: TypeError: list indices must be integers or slices, not str"),
        (b"{", "is not what the image-spec says: JSONDecodeError: "),
        (b'{"config": {}}', "is not what the image-spec says: KeyError: 'layers'"),
    ],
)
def test_documents_that_are_none_are_refused(registry: MemoryRegistry, store: Store, text: bytes, message: str) -> None:
    """Whatever a registry hands out, the answer is one error."""
    descriptor = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(text), len(text))
    with pytest.raises(FetchError) as caught:
        documents(StoreContent({descriptor.digest: text}, store), descriptor)
    assert caught.value.message.startswith(f"{descriptor.digest} {message}")


def test_what_is_no_image_is_refused(store: Store) -> None:
    """A config is no manifest."""
    descriptor = Descriptor("text/plain", Digest.of(b"{}"), 2)
    with pytest.raises(FetchError) as caught:
        documents(StoreContent({descriptor.digest: b"{}"}, store), descriptor)
    assert f"{descriptor.digest} is of the type text/plain, which is no image" == caught.value.message
