"""Sources that are commits of a git repository.

The program ``git`` brings the commit; its files are read out of git's objects, not checked out: no hook runs, no filter
and no attribute changes a byte, and the tar is the same whatever git's version and configuration. Credentials are git's
own business (its configuration, its helpers, ssh): an address that carries some is refused.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from pesto_repro.addresses import public, redact, userinfo
from pesto_repro.build.entry import Entry, file, symlink
from pesto_repro.digest import chunks
from pesto_repro.errors import BuildError, FetchError, MismatchError
from pesto_repro.progress import Reporter
from pesto_repro.source.archive import require_inside
from pesto_repro.source.unpacked import FOLDER, Unpacked, below, opened, write_tree
from pesto_repro.store import Store

_SCHEMES = ("https", "http", "file", "ssh")
_STEERING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
"""Variables that would lead git to another repository."""


def read_commit(
    store: Store,
    url: str,
    ref: str | None,
    environment: Mapping[str, str],
    reporter: Reporter,
    *,
    commit: str | None = None,
    subdirectory: str | None = None,
    package: str | None = None,
) -> Unpacked:
    """The files of the commit that *ref* names in the repository *url*: a branch, a tag, a commit; None: its default.

    If *commit* is pinned, of that one, wherever *ref* has gone. *environment* is what git is started with: PATH, HOME,
    proxies. Raises FetchError, BuildError.
    """
    _require_address(url, ref)
    name = public(url)
    with (
        tempfile.TemporaryDirectory(prefix="pesto-repro-git-") as folder,
        reporter.activity("download", name),
    ):
        git = _Git(Path(folder), url, environment)
        found = git.fetch(commit or ref)
        if commit is not None and found != commit:
            raise MismatchError(f"{name} is not what was locked: expected the commit {commit}, it has {found}")
        with git.files(found) as entries:
            require_inside(entries, f"{name} at {found[:12]}")
            tree, size = write_tree((below(FOLDER, each) for each in entries), store)
    return opened(
        Unpacked("git", name, tree, size, tree, commit=found, subdirectory=subdirectory, package=package), store
    )


def _require_address(url: str, ref: str | None) -> None:
    if urlsplit(url).scheme not in _SCHEMES or ":" in userinfo(url):
        hint = f"name it as {', '.join(f'{each}://' for each in _SCHEMES)}, without a password"
        raise BuildError(f"{public(url)} is no address that a repository is read from", hint)
    if ref is not None and not re.fullmatch(r"(?!-)[\w./+@{}^~-]+", ref):
        raise BuildError(f"{public(url)}: {ref!r} is no name of a branch, a tag or a commit")


class _Git:
    """An empty repository in *folder*, to fetch into from *url*."""

    def __init__(self, folder: Path, url: str, environment: Mapping[str, str]) -> None:
        self._folder, self._name, self._url = folder, public(url), url
        kept = {key: value for key, value in environment.items() if key not in _STEERING}
        self._environment = kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ":".join(_SCHEMES), "LC_ALL": "C"}
        self._environment["GIT_NO_REPLACE_OBJECTS"] = "1"  # refs/replace: a commit that a server passes off as another
        self._run("init", "--quiet", "--bare", "--template=")

    def fetch(self, ref: str | None) -> str:
        """Have *ref*; the commit that it is."""
        shallow = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--depth=1", "--", self._url)
        try:
            self._run(*shallow, ref or "HEAD")
            return self._commit("FETCH_HEAD")
        except FetchError:
            if ref is None or not re.search(r"[0-9a-f]{4}|[@^~]", ref):
                raise
        # Not every server gives out a commit by its name alone: then it is found among all.
        self._run("fetch", "--quiet", "--no-recurse-submodules", "--", self._url, "+refs/*:refs/*")
        return self._commit(ref)

    @contextmanager
    def files(self, commit: str) -> Iterator[list[Entry]]:
        """The files and links of *commit*; their contents can be read inside the context."""
        listed = self._run("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0")
        with self._started("cat-file", "--batch") as process:
            yield [self._entry(line, process) for line in listed if line]

    def _entry(self, line: bytes, process: subprocess.Popen[bytes]) -> Entry:
        """git-ls-tree(1): ``<mode> SP <type> SP <object> SP <object size (padded)> TAB <file>``."""
        head, _, raw = line.partition(b"\t")
        mode, kind, name, size = head.decode().split()
        path = raw.decode(errors="surrogateescape")
        if kind != "blob":
            raise BuildError(
                f"{self._name}: {path} is a submodule, which is not fetched",
                "take the package from an index, or from a repository without submodules",
            )
        opener = cast("Callable[[], BinaryIO]", partial(_Blob, process, name))
        if mode == "120000":
            with opener() as stream:
                return symlink(path, stream.read().decode(errors="surrogateescape"))
        return file(path, opener, int(size), executable=mode == "100755")

    def _commit(self, name: str) -> str:
        return self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()

    def _run(self, *arguments: str) -> bytes:
        with self._started(*arguments) as process:
            found, said = process.communicate()
        if process.returncode:
            told = redact(said.decode(errors="replace")).strip() or f"git ended with {process.returncode}"
            raise FetchError(
                "\n  ".join([f"{self._name} cannot be read:", *told.splitlines()[-10:]]),
                "check the address, the name of the branch, tag or commit, and that git may read it without asking",
            )
        return found

    @contextmanager
    def _started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", f"--git-dir={self._folder}", *arguments]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe)
        except FileNotFoundError:
            raise FetchError(f"{self._name} cannot be read: there is no program git", "install git") from None
        with process:
            try:
                yield process
            finally:
                process.kill()


class _Blob(io.RawIOBase):
    """The blob *name*, from a running ``git cat-file --batch``: the next can be asked for when it is closed.

    git-cat-file(1): ``<oid> SP <type> SP <size> LF``, the contents, LF.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        super().__init__()
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._rest = process.stdout, 0
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        self._rest = int(self._out.readline().split()[-1])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._out.read(min(len(buffer), self._rest))
        buffer[: len(piece)] = piece
        self._rest -= len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            for _ in chunks(cast("BinaryIO", self)):  # what nobody wanted
                pass
            self._out.read(1)
        super().close()
