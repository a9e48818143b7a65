"""A project's tests, as PESTO lays them out, and what a service makes of them.

::

    pesto/tests/resources/expected_describe.json       what the service says of itself
    pesto/tests/resources/expected_describe.ssl.json   ... under TLS; else the above, with https in its links
    pesto/tests/resources/test_*/{input,output}/       what is sent, what is expected

Profiles: ``expected_describe.<profile>.json`` updates it, at the root as all documents; without such a file a profile
that changes description.json is expected to change the same values of what the service says.

Unlike upstream's tester this one really checks the answer against the output schema, and a request that the service
refuses is a difference of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pesto_repro.errors import PestoError
from pesto_repro.project.checks import violations
from pesto_repro.project.documents import dotted
from pesto_repro.service.client import Client, ServiceError
from pesto_repro.service.compare import Difference, as_json, compare
from pesto_repro.service.payload import File, Value, load_object, sendable
from pesto_repro.service.pictures import Decode, same_in

DESCRIBE = "describe"
"""The name of the first test."""
_EXPECTED = "expected_describe"
_LINKS = "_links"


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests in the folder *resources*: the *description* that is expected, if one is, and the folders *tests*."""

    resources: Path
    description: dict[str, Any] | None
    tests: tuple[Path, ...]


class Verdict(StrEnum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of the test *name*: values that differ, and other *problems*, one line each."""

    name: str
    differences: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()
    skipped: str | None = None

    @property
    def verdict(self) -> Verdict:
        if self.skipped is not None:
            return Verdict.SKIPPED
        failed = self.problems or any(each.counts for each in self.differences)
        return Verdict.FAILED if failed else Verdict.PASSED


def read_suite(
    resources: Path, profiles: Sequence[str] = (), changed: Mapping[str, Any] | None = None, *, tls: bool = False
) -> Suite:
    """The tests in *resources*. *changed* is what the profiles change of description.json. Raises PestoError."""
    if not resources.is_dir():
        raise PestoError(f"there are no tests: {resources} is no folder", "say where they are with --resources DIR")
    description = _description(resources, profiles, changed or {}, tls)
    tests = tuple(sorted(each for each in resources.iterdir() if each.is_dir() and "test_" in each.name))
    if description is None and not tests:
        raise PestoError(
            f"there are no tests in {resources}", "it should have expected_describe.json and folders test_*"
        )
    return Suite(resources, description, tests)


@dataclass(frozen=True, slots=True)
class Examiner:
    """Tests the service that *client* asks. *address* is how it is told of a file, *decode* decodes pictures.

    *anywhere*: it does not know the address that we ask it at, and of its links only the paths are compared.
    """

    client: Client
    address: Callable[[File], str]
    decode: Decode
    anywhere: bool = False

    def run(self, suite: Suite) -> Iterator[Result]:
        """The result of each test of *suite*, the description's first. Raises ServiceError if there is none."""
        described = self.client.describe()
        yield self._described(suite.description, described)
        for folder in suite.tests:
            yield self._tested(folder, described)

    def _described(self, expected: dict[str, Any] | None, actual: dict[str, Any]) -> Result:
        if expected is None:
            return Result(DESCRIBE, skipped=f"there is no {_EXPECTED}.json")
        if self.anywhere:
            expected, actual = _paths_only(expected), _paths_only(actual)
        return Result(DESCRIBE, tuple(compare(expected, actual, lambda file, data: False)))

    def _tested(self, folder: Path, described: Mapping[str, Any]) -> Result:
        expected = load_object(folder / "output")
        payload = sendable(load_object(folder / "input"), self.address)
        refused = _broken("input", described, payload)
        if refused:
            return Result(folder.name, problems=refused)
        try:
            answer = self.client.process(payload, described)
        except ServiceError as error:
            return Result(folder.name, problems=(error.message,))
        return Result(folder.name, tuple(self._differences(expected, answer)), _broken("output", described, answer))

    def _differences(self, expected: Value, answer: Any) -> Iterator[Difference]:
        return compare(expected, answer, same_in(expected, answer, self.decode))


def _broken(side: str, described: Mapping[str, Any], value: Any) -> tuple[str, ...]:
    """How *value* breaks the schema of what is sent ("input") or answered ("output")."""
    found = violations(described.get(side, {}), as_json(value))
    return tuple(f"{side} schema: {': '.join(filter(None, (dotted(path), message)))}" for path, message in found)


def _description(
    resources: Path, profiles: Sequence[str], changed: Mapping[str, Any], tls: bool
) -> dict[str, Any] | None:
    secure = sorted(resources.glob("*describe.ssl.json")) if tls else []
    plain = sorted(resources.glob("*describe.json"))
    if not secure and not plain:
        return None
    expected = _read(secure[-1]) if secure else _scheme(_read(plain[-1]), tls)  # PESTO: of several the last
    own = [path for each in profiles if (path := resources / f"{_EXPECTED}.{each}.json").exists()]
    if own:
        for path in own:
            expected |= _scheme(_read(path), tls)
        return expected
    return {**expected, **{key: value for key, value in changed.items() if key in expected}}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PestoError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise PestoError(f"{path} holds no JSON object")
    return found


def _scheme(expected: dict[str, Any], tls: bool) -> dict[str, Any]:
    """*expected* with the links of a service under TLS."""
    return _with_links(expected, lambda link: "https:" + link.removeprefix("http:") if tls else link)


def _paths_only(described: Mapping[str, Any]) -> dict[str, Any]:
    return _with_links(described, lambda link: "/api/" + urlsplit(link).path.partition("/api/")[2])


def _with_links(described: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    links = described.get(_LINKS)
    if not isinstance(links, dict):
        return dict(described)
    changed = {
        name: {**each, "href": change(each["href"])} if isinstance(each, dict) and "href" in each else each
        for name, each in links.items()
    }
    return {**described, _LINKS: changed}
