"""What all tests share: where downloads are kept, upstream's wheel and template project, missed judges."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import judges, upstream
from tests.e2e import locked_once, locked_template, template, warm_store
from tests.registries import htpasswd_registry, plain_registry, tls_registry, token_registry
from tests.sandboxes import sandboxes
from tests.small_project import built, built_once
from tests.tester import tester

__all__ = ["locked_once", "locked_template", "template", "warm_store"]  # fixtures, for all tests
__all__ += ["built", "built_once", "sandboxes", "tester"]
__all__ += ["htpasswd_registry", "plain_registry", "tls_registry", "token_registry"]

CACHE = "PESTO_REPRO_TEST_CACHE"
_MISSING = "missing_judges"

settings.register_profile("untimed", deadline=None)  # a busy machine must not fail a test
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def test_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that outlives the tests: $PESTO_REPRO_TEST_CACHE or in the home; else a temporary one."""
    chosen = Path(os.environ.get(CACHE) or "~/.cache/pesto-repro-tests").expanduser()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError:
        return tmp_path_factory.mktemp("cache")
    return chosen


@pytest.fixture(scope="session")
def runtime_wheel(test_cache: Path) -> Path:
    """The wheel of processing-factory, PESTO's own package. Needs the network the first time."""
    return upstream.download(test_cache)


@pytest.fixture(scope="session")
def _rendered_template(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream.render(runtime_wheel, tmp_path_factory.mktemp("upstream"))


@pytest.fixture
def template_project(_rendered_template: Path, tmp_path: Path) -> Path:
    """A copy of upstream's template project, to be changed at will."""
    return Path(shutil.copytree(_rendered_template, tmp_path / _rendered_template.name))


# With pytest-xdist the tests run in other processes, which hand over what they know when they end.
def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_MISSING] = sorted(judges.missing)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    judges.missing.update(getattr(node, "workeroutput", {}).get(_MISSING, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if judges.missing:
        terminalreporter.section("judges that were missed (make test-deps)")
        terminalreporter.line(" ".join(sorted(judges.missing)))
