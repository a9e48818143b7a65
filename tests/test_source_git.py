"""Sources that are commits: the tar is that of git's objects, whatever is configured, and pins the commit's files."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from pesto_repro.errors import BuildError, FetchError, MismatchError
from pesto_repro.progress import Reporter
from pesto_repro.source.archive import read_directory
from pesto_repro.source.git import read_commit
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.store import Store

SETUP = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
WHO = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Repo:
    """A git repository at *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environment = {**os.environ, **SETUP, **WHO}
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit *files* ("__" in a name is "."); the commit."""
        for name, text in files.items():
            (self.root / name.replace("__", ".")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")
        return self.git("rev-parse", "HEAD")

    def read(self, store: Store, ref: str | None = None, **how: str | None) -> Unpacked:
        return read_commit(store, self.root.as_uri(), ref, {**os.environ, **SETUP}, Reporter(), **how)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


def names(store: Store, source: Unpacked) -> list[str]:
    with store.open(source.tree) as stream, tarfile.open(fileobj=stream) as tar:
        return [each.name for each in tar if not each.isdir()]


def test_a_commit_is_pinned_wherever_its_branch_goes(repo: Repo, store: Store) -> None:
    """The default branch, a branch, a tag, a commit, its beginning; later by the commit alone."""
    first = repo.commit(setup__py="1", pyproject__toml="[project]")
    repo.git("tag", "-a", "v1", "-m", "x")
    repo.git("branch", "old")
    source = repo.read(store)
    assert (source.kind, source.commit, source.name) == ("git", first, repo.root.as_uri())
    assert (source.digest, source.pyproject) == (source.tree, b"[project]")
    second = repo.commit(setup__py="2")
    assert repo.read(store).commit == second
    for ref in ("v1", "old", "refs/tags/v1", first, first[:12]):
        assert repo.read(store, ref) == source
    assert repo.read(store, "main", commit=first) == source


def test_a_commits_tar_is_that_of_its_files(repo: Repo, store: Store, tmp_path: Path) -> None:
    """The same as of a directory with these files; no attribute, filter or setting of git changes a byte."""
    attributes = "*.py text eol=crlf ident export-subst\nhidden.py export-ignore\n"
    repo.commit(a__py="$Id$ $Format:%H$\n", hidden__py="x\n", __gitattributes=attributes)
    (repo.root / "run.sh").write_text("x")
    (repo.root / "run.sh").chmod(0o755)
    (repo.root / "link").symlink_to("a.py")
    (repo.root / "empty").touch()
    (repo.root / "large").write_bytes(bytes(range(256)) * 10_000)
    (repo.root / "sub").mkdir()
    (repo.root / "sub/\u00e9 \t.txt").write_text("x")
    repo.commit()
    subprocess.run(["rm", "-rf", repo.root / ".gitignore"], check=True)
    assert repo.read(store).tree == read_directory(store, "repo", repo.root).tree


def test_a_commit_is_not_replaced_by_another(repo: Repo, store: Store) -> None:
    """git-replace(1): a repository may say that one commit stands for another; its name is that of its own files."""
    good = repo.commit(a="good")
    repo.git("replace", good, repo.commit(a="bad"))
    source = repo.read(store, f"{good}^0")  # no name that is given out: all is fetched, with refs/replace
    with store.open(source.tree) as stream, tarfile.open(fileobj=stream) as tar:
        content = tar.extractfile("source/a")
        assert content is not None
        assert (good, b"good") == (source.commit, content.read())


def test_no_hook_of_anybody_runs(repo: Repo, store: Store, tmp_path: Path) -> None:
    """Neither of the repository nor of the user's templates."""
    templates, config = tmp_path / "templates/hooks", tmp_path / "config"
    for folder in (templates, repo.root / ".git/hooks"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("post-checkout", "reference-transaction", "post-merge"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
            (folder / name).chmod(0o755)
    repo.git("-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--allow-empty", "--message=x")
    (repo.root / ".git/hooks/reference-transaction").unlink()
    config.write_text(f"[init]\n templateDir = {templates.parent}\n[core]\n hooksPath = {templates}\n")
    repo.commit(setup__py="1")
    (tmp_path / "ran").unlink(missing_ok=True)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": str(config), "GIT_DIR": "/nonexistent"}
    read_commit(store, repo.root.as_uri(), None, environment, Reporter())
    assert not (tmp_path / "ran").exists()


def test_a_subdirectory_is_what_is_built(repo: Repo, store: Store) -> None:
    """The whole tree is pinned and is in the room; the documents are those of the subdirectory."""
    (repo.root / "python").mkdir()
    (repo.root / "python/pyproject.toml").write_text("sub")
    repo.commit(pyproject__toml="top")
    source = repo.read(store, subdirectory="python")
    assert (source.root, source.pyproject) == ("source/python", b"sub")
    with pytest.raises(BuildError, match="has no directory 'nowhere'"):
        repo.read(store, subdirectory="nowhere")


def test_a_submodule_is_refused(repo: Repo, store: Store, tmp_path: Path) -> None:
    """It would be missing in the tar: the error says which."""
    other = Repo(tmp_path / "other")
    other.commit(x="1")
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(other.root), "lib")
    repo.commit()
    with pytest.raises(BuildError) as caught:
        repo.read(store)
    assert caught.value.message == f"{repo.root.as_uri()}: lib is a submodule, which is not fetched"


def test_a_link_out_of_the_tree_is_refused(repo: Repo, store: Store) -> None:
    """As in any other source."""
    (repo.root / "link").symlink_to("../../x")
    repo.commit()
    with pytest.raises(BuildError, match=r"(?m)has links that leave it, or go in a circle:\n  link leads to ../../x$"):
        repo.read(store)


def test_what_is_not_there_is_said_by_git(repo: Repo, store: Store, tmp_path: Path) -> None:
    """A branch, a commit, a repository."""
    repo.commit(x="1")
    for ref in ("nothing", "f" * 40):
        with pytest.raises(FetchError, match=rf"^{re.escape(repo.root.as_uri())} cannot be read:"):
            repo.read(store, ref)
    with pytest.raises(FetchError, match="cannot be read:\n"):
        read_commit(store, (tmp_path / "no").as_uri(), None, {**os.environ, **SETUP}, Reporter())
    with pytest.raises(FetchError) as caught:
        read_commit(store, repo.root.as_uri(), None, {"PATH": "/nonexistent"}, Reporter())
    assert caught.value.message.endswith("cannot be read: there is no program git")


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("ext::sh -c id", None),
        ("https://me:secret@example.org/x", None),
        ("/some/path", None),
        ("https://example.org/x", "--upload-pack=id"),
        ("https://example.org/x", "a:b"),
    ],
)
def test_addresses_that_run_or_tell_something_are_refused(store: Store, url: str, ref: str | None) -> None:
    """Before git is started; a password is not shown."""
    with pytest.raises(BuildError) as caught:
        read_commit(store, url, ref, {}, Reporter())
    assert "secret" not in caught.value.message


def test_another_commit_than_the_locked_one_is_refused(repo: Repo, store: Store) -> None:
    """A tag or branch that bears a commit's name fools nobody."""
    first = repo.commit(x="1")
    wanted = "0" * 39 + "1"
    repo.git("update-ref", f"refs/heads/{wanted}", first)
    with pytest.raises((MismatchError, FetchError)):
        repo.read(store, commit=wanted)
