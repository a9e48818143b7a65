"""Asking a service, and testing it: against one in memory."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.service.client import Client, ServiceError, remote
from pesto_repro.service.compare import Blob, Difference, Kind
from pesto_repro.service.payload import inline
from pesto_repro.service.suite import Examiner, Result, Suite, Verdict, read_suite
from tests.e2e import EXAMPLES, run
from tests.service_twin import Twin, serving


def client_of(url: str) -> Client:
    """Asks as upstream's tester does, wherever the service is."""
    port = urlsplit(url).port
    return Client(lambda patience: socket.create_connection(("127.0.0.1", port), patience))


def process(twin: Twin, payload: Mapping[str, Any]) -> Any:
    with serving(twin) as url:
        client = client_of(url)
        return client.process(payload, client.describe())


def no_decoder(data: list[bytes]) -> list[Mapping[str, Any]]:
    raise AssertionError("nothing needs to be decoded")


def test_a_service_is_asked_as_upstream_s_tester_asks() -> None:
    """Its links are those that every expected_describe.json has."""
    twin = Twin()
    with serving(twin) as url:
        described = client_of(url).describe()
    assert "http://localhost:4000/api/v1/describe" == described["_links"]["self"]["href"]
    assert ["localhost:4000"] == twin.hosts


def test_a_far_service_is_asked_at_its_own_address() -> None:
    """What stands before it finds it by that."""
    twin = Twin()
    with serving(twin) as url:
        remote(url).wait_healthy(5)
    assert [urlsplit(url).netloc] == twin.hosts


def test_a_stateless_service_answers_at_once() -> None:
    """With JSON."""
    assert {"x": 2} == process(Twin(lambda payload: {"x": payload["x"] + 1}), {"x": 1})


def test_a_busy_service_is_asked_again() -> None:
    """It computes one request at a time and refuses others."""
    twin = Twin(busy=2)
    assert {"x": 1} == process(twin, {"x": 1})
    assert [{"x": 1}] == twin.received


def test_an_asynchronous_service_is_asked_until_its_job_is_done() -> None:
    """Links are followed by what they name, whatever host they tell of; numbers come as text; lists in order."""
    output = {"properties": {"number": {"type": "number"}, "text": {"type": "string"}}}
    results = {
        "number": ("text/plain", b"1.5"),
        "text": ("text/plain", b"1.5"),
        "object": ("application/json", b'{"a": [1]}'),
        "picture": ("image/png", b"\x89PNG"),
        **{f"list{index}": ("application/json", str(index).encode()) for index in range(11)},
    }
    twin = Twin(asynchronous=True, polls=2, results=results, output=output)
    expected = {
        "number": 1.5,
        "text": "1.5",
        "object": {"a": [1]},
        "picture": Blob(b"\x89PNG"),
        "list": list(range(11)),
    }
    assert expected == process(twin, {})


def test_a_job_that_does_not_end_is_waited_for_no_longer_than_asked() -> None:
    """The time for an answer is that of its job, too."""
    with serving(Twin(asynchronous=True, polls=1 << 30)) as url:
        client = replace(client_of(url), timeout=0.5)
        with pytest.raises(ServiceError) as caught:
            client.process({}, client.describe())
    assert "job 7 is not done after 0.5 seconds" == caught.value.message


def test_an_error_of_the_service_is_told_in_its_words() -> None:
    """The first line of them: the rest is in its log."""

    def answer(payload: dict[str, Any]) -> Any:
        raise ValueError("there is no x\nand more")

    with pytest.raises(ServiceError) as caught:
        process(Twin(answer), {})
    said = "Error while processing, see logs for more details : there is no x"
    assert f"POST /process: the service answered 500: {said}" == caught.value.message


def test_a_service_that_ended_is_told_as_such() -> None:
    """Nobody waits for it."""

    def refuse(patience: float | None) -> socket.socket:
        raise ConnectionRefusedError("refused")

    client = Client(refuse, ended=lambda: "the service ended with exit code 3")
    for ask in (lambda: client.wait_healthy(1000), client.describe):
        with pytest.raises(ServiceError) as caught:
            ask()
        assert "the service ended with exit code 3" == caught.value.message


