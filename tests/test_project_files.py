"""Which files travel: what never does, .dockerignore as Docker reads it, symlinks."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ProjectError
from pesto_repro.project.files import ignores, resolve, select

_NEVER = """
.git/config .hg/x .svn/x sub/.git .env sub/.env .env.local a/__pycache__/x.pyc a/x.pyc .mypy_cache/x
.pytest_cache/x .ruff_cache/x .tox/x .nox/x a/.ipynb_checkpoints/x x.egg-info/PKG-INFO
node_modules/x dist/x build/x lockfiles/x pesto/api/config.json pesto/build/image.toml .dockerignore
uv.toml a/uv.toml pip.conf a/pip.ini .netrc a/_netrc .pypirc
.venv/pyvenv.cfg .venv/bin/python sub/env/pyvenv.cfg sub/env/lib/x
""".split()
_ALWAYS = """
setup.py a/uv.toml.md a/netrc algorithm/dist/x algorithm/build.py pesto/tests/x a/lockfiles/x .envrc .gitignore
a/pesto/api/x
""".split()


def test_what_never_travels() -> None:
    """Version control, environments, caches, secrets, what other steps put in; not what only looks alike."""
    assert sorted(_ALWAYS, key=lambda path: path.split("/")) == list(select([*_NEVER, *_ALWAYS]))


def test_an_exception_does_not_bring_back_what_never_travels() -> None:
    """An exception undoes the user's own patterns only."""
    assert ("a",) == select([".env", ".git/x", "a", "b"], "*\n!.env\n!.git\n!a")


def test_more_may_be_left_out() -> None:
    """The caller's own paths, with all below them."""
    assert ("locks2/x",) == select(["locks/x", "locks2/x"], also=("locks",))


@pytest.mark.parametrize(
    ("text", "path", "ignored"),
    [
        ("temp", "temp", True),
        ("temp", "temp/a/b", True),
        ("temp", "sub/temp", False),  # git would leave it out
        ("/temp", "temp/a", True),
        ("temp/", "temp", True),
        ("./temp/../x", "x", True),
        ("*/temp*", "sub/temporary.txt", True),
        ("*/temp*", "temp", False),
        ("*/*/temp*", "a/b/temp", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("**/*.go", "a.go", True),
        ("**/*.go", "a/b/c.go", True),
        ("**/temp", "a/temp/x", True),
        ("a/**", "a/b/c", True),
        ("a/**", "ab", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "a.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("docs\n!docs/keep", "docs/keep/x", False),
        ("docs\n!docs/keep", "docs/x", True),
        ("# a\n\n  a  ", "a", True),
        ("# a", "# a", False),
        ("[ab].c", "a.c", True),
        ("[^ab].c", "a.c", False),
        ("[a-c]", "b", True),
        (r"[\d]", "5", False),
        (r"[\]&&]", "]", True),
        ("[[]", "[", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a.c", "abc", False),
        ("a+(b)$", "a+(b)$", True),
        (".\n!\n/", "a", False),
        ("*", "a/b", True),
        ("a b", "a b/c", True),
    ],
)
def test_dockerignore(text: str, path: str, ignored: bool) -> None:
    """Docker's documentation, and its difference from git's rules."""
    assert ignored == ignores(text)(path)


def test_a_malformed_pattern_has_its_line() -> None:
    """As docker build refuses it."""
    with pytest.raises(ProjectError) as caught:
        ignores("a\n[z-a]")
    assert 'the project has a problem:\n  .dockerignore:2: "[z-a]" is a malformed pattern' == str(caught.value)


_PARTS = st.sampled_from(["a", "b", "a-b", "dist", ".env"])
_PATHS = st.lists(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), unique=True)
_IGNORE = st.lists(st.sampled_from(["a", "!a/b", "**/b", "*-*", "!b"]), max_size=4).map("\n".join)


@given(_PATHS, _IGNORE, st.integers())
def test_order_of_listing_does_not_matter(paths: list[str], text: str, seed: int) -> None:
    """The same files give the same answer, sorted by parts; and choosing again changes nothing."""
    chosen = select(paths, text)
    shuffled = random.Random(seed).sample(paths, len(paths))
    assert chosen == select(shuffled, text) == select(chosen, text)
    assert sorted(path.split("/") for path in chosen) == [path.split("/") for path in chosen]


@pytest.mark.parametrize(
    ("link", "links", "expected"),
    [
        ("a", {"a": "b"}, "b"),
        ("d/a", {"d/a": "../b/c"}, "b/c"),
        ("a", {"a": "b", "b": "c/d"}, "c/d"),
        ("a", {"a": "s/../x", "s": "d/e"}, "d/x"),
        ("a", {"a": "."}, ""),
        ("a", {"a": "../x"}, None),
        ("d/a", {"d/a": "../../x"}, None),
        ("d/a", {"d/a": "s/../../x", "d/s": ".."}, None),
        ("a", {"a": "/etc/passwd"}, None),
        ("a", {"a": "b", "b": "a"}, None),
    ],
)
def test_where_a_symlink_leads(link: str, links: dict[str, str], expected: str | None) -> None:
    """Through other links as well; None outside the project or in a circle."""
    assert expected == resolve(link, links)
