"""Debian's alternatives: links like ``/usr/bin/awk`` that lead to the best program of those on offer.

Packages offer them in their ``postinst`` with ``update-alternatives --install``. Where they do it literally,
without shell variables, the links are made here as update-alternatives(1) would; other calls are no data and
are left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pesto_repro.build.entry import Entry, data, symlink

_CALL = re.compile(r"^[^#\n]*?\bupdate-alternatives\b(.*)$", re.MULTILINE)
_END = re.compile(r"[;&|<>()]+")


@dataclass(frozen=True, slots=True)
class Alternative:
    """A choice: *link* leads to *path* through ``/etc/alternatives/<name>``; *slaves*: (link, name, path)."""

    link: str
    name: str
    path: str
    priority: int
    slaves: tuple[tuple[str, str, str], ...] = ()


def offered(postinst: str) -> Iterator[Alternative]:
    """The alternatives that a maintainer script offers literally."""
    for call in _CALL.finditer(re.sub(r"\\\n", " ", postinst)):
        words = _words(call[1])
        if "--install" in words and not any(character in word for word in words for character in "$`"):
            yield from _alternative(words[words.index("--install") + 1 :])


def entries(alternatives: Iterable[Alternative], present: Collection[str]) -> Iterator[Entry]:
    """The links, and what update-alternatives keeps of them. *present* are the paths that packages bring."""
    groups: dict[str, list[Alternative]] = {}
    for each in alternatives:
        groups.setdefault(each.name, []).append(each)
    for name in sorted(groups):
        yield from _group(sorted(groups[name], key=lambda each: each.path), present)


def _group(choices: Sequence[Alternative], present: Collection[str]) -> Iterator[Entry]:
    # update-alternatives(1): "the alternative ... with the highest priority"
    best = max(choices, key=lambda each: each.priority)
    yield from _links(best.link, best.name, best.path)
    for link, name, path in best.slaves:
        # update-alternatives(1): a slave whose file does not exist is not linked
        if path.lstrip("/") in present:
            yield from _links(link, name, path)
    yield data(f"var/lib/dpkg/alternatives/{best.name}", _administration(choices, best).encode())


def _links(link: str, name: str, path: str) -> Iterator[Entry]:
    yield symlink(f"etc/alternatives/{name}", path)
    yield symlink(link.lstrip("/"), f"/etc/alternatives/{name}")


def _administration(choices: Sequence[Alternative], best: Alternative) -> str:
    """As dpkg's ``alternatives/*``: mode, link, slaves; then each choice with its priority and its slaves."""
    slaves = dict(sorted({name: link for each in choices for link, name, _ in each.slaves}.items()))
    lines = ["auto", best.link]
    for name, link in slaves.items():
        lines += [name, link]
    lines.append("")
    for choice in choices:
        paths = {name: path for _, name, path in choice.slaves}
        lines += [choice.path, str(choice.priority), *(paths.get(name, "") for name in slaves)]
    return "\n".join([*lines, "", ""])


def _words(text: str) -> list[str]:
    """The words of a simple command, up to where the next one begins."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found = []
    try:
        for word in lexer:
            if _END.fullmatch(word):
                break
            found.append(word)
    except ValueError:  # a quote that ends on another line: no literal call
        return []
    return found


def _alternative(words: Sequence[str]) -> Iterator[Alternative]:
    if len(words) < 4 or not words[3].lstrip("-").isdigit():
        return
    link, name, path, priority = words[:4]
    rest, slaves = words[4:], []
    while len(rest) >= 4 and rest[0] == "--slave":
        slaves.append((rest[1], rest[2], rest[3]))
        rest = rest[4:]
    yield Alternative(link, name, path, int(priority), tuple(slaves))
