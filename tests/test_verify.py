"""``verify``: what was built is found identical, what was altered is named, and nothing is taken on trust."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.audit.compare import Summary, changes
from pesto_repro.digest import Digest
from tests import altered
from tests.altered import Members
from tests.e2e import update_json
from tests.inside import inside
from tests.registries import LiveRegistry
from tests.small_project import Small, make_small
from tests.test_base_lock import Based

ALPHA = "opt/venv/lib/python3.13/site-packages/alpha.py"


@pytest.fixture(scope="module")
def built(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("verify"), runtime_wheel)
    small.build()
    return small


@pytest.fixture
def layout(built: Small, tmp_path: Path) -> Path:
    """Its image as a layout, to be altered."""
    inside("copy", built.output, f"oci:{tmp_path / 'image'}")
    return tmp_path / "image"


def verify(
    image: str | Path, small: Small, *arguments: str | Path, code: int = 0, store: Path | None = None
) -> dict[str, Any]:
    """``verify IMAGE PROJECT --json``: what it printed."""
    words = [image, small.root, *arguments, "--json", "--store", store or small.store]
    return inside("verify", *words, env=small.env, code=code).json


def differences(found: dict[str, Any]) -> list[tuple[str | None, str | None, str, str, str | None]]:
    """The differences without their place."""
    return [
        tuple(each[key] for key in ("package", "path", "what", "image", "rebuilt")) for each in found["differences"]
    ]


# -- made again --------------------------------------------------------------------------------------------------


def test_what_was_built_is_identical(built: Small, layout: Path, tmp_path: Path) -> None:
    """As an archive and as a layout, also where nothing was ever built or downloaded; and nothing stays behind."""
    for image in (built.output, layout):
        found = verify(image, built, store=tmp_path / "store")
        assert (True, [], found["digest"]) == (found["identical"], found["differences"], found["rebuilt"])
    assert {"image", "store"} == {path.name for path in tmp_path.iterdir()}
    assert [] == list((tmp_path / "store/tmp").iterdir())
    done = inside("verify", built.output, built.root, "--store", built.store, env=built.env)
    assert f"identical {found['digest']}\n" == done.stdout


def test_no_layer_is_lent(built: Small, tmp_path: Path) -> None:
    """A store whose layers were all replaced by other sound ones, records included, has no say; wheels are lent."""
    store = tmp_path / "store"
    shutil.copytree(built.store, store)
    for record in (store / "records/step").iterdir():
        record.write_bytes(b"{}\n")
    layers = [json.loads(path.read_bytes().partition(b"\n")[0])["digest"] for path in store.glob("records/layer/*")]
    for digest in layers:
        (store / "blobs/sha256" / digest.removeprefix("sha256:")).unlink()
    found = verify(built.output, built, "--offline", store=store)
    assert found["identical"]
    assert {f"sha256:{Digest.of(path.read_bytes()).hex}" for path in built.wheels.iterdir()} == set(found["lent"])
    assert [] == found["fetched"]


def test_one_altered_byte_is_named(built: Small, layout: Path) -> None:
    """Package, file and both digests."""
    altered.alter(layout, ALPHA, altered.content(ALPHA, b"A = 2\n"))
    found = verify(layout, built, code=1)
    before, after = Digest.of(b"A = 1\n"), Digest.of(b"A = 2\n")
    assert ("alpha 1.0", ALPHA, "content", str(after), str(before)) in differences(found)
    assert [ALPHA] == [each["path"] for each in found["differences"] if each["path"]]
    done = inside("verify", layout, built.root, "--store", built.store, env=built.env, code=1)
    assert f"  alpha 1.0: {ALPHA}: content: {after} in the image, {before} rebuilt\n" in done.stdout
    assert done.stdout.startswith(f"different {found['digest']}, rebuilt {found['rebuilt']}\n")


def drop(path: str) -> Callable[[Members], Members]:
    return lambda members: [each for each in members if each[0].name != path]


def swap(members: Members) -> Members:
    """The last two entries in the other order."""
    return [*members[:-2], members[-1], members[-2]]


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (ALPHA, altered.field(ALPHA, mode=0o755), ("alpha 1.0", ALPHA, "mode", "0755", "0644")),
        (ALPHA, altered.field(ALPHA, uid=7), ("alpha 1.0", ALPHA, "owner", "7:0", "0:0")),
        (ALPHA, altered.field(ALPHA, uname="ada"), ("alpha 1.0", ALPHA, "owner", "0:0 (ada:)", "0:0")),
        (ALPHA, altered.field(ALPHA, mtime=7), ("alpha 1.0", ALPHA, "mtime", "7", "315532800")),
        (
            ALPHA,
            drop(ALPHA),
            ("alpha 1.0", ALPHA, "entry", "nothing", f"file {Digest.of(b'A = 1' + bytes([10]))}"),
        ),
        (
            "opt/venv/bin/python3",
            altered.field("opt/venv/bin/python3", linkname="perl"),
            (None, "opt/venv/bin/python3", "link target", "perl", "python"),
        ),
        (
            "opt/tables/two.txt",
            swap,
            (None, "opt/tables/one.txt", "order", "after opt/tables/two.txt", "sorted by path"),
        ),
        (
            "opt/tables/two.txt",
            lambda members: [*members, members[-1]],
            (None, "opt/tables/two.txt", "entry", f"file {Digest.of(b'two' + bytes([10]))}", "nothing"),
        ),
    ],
    ids="mode owner owner-name mtime missing link order twice".split(),
)
def test_whatever_differs_is_named(
    built: Small, layout: Path, path: str, change: Callable[[Members], Members], expected: tuple[str, ...]
) -> None:
    """One thing about one file, and nothing else of any file."""
    altered.alter(layout, path, change)
    found = differences(verify(layout, built, code=1))
    assert [expected] == [each for each in found if each[1]]


def test_a_changed_config_is_named_by_key(built: Small, layout: Path) -> None:
    """The variable, with both values, and the digests that follow."""

    def change(config: dict[str, Any]) -> None:
        config["config"]["Env"].append("EVIL=1")
        config["config"]["User"] = "0:0"

    altered.alter_config(layout, change)
    found = verify(layout, built, code=1)
    places = [(each["where"].partition(": ")[2], each["what"], each["image"]) for each in found["differences"]]
    assert [("config", "Env.EVIL", '"1"'), ("config", "User", '"0:0"')] == places[:2]
    assert [("config", "digest"), ("manifest", "digest")] == [each[:2] for each in places[2:]]


def test_the_same_tar_compressed_otherwise_is_told(built: Small, layout: Path) -> None:
    """Diff_ids first: no file differs, the compressed digest does."""
    altered.recompress(layout, ALPHA)
    found = verify(layout, built, code=1)
    first = found["differences"][0]
    assert ("digest", None) == (first["what"], first["path"])
    assert first["where"].startswith("linux/amd64: layer ")
    assert "diff_id" not in [each["what"] for each in found["differences"]]


def test_an_archive_that_does_not_hold_what_it_names(built: Small, tmp_path: Path) -> None:
    """Equal documents prove nothing: every byte is read."""
    data = bytearray(built.output.read_bytes())
    blob = max(
        (built.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size * (path.read_bytes() in data)
    )
    position = data.find(blob.read_bytes())
    data[position + 1000] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    found = verify(tmp_path / "a.tar", built, code=1)
    assert ["cannot be read"] == [each["what"] for each in found["differences"]]


def lead_elsewhere(members: Members) -> Members:
    """What an attacker would do: the layers of index.json stay, `docker load` takes another one."""
    named = json.loads(next(data for info, data in members if info.name == "manifest.json"))
    named[0]["Layers"][-1] = "blobs/sha256/" + Digest.of(b"evil").hex
    return replaced(members, "manifest.json", json.dumps(named).encode())


def twice(members: Members) -> Members:
    """Who unpacks it has the last one, who streams it the first."""
    return [*members, *(each for each in members if each[0].name == "index.json")]


def link(members: Members) -> Members:
    """Where the link leads is the business of whoever unpacks it."""
    found = tarfile.TarInfo("manifest.json")
    found.type, found.linkname = tarfile.SYMTYPE, "elsewhere"
    return [*(each for each in members if each[0].name != "manifest.json"), (found, b"")]


def replaced(members: Members, name: str, data: bytes) -> Members:
    return altered.content(name, data)(members)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lead_elsewhere, "manifest.json, which `docker load` reads, does not name what index.json does"),
        (
            lambda members: replaced(members, "manifest.json", b"[{}]"),
            "manifest.json is not what `docker load` reads: KeyError: 'Config'",
        ),
        (twice, "index.json is there 2 times"),
        (link, "manifest.json is no file"),
    ],
)
def test_an_archive_that_others_read_as_another_image(
    built: Small, tmp_path: Path, change: Callable[[Members], Members], expected: str
) -> None:
    """By index.json it is the one that was built; that is not the only way in."""
    altered.alter_archive(built.output, tmp_path / "a.tar", change)
    found = verify(tmp_path / "a.tar", built, code=1)
    assert [(None, None, "is ambiguous", expected, None)] == differences(found)
    done = inside("verify", tmp_path / "a.tar", code=1)
    assert f"error: the image is not valid:\n  {expected}\n" == done.stderr


def test_manifests_for_no_platform_are_no_images(built: Small, layout: Path) -> None:
    """An attestation beside the image: it is named as what differs, and no package is sought in it."""
    altered.attest(layout)
    found = verify(layout, built, code=1)
    assert ["unknown/unknown", "the index"] == [each["where"] for each in found["differences"]]
    assert "alpha" in inside("sbom", layout, "--format", "spdx").stdout
    said = inside("diff", layout, built.output, "--files").stdout
    assert said.startswith("the images differ in their form only")


def test_history_is_optional(layout: Path) -> None:
    """config.md says so, and images of others have none; what is said of it here must be of every layer."""
    altered.alter_config(layout, lambda config: config.pop("history"))
    assert inside("verify", layout, "--json").json["valid"]
    altered.alter_config(layout, lambda config: config.update(history=[]))
    assert "14 layers, 14 diff_ids, 0 history entries" in inside("verify", layout, code=1).stderr


def test_labels_may_be_null(layout: Path) -> None:
    """As other builders write them; such an image names no lock."""
    altered.alter_config(layout, lambda config: config["config"].update(Labels=None))
    found = inside("verify", layout, "--json").json
    assert (True, None, None) == (found["valid"], found["lock"], found["lock_is"])


def test_another_lock_is_told_first(built: Small, runtime_wheel: Path, tmp_path: Path) -> None:
    """Who verifies against another state of the project should know before reading differences."""
    other = make_small(tmp_path, runtime_wheel)
    update_json(other.requirements, environments={"NEW": "1"})
    inside("lock", other.root, "--store", other.store, env=other.env)
    done = inside("verify", built.output, other.root, "--store", other.store, env=other.env, code=1)
    assert "warning: the image says that it was made from the lock sha256:" in done.stderr
    assert '  Env.NEW: nothing in the image, "1" rebuilt\n' in done.stdout


@pytest.mark.judge
def test_a_registry_s_image(built: Small, layout: Path, plain_registry: LiveRegistry) -> None:
    """The layers come as streams; an altered image is found there, too."""
    reference = f"{plain_registry.host}/team/small:1"
    inside("push", layout, reference)
    assert verify(reference, built)["identical"]
    assert "valid sha256:" in inside("verify", reference).stdout
    altered.alter(layout, ALPHA, altered.content(ALPHA, b"A = 2\n"))
    inside("push", layout, reference)
    paths = [each["path"] for each in verify(reference, built, code=1)["differences"] if each["path"]]
    assert [ALPHA] == paths
    altered.alter(layout, ALPHA, lambda members: [*members, members[-1]])
    inside("push", layout, reference)
    assert "is out of order or there twice" in inside("verify", reference, code=1).stderr


def test_on_a_base_image(runtime_wheel: Path, tmp_path: Path) -> None:
    """The base's layers are compared, too, with the base itself; nobody of ours brought their files."""
    based = Based(make_small(tmp_path, runtime_wheel))
    based.lock()
    based.small.build()
    assert verify(based.small.output, based.small)["identical"]
    inside("copy", based.small.output, f"oci:{tmp_path / 'image'}")
    path = "usr/bin/python3.11"
    altered.alter(tmp_path / "image", path, altered.field(path, mtime=7))
    found = verify(tmp_path / "image", based.small, code=1)
    assert [(None, path, "mtime", "7")] == [each[:4] for each in differences(found) if each[1]]
    (based.small.root / "base.tar").unlink()
    offline = verify(tmp_path / "image", based.small, "--offline", code=1)
    assert found["differences"] == offline["differences"], "the base's layers are lent, too"


