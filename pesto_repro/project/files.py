"""Which of the project's own files go into the image below /opt/<name>: a decision on paths, not on contents.

Left out: what the project's ``.dockerignore`` names, and always what must never travel (version control,
virtual environments, caches, secrets) or is put in by another step (``pesto/api``, ``pesto/build``). Paths
are relative to the root, with "/". Directories are not entries of their own: an empty one does not travel.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from pesto_repro.errors import Problem, ProjectError

DOCKERIGNORE = ".dockerignore"
_ANYWHERE = re.compile(
    r"\.git|\.hg|\.svn|__pycache__|\.mypy_cache|\.pytest_cache|\.ruff_cache|\.tox|\.nox|\.ipynb_checkpoints"
    r"|node_modules|\.env|\.env\..*|.*\.pyc|.*\.egg-info"
    # where package tools keep credentials
    r"|\.netrc|_netrc|\.pypirc|pip\.conf|pip\.ini|uv\.toml",
    re.DOTALL,
)
_AT_ROOT = frozenset({"dist", "build", "lockfiles", "pesto/api", "pesto/build", DOCKERIGNORE})
_LINK_LIMIT = 40
"""As many links in a row as Linux follows."""


def never(path: str, also: Collection[str] = ()) -> bool:
    """Whether *path*, a file or a directory with all below it, never travels; *also* names more."""
    return path in _AT_ROOT or path in also or bool(_ANYWHERE.fullmatch(posixpath.basename(path)))


def select(paths: Iterable[str], dockerignore: str = "", also: Collection[str] = ()) -> tuple[str, ...]:
    """Those of *paths* (files and symlinks) that go into the image, sorted by their parts."""
    candidates = tuple(paths)
    environments = {posixpath.dirname(path) for path in candidates if posixpath.basename(path) == "pyvenv.cfg"}
    left_out = {*also, *filter(None, environments)}
    is_ignored = ignores(dockerignore)
    kept = (path for path in candidates if not any(never(p, left_out) for p in _lineage(path)))
    return tuple(sorted((path for path in kept if not is_ignored(path)), key=lambda path: path.split("/")))


def ignores(dockerignore: str) -> Callable[[str], bool]:
    """The rule that the text of a .dockerignore stands for: whether a file is left out.

    "Matching is done using Go's filepath.Match function rules"; "Docker also supports a special wildcard
    string ``**`` that matches any number of directories (including zero)"; "the last line of the
    .dockerignore that matches a particular file determines whether it is included or excluded" (Docker's
    documentation). A pattern is relative to the root, unlike git's, and covers what is below the directory
    that it matches. Raises ProjectError.
    """
    rules = tuple(_rules(dockerignore))

    def is_ignored(path: str) -> bool:
        lineage = tuple(_lineage(path))
        verdicts = (leave_out for leave_out, rule in rules if any(map(rule.fullmatch, lineage)))
        return next(verdicts, False)

    return is_ignored


def resolve(link: str, links: Mapping[str, str]) -> str | None:
    """Where *link* leads, through all of *links* (path -> relative target).

    None if that is outside the project, or if the links go in a circle.
    """
    done: list[str] = []
    todo = link.split("/")
    followed = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            if not done:
                return None
            done.pop()
        elif part not in ("", "."):
            done.append(part)
            target = links.get("/".join(done))
            if target is not None:
                followed += 1
                if followed > _LINK_LIMIT or target.startswith("/"):
                    return None
                done.pop()
                todo = [*target.split("/"), *todo]
    return "/".join(done)


def _lineage(path: str) -> Iterator[str]:
    """*path* and the directories above it, from the top."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _rules(dockerignore: str) -> Iterator[tuple[bool, re.Pattern[str]]]:
    """(whether it leaves out, what it matches) of each line, the last line first."""
    for number, line in reversed(list(enumerate(dockerignore.splitlines(), 1))):
        # "If a line in .dockerignore file starts with # in column 1, then this line is considered as a
        # comment"
        text = "" if line.startswith("#") else line.strip()
        pattern = text.removeprefix("!").strip()
        # "A preprocessing step uses Go's filepath.Clean function"; /foo/bar and foo/bar are one pattern
        pattern = posixpath.normpath(pattern).lstrip("/") if pattern else ""
        if pattern not in ("", "."):
            yield not text.startswith("!"), _compiled(pattern, number)


def _compiled(pattern: str, line: int) -> re.Pattern[str]:
    try:
        return re.compile(_regex(pattern), re.DOTALL)
    except re.error:
        raise ProjectError([Problem(DOCKERIGNORE, str(line), f'"{pattern}" is a malformed pattern')]) from None


_PIECES = re.compile(r"\*\*/?|\*|\?|\[(?P<set>\^?(?:\\.|[^\]\\])+)\]|\\(?P<escaped>.)|(?P<other>.)", re.DOTALL)


def _regex(pattern: str) -> str:
    return "".join(_piece(piece, last=piece.end() == len(pattern)) for piece in _PIECES.finditer(pattern))


def _piece(piece: re.Match[str], *, last: bool) -> str:
    if piece[0].startswith("**"):
        return ".*" if last else "(?:.*/)?"
    if piece["set"]:
        return _one_of(piece["set"])
    wild = {"*": "[^/]*", "?": "[^/]"}
    return wild.get(piece[0]) or re.escape(piece["escaped"] or piece["other"])


def _one_of(text: str) -> str:
    """*text*, Go's ``[ '^' ] { character-range }``, as a regular expression's set."""
    ranges = re.finditer(r"\\?(?P<low>.)(?:-\\?(?P<high>.))?", text.removeprefix("^"), re.DOTALL)
    inner = "".join("-".join(map(re.escape, filter(None, each.group("low", "high")))) for each in ranges)
    return f"[{'^' if text.startswith('^') else ''}{inner}]"
