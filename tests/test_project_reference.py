"""build.json's name and version as an image reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ProjectError
from pesto_repro.project.reference import Reference, is_name, is_tag, reference

_FILE = "pesto/build/build.json"


def test_profiles_end_the_tag() -> None:
    """name:version[-p1-p2], profiles in the order given."""
    assert "algo:1.0.0.dev0" == str(reference(_FILE, "algo", "1.0.0.dev0", ()))
    assert Reference("team/algo", "1.0-p2-p1") == reference(_FILE, "team/algo", "1.0", ("p2", "p1"))


@pytest.mark.parametrize("name", ["a", "a.b", "a_b", "a__b", "a---b", "a/b", "0/x-y"])
def test_valid_names(name: str) -> None:
    """What the distribution-spec's grammar of names takes."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a_", "-a", "a..b", "a___b", "a//b", "/a", "a/", "h:5/a", "é", "a\n", "a" * 256]
)
def test_invalid_names(name: str) -> None:
    """What it refuses."""
    assert not is_name(name)


@given(st.text("aZ0_.-+ \n", max_size=5))
def test_a_tag_is_its_grammar(text: str) -> None:
    """Letters, digits, "_", ".", "-"; the first is neither "." nor "-"."""
    expected = bool(text) and text[0] in "aZ0_" and all(char in "aZ0_.-" for char in text)
    assert expected == is_tag(text)


def test_a_tag_is_at_most_128_characters() -> None:
    """The limit counts the profiles."""
    assert is_tag("a" * 128)
    assert not is_tag("a" * 129)


def test_both_problems_are_told() -> None:
    """A bad name and a bad version at once, with what would be right."""
    with pytest.raises(ProjectError) as caught:
        reference(_FILE, "My Algo", "1.0+x", ("p1",))
    assert (
        "the project has 2 problems:\n"
        '  pesto/build/build.json:name: "My Algo" is not an image name: lower-case letters and '
        "digits, separated by "
        'single ".", "_", "__" or dashes, in parts separated by "/", 255 characters at most\n'
        '  pesto/build/build.json:version: "1.0+x-p1" (of version "1.0+x" and the profiles) is '
        "not "
        "an image tag: "
        'letters, digits, "_", "." and "-", not starting with "." or "-", 128 characters at most'
    ) == str(caught.value)
