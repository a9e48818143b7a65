"""``[image] embed-lock``: an image that says itself how to make it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesto_repro.audit.compare import Held
from pesto_repro.audit.verify import Travelling, travelling_lock
from pesto_repro.digest import Digest
from pesto_repro.errors import LockError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.plan import Pinned, Step
from pesto_repro.plan.make import LOCK_TYPE
from pesto_repro.registry.content import LayoutContent, RemoteContent, documents
from pesto_repro.registry.referrers import Artifact, attach
from pesto_repro.registry.transfer import push
from tests import altered
from tests.inside import inside
from tests.memory_registry import MemoryRegistry
from tests.small_project import SETTINGS, Small, make_small

PLACE = "etc/pesto/lock.toml"


@pytest.fixture
def small(runtime_wheel: Path, tmp_path: Path) -> Small:
    """The small project, locked and built with its lock inside."""
    small = make_small(tmp_path, runtime_wheel)
    small.settings.write_text(SETTINGS + "[image]\nembed-lock = true\n")
    inside("lock", small.root, "--store", small.store, env=small.env)
    return small


def held(layout: Path) -> Held:
    content = LayoutContent.at(layout)
    return Held(content, documents(content, content.root()))


def test_the_lock_is_in_the_image(small: Small, tmp_path: Path) -> None:
    """Its canonical text, in a layer of its own that is the last; and the image verifies, with and without project."""
    layout = tmp_path / "image"
    built = inside("build", small.root, "-o", f"oci:{layout}", "--json", "--store", small.store, env=small.env).json
    last = built["platforms"][0]["layers"][-1]
    assert ("lock", f"/{PLACE}") == (last["kind"], last["name"])
    ((info, text),) = [each for each in altered.members(layout, PLACE) if each[0].isreg()]
    assert (PLACE, 0o644, small.lockfile.read_bytes()) == (info.name, info.mode, text)
    found = travelling_lock(held(layout))
    assert found is not None
    assert ("in the image", built["lock"]) == (found.where, found.lock.content_hash)
    assert f"valid {built['digest']}\nlock {built['lock']}: in the image\n" == inside("verify", layout).stdout
    assert (
        f"identical {built['digest']}\n"
        == inside("verify", layout, small.root, "--store", small.store, env=small.env).stdout
    )


def test_another_lock_in_the_image_is_refused(small: Small, tmp_path: Path) -> None:
    """One that was edited, and a sound one that is not the one the label names."""
    layout = tmp_path / "image"
    inside("build", small.root, "-o", f"oci:{layout}", "--store", small.store, env=small.env)
    lock = lock_text.loads(small.lockfile.read_text(), "lock")
    other = lock_text.seal(lock.model_copy(update={"input": lock.input.model_copy(update={"user": "0:0"})}))
    altered.alter(layout, PLACE, altered.content(PLACE, lock_text.dumps(other).encode()))
    with pytest.raises(LockError) as raised:
        travelling_lock(held(layout))
    expected = f"the lock that is in the image is {other.content_hash}; the image's label names {lock.content_hash}"
    assert expected == raised.value.message
    edited = small.lockfile.read_text().replace('"65532:65532"', '"0:0"')
    altered.alter(layout, PLACE, altered.content(PLACE, edited.encode()))
    assert f"error: /{PLACE} of the image was edited by hand" in inside("verify", layout, code=1).stderr


def test_an_attached_lock_counts_if_it_is_the_right_one(small: Small, tmp_path: Path) -> None:
    """In a registry the lock may be a referrer of the image; of several the one that the label names counts."""
    small.settings.write_text(SETTINGS)
    inside("lock", small.root, "--store", small.store, env=small.env)
    inside("build", small.root, "-o", f"oci:{tmp_path / 'image'}", "--store", small.store, env=small.env)
    local, repository = held(tmp_path / "image"), MemoryRegistry().repository("team/small")
    push(local.content, local.documents, repository, ["1"])
    image = Held(RemoteContent(repository), local.documents)
    assert (None, None) == (travelling_lock(local), travelling_lock(image))
    lock = lock_text.loads(small.lockfile.read_text(), "lock")
    other = lock_text.seal(lock.model_copy(update={"input": lock.input.model_copy(update={"user": "0:0"})}))
    attach(repository, image.root, [artifact(other)])
    with pytest.raises(LockError, match=f"the lock that is attached is {other.content_hash}; the image's label names"):
        travelling_lock(image)
    attach(repository, image.root, [artifact(lock)])
    assert Travelling(lock, "attached") == travelling_lock(image)


def artifact(lock: Lock) -> Artifact:
    return Artifact.of_file(LOCK_TYPE, LOCK_TYPE, "lock.toml", lock_text.dumps(lock).encode())


def test_the_lock_does_not_depend_on_the_image(small: Small) -> None:
    """Locking again, after a build, gives the same bytes."""
    before = small.lockfile.read_bytes()
    inside("build", small.root, "-o", small.output, "--store", small.store, env=small.env)
    inside("lock", small.root, "--store", small.store, env=small.env)
    assert before == small.lockfile.read_bytes()


def test_golden_key() -> None:
    """Another key means that every store forgets its layers of this kind."""
    step = Step(
        "lock", "name", "section", {"to": "opt/a", "list": [1, "é", None, True]}, (Pinned("a", Digest.of(b"a")),)
    )
    assert "96b3f84320934ec0d324e9cb111461124434175f26c7dad123fec9e7fa98cf4e" == step.key.hex
