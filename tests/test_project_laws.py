"""Whatever a file of a project holds, the answer is a value or Problems, never another exception."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ProjectError
from pesto_repro.project.checks import problems
from pesto_repro.project.files import ignores
from pesto_repro.project.pyrequires import python_requires
from pesto_repro.project.requirements import requirements
from pesto_repro.project.settings import settings

_WORDS = st.sampled_from(
    """
    $ref $id #/a #/definitions/Image properties items type required definitions enum pattern ( name version
    from to requirements environments dockerBaseImage image platforms base debian python requires layers max
    """.split()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 200) | st.floats(allow_nan=False) | _WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(_WORDS, _JSON, max_size=5)
_API = "description input_schema output_schema user_definitions config_schema config version".split()


@given(st.dictionaries(st.sampled_from(_API), _DOCUMENTS))
def test_any_documents(documents: dict[str, dict[str, Any]]) -> None:
    """The documents of pesto/api."""
    assert all(isinstance(message, str) for _, _, message in problems(documents))


@given(_DOCUMENTS)
def test_any_requirements_json(document: dict[str, Any]) -> None:
    """requirements.json."""
    with suppress(ProjectError):
        assert requirements(document, [("f", document)], "root", base_is_given=True).docker_base_image != ""


@given(_DOCUMENTS)
def test_any_image_toml(document: dict[str, Any]) -> None:
    """image.toml."""
    with suppress(ProjectError):
        assert 1 <= settings(document, [("f", document)], "deep").layers.max <= 120


@given(st.sampled_from(["requirements.txt", "setup.cfg", "setup.py", "pyproject.toml"]), st.text())
def test_any_python_file(name: str, text: str) -> None:
    """The files that name Python requirements."""
    with suppress(ProjectError):
        assert python_requires({name: text}.get).requires == python_requires({name: text}.get).requires


@given(st.text(), st.text(min_size=1))
def test_any_dockerignore(text: str, path: str) -> None:
    """.dockerignore."""
    with suppress(ProjectError):
        assert ignores(text)(path) in (True, False)


@given(st.text("[]^!*?/\\\\-ab.", max_size=8))
def test_any_pattern(pattern: str) -> None:
    """Patterns of nothing but special characters."""
    with suppress(ProjectError):
        assert ignores(pattern)("a/b") in (True, False)
