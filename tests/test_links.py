"""What lands below a link of the base goes where the link leads: nothing takes the base's libraries away."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pesto_repro.build.entry import Entry, data, directory, symlink
from pesto_repro.build.links import follow
from pesto_repro.build.realise import Workshop, make
from pesto_repro.build.tar import arrange
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.plan import Pinned, Step
from pesto_repro.plan.root import LINKS
from pesto_repro.progress import Reporter
from pesto_repro.store import Store
from tests.test_archive import Member, tarred


def _paths(entries: list[Entry]) -> list[tuple[str, str, str]]:
    return [(each.path, each.kind, each.target) for each in arrange(follow(entries, LINKS))]


def test_what_lies_below_a_link_goes_where_it_leads() -> None:
    """Files, folders and links; what a link means stays what it was; the rest is left alone."""
    found = _paths(
        [
            data("bin/tool", b""),
            data("lib/data.txt", b""),
            directory("var/lock"),
            data("var/run/a/b", b""),
            symlink("lib/up", "../etc/x"),
            symlink("lib/beside", "./data.txt"),
            symlink("sbin/tool", "../bin/tool"),
            symlink("opt/tool", "../bin/tool"),
            symlink("lib/absolute", "/lib/x"),
        ]
    )
    assert [
        ("opt", "directory", ""),
        ("opt/tool", "symlink", "../bin/tool"),
        ("run", "directory", ""),
        ("run/a", "directory", ""),
        ("run/a/b", "file", ""),
        ("run/lock", "directory", ""),
        ("usr", "directory", ""),
        ("usr/bin", "directory", ""),
        ("usr/bin/tool", "file", ""),
        ("usr/lib", "directory", ""),
        ("usr/lib/absolute", "symlink", "/lib/x"),
        ("usr/lib/beside", "symlink", "data.txt"),
        ("usr/lib/data.txt", "file", ""),
        ("usr/lib/up", "symlink", "../../etc/x"),
        ("usr/sbin", "directory", ""),
        ("usr/sbin/tool", "symlink", "../bin/tool"),
    ] == found


def test_a_folder_that_is_reached_by_a_link_keeps_its_permissions() -> None:
    """/var/lock is /run/lock, where everybody may write."""
    (found,) = follow([directory("var/lock", origin="m")], LINKS)
    assert (0o1777, "m") == (found.mode, found.origin)


def test_the_base_s_own_links_may_be_repeated() -> None:
    """Archives of whole roots have them; however they are spelt."""
    found = [symlink("bin", "usr/bin"), symlink("lib", "/usr/lib"), symlink("var/run", "../run")]
    assert found == follow(found, LINKS)


def test_what_would_take_the_place_of_a_link_is_refused() -> None:
    """All at once, sorted."""
    with pytest.raises(BuildError) as caught:
        follow([symlink("lib", "opt/lib"), data("bin", b""), data("usr/bin/x", b"")], LINKS)
    assert (
        "these would take the place of directories of the base:\n"
        "  /bin: a file, where the base has a link to /usr/bin\n"
        "  /lib: a symlink, where the base has a link to /usr/lib"
    ) == caught.value.message


def test_the_same_path_in_two_spellings_is_one() -> None:
    """With different contents it is an error, as for any other path."""
    with pytest.raises(BuildError) as caught:
        arrange(follow([data("bin/x", b"1", origin="m"), data("usr/bin/x", b"2", origin="m")], LINKS))
    assert "these paths cannot be in one layer:\n  usr/bin/x: m: and m: bring different things" == caught.value.message


def test_without_links_nothing_moves() -> None:
    """A base may have real directories there."""
    found = [data("bin/x", b""), data("lib", b"")]
    assert found == follow(found, {})


def _layer(store: Store, kind: str, params: dict[str, object], name: str, content: bytes) -> list[str]:
    """The paths of the layer that such a step makes."""
    shop = Workshop(store, {}, lambda digest: None, "none", "none", Reporter())
    step = Step(kind, "m", "resources", params, (Pinned(name, store.put(content)),))
    with store.open(make(step, shop).layer.descriptor.digest) as stream, tarfile.open(fileobj=stream) as layer:
        return layer.getnames()


@pytest.mark.parametrize(
    ("links", "expected"),
    [(LINKS, ["usr", "usr/bin", "usr/bin/tool"]), ({}, ["bin", "bin/tool"])],
)
def test_every_kind_of_resource_follows_the_links(tmp_path: Path, links: dict[str, str], expected: list[str]) -> None:
    """A folder and an archive at the root, a file: whether the base has links is said by the step."""
    store = Store(tmp_path)
    row = ["bin/tool", Digest.of(b"tool").hex, 4, False, None]
    archive = tarred(Member("bin", kind=tarfile.DIRTYPE), Member("bin/tool", b"tool"))
    assert expected == _layer(store, "tree", {"root": "", "files": [row], "links": links}, "", b"tool")
    assert expected == _layer(store, "archive", {"to": "", "links": links}, "m.tar", archive)
    assert expected == _layer(store, "file", {"to": "bin/tool", "links": links}, "tool", b"tool")