@pytest.mark.judge
@pytest.mark.network
@pytest.mark.slow
def test_a_whole_service_from_a_registry(
    locked_template: Path, warm_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """Upstream's template with Debian's and Python's packages, pushed; a machine that never built it agrees."""
    reference = f"{plain_registry.host}/team/template:1"
    inside("build", locked_template, "--push", reference, "-o", f"oci:{tmp_path / 'image'}", "--store", warm_store)
    done = inside("verify", reference, locked_template, "--json", "--store", warm_store)
    assert (True, []) == (done.json["identical"], done.json["fetched"])
    path = "usr/share/doc/base-files/copyright"
    altered.alter(tmp_path / "image", path, altered.field(path, mode=0o4755))
    found = inside("verify", tmp_path / "image", locked_template, "--json", "--store", warm_store, code=1).json
    (difference,) = [each for each in found["differences"] if each["path"]]
    assert re.fullmatch(r"base-files [^ _]+", difference["package"])
    assert (path, "mode", "4755", "0644") == tuple(difference[key] for key in ("path", "what", "image", "rebuilt"))


# -- how entries are compared ------------------------------------------------------------------------------------

summaries = st.lists(
    st.builds(
        Summary,
        path=st.sampled_from(["a", "a/b", "a/c", "d"]),
        kind=st.sampled_from(["file", "directory"]),
        mode=st.sampled_from([0o644, 0o755]),
        owner=st.just("0:0"),
        mtime=st.just("0"),
    ),
    unique_by=lambda each: each.path,
    max_size=4,
)


@given(summaries, summaries)
def test_changes_are_what_differs(one: list[Summary], other: list[Summary]) -> None:
    """Nothing between equals; else every path that differs, in whatever order they come, and the same way back."""
    assert [] == list(changes(one, one))
    before, after = ({each.path: each for each in side} for side in (one, other))
    expected = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    found = [each for each in changes(one, other) if each.what != "order"]
    assert expected == {each.path for each in found}
    back = [each for each in changes(other, one) if each.what != "order"]
    assert {(each.path, each.what, each.after, each.before) for each in found} == {
        (each.path, each.what, each.before, each.after) for each in back
    }


# -- the form ----------------------------------------------------------------------------------------------------


def test_the_form_is_checked(built: Small, layout: Path) -> None:
    """Valid, with the lock that the label names; and each violation of one that is not."""
    found = inside("verify", layout, "--json").json
    lock = inside("inspect", layout, "--json").json["lock"]
    assert (True, lock, None) == (found["valid"], found["lock"], found["lock_is"])
    assert f"valid {found['digest']}\nlock {lock}, which is not with it\n" == inside("verify", built.output).stdout
    altered.alter(layout, ALPHA, lambda members: [*members, members[-1]])
    done = inside("verify", layout, code=1)
    assert "is out of order or there twice" in done.stderr


@pytest.mark.judge
def test_signatures(built: Small, plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """With the right key both forms are named; an image that nobody signed, and another key, are refused."""
    reference = f"{plain_registry.host}/team/small:1"
    inside("push", built.output, reference)
    for name in ("ours", "theirs"):
        inside("keygen", "-o", tmp_path / name, "--no-password")
    ours, theirs, private = (tmp_path / name for name in ("ours.pub", "theirs.pub", "ours.key"))
    done = inside("verify", reference, "--key", ours, code=1)
    assert f"error: {reference} is not signed with the key {ours}: it has no signature that is by" in done.stderr
    inside("sign", reference, "--key", private)
    found = inside("verify", reference, "--key", ours, "--json").json
    assert (["bundle", "simple"], True) == (sorted(found["signed"]), found["valid"])
    assert "signed sha256:" in inside("verify", reference, "--key", ours).stdout
    assert "none of its 2 signatures is by" in inside("verify", reference, "--key", theirs, code=1).stderr


def test_a_key_is_for_registries(built: Small) -> None:
    """A file has no signatures."""
    done = inside("verify", built.output, "--key", "cosign.pub", code=1)
    assert "error: only a registry's image has signatures\nhint: push it, or leave --key out\n" == done.stderr