def test_patience_ends() -> None:
    """With the time that was given."""

    def refuse(patience: float | None) -> socket.socket:
        raise ConnectionRefusedError("refused")

    with pytest.raises(ServiceError) as caught:
        Client(refuse).wait_healthy(0)
    assert "the service is not healthy after 0 seconds" == caught.value.message


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://x:port", ""])
def test_an_address_must_be_one(url: str) -> None:
    """The hint shows how one looks."""
    with pytest.raises(PestoError) as caught:
        remote(url)
    assert f"{url!r} is no address of a service" == caught.value.message


# -- a suite of tests --


def suite(folder: Path, files: Mapping[str, Any]) -> Path:
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return folder


def results(twin: Twin, found: Suite) -> list[Result]:
    with serving(twin) as url:
        return list(Examiner(client_of(url), inline, no_decoder).run(found))


def described(twin: Twin, **changes: Any) -> dict[str, Any]:
    return {**twin.describe("http://localhost:4000"), **changes}


def test_what_a_service_should_say_and_answer_is_compared(tmp_path: Path) -> None:
    """Test by test, in the order of their names."""
    twin = Twin(lambda payload: {"y": payload["x"]})
    files = {
        "expected_describe.json": described(twin, name="other"),
        "test_b/input/x.json": 1,
        "test_b/output/y.json": 1,
        "test_a/input/x.json": 1,
        "test_a/output/y.json": 2,
        "notes/x.json": 1,
    }
    expected = [
        Result("describe", (Difference(("name",), Kind.UNEQUAL, "other", "twin"),)),
        Result("test_a", (Difference(("y",), Kind.UNEQUAL, 2, 1),)),
        Result("test_b"),
    ]
    found = results(twin, read_suite(suite(tmp_path, files)))
    assert expected == found
    assert [Verdict.FAILED, Verdict.FAILED, Verdict.PASSED] == [each.verdict for each in found]


def test_both_schemas_are_checked(tmp_path: Path) -> None:
    """A request that breaks the schema is not sent; an answer that breaks it fails even if it is the expected one."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    twin = Twin(lambda payload: {"x": "text"}, input=schema, output=schema)
    files = {"test_in/input/x.json": "no", "test_out/input/x.json": 1, "test_out/output/x.json": "text"}
    expected = [
        Result("describe", skipped="there is no expected_describe.json"),
        Result("test_in", problems=("input schema: x: 'no' is not of type 'integer'",)),
        Result("test_out", problems=("output schema: x: 'text' is not of type 'integer'",)),
    ]
    assert expected == results(twin, read_suite(suite(tmp_path, files)))
    assert [{"x": 1}] == twin.received


LINKS = {"_links": {"self": {"href": "http://localhost:4000/api/v1/describe"}}}


def test_tls_and_profiles_choose_what_is_expected_of_the_description(tmp_path: Path) -> None:
    """A document of its own for TLS, else https in the links; a profile's, else what the profile changes."""
    suite(tmp_path, {"expected_describe.json": {"name": "plain", "other": 1, **LINKS}})
    tls = read_suite(tmp_path, tls=True).description
    assert tls is not None
    assert "https://localhost:4000/api/v1/describe" == tls["_links"]["self"]["href"]
    changed = {"name": "changed", "licence": "not described"}
    assert {"name": "changed", "other": 1, **LINKS} == read_suite(tmp_path, ["p"], changed).description
    suite(tmp_path, {"expected_describe.p.json": {"other": 2}, "expected_describe.ssl.json": {"name": "ssl"}})
    assert {"name": "plain", "other": 2, **LINKS} == read_suite(tmp_path, ["p"], changed).description
    assert {"name": "ssl"} == read_suite(tmp_path, tls=True).description


def test_a_folder_without_tests_is_an_error(tmp_path: Path) -> None:
    """As is none."""
    for folder, said in ((tmp_path, "there are no tests in"), (tmp_path / "x", "there are no tests:")):
        with pytest.raises(PestoError) as caught:
            read_suite(folder)
        assert caught.value.message.startswith(said)


# -- the command, on a service that runs elsewhere --


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The example, with a description that a twin has."""
    project = Path(shutil.copytree(EXAMPLES / "hello-service", tmp_path / "hello"))
    resources = project / "pesto/tests/resources"
    (resources / "expected_describe.json").write_text(json.dumps(described(Twin())))
    return project


def greet(payload: dict[str, Any]) -> dict[str, Any]:
    text = " ".join([f"Hello, {payload['text']}!"] * payload.get("times", 1))
    return {"greeting": text, "profile": "default", "words": len(payload["text"].split())}


def test_a_service_elsewhere_is_tested(hello: Path) -> None:
    """Links are compared by their paths; no image is needed, nothing is started."""
    with serving(Twin(greet)) as url:
        done = run("test", hello, cwd=hello, env={"PESTO_REMOTE_SERVICE_URL": url})
    assert "describe: passed\ntest_1: passed\ntest_2: passed\n3 passed\n" == done.stdout
    assert f"testing the service at {url} ($PESTO_REMOTE_SERVICE_URL)\n" == done.stderr


def test_a_difference_is_an_exit_code(hello: Path) -> None:
    """1, with the verdict on stdout, as JSON if asked for."""
    with serving(Twin(lambda payload: {**greet(payload), "words": 0})) as url:
        done = run("test", hello, "--json", cwd=hello, env={"PESTO_REMOTE_SERVICE_URL": url}, check=False)
    found = json.loads(done.stdout)
    assert (1, url, False) == (done.returncode, found["service"], found["passed"])
    assert ["passed", "failed", "failed"] == [each["verdict"] for each in found["tests"]]
    words = {"path": ["words"], "kind": "unequal", "counts": True, "expected": 1, "actual": 0}
    assert [words] == found["tests"][1]["differences"]


def test_a_service_that_is_not_there_is_an_error(hello: Path) -> None:
    """Not a difference."""
    words: list[str | Path] = ["test", hello, "--start-timeout", "0"]
    done = run(*words, cwd=hello, env={"PESTO_REMOTE_SERVICE_URL": "http://127.0.0.1:1"}, check=False)
    assert (1, "") == (done.returncode, done.stdout)
    assert "error: the service is not healthy after 0 seconds\nhint: see its log\n" in done.stderr


def test_an_image_has_no_tests_of_its_own(tmp_path: Path) -> None:
    """They must be somewhere."""
    done = run("test", "x.tar", cwd=tmp_path, check=False)
    expected = (
        "error: x.tar is an image, and the current folder is no PESTO project with tests for it\n"
        "hint: name the folder of the tests with --resources, or go to the project's folder\n"
    )
    assert (1, expected) == (done.returncode, done.stderr)


# -- the command line of run --


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-p", "x"], 1, "error: x.tar is an image: its profiles were chosen when it was built"),
        (["-e", "X"], 2, "Error: -e X: it should be NAME=VALUE"),
        (["--mount", "x"], 2, "Error: --mount x: it should be DIR:/TARGET, DIR:/TARGET:ro or DIR:/TARGET:rw"),
        (["--process", "absent.json"], 1, "error: absent.json cannot be read: No such file or directory"),
        (["--process", "list.json"], 1, "error: list.json holds no JSON object"),
        (["--process", "list.json", "--", "ls"], 2, "Error: --process and a command exclude each other"),
    ],
)
def test_words_that_cannot_be(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    """Each is told before anything is started."""
    (tmp_path / "list.json").write_text("[]")
    done = run("run", "x.tar", *words, cwd=tmp_path, check=False)
    assert code == done.returncode
    assert said in done.stderr.splitlines()
