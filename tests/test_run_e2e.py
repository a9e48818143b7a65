"""``test``: upstream's template project passes, what is changed is found, and upstream's own tester agrees."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pesto_repro.service.client import Client
from pesto_repro.service.suite import Examiner, Verdict, read_suite
from tests.e2e import REPOSITORY, add_settings, lock, run, update_json

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.usefixtures("sandboxes")]

RESOURCES = Path("pesto/tests/resources")
PASSED = "describe: passed\ntest_1: passed\ntest_2: passed\n3 passed\n"


def judged(project: Path, *arguments: str | Path, store: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """``test PROJECT *arguments``, whatever its exit code."""
    return run("test", project, *arguments, "--store", store, check=False, cwd=project, **how)


# -- the template, as upstream has it --


@pytest.mark.parametrize("options", [[], ["--ssl"]])
def test_the_template_passes(locked_once: Path, warm_store: Path, options: list[str]) -> None:
    """Without a word on stderr; --ssl takes the description for TLS."""
    done = judged(locked_once, *options, store=warm_store)
    assert (PASSED, 0) == (done.stdout, done.returncode), done.stderr


def test_the_template_passes_stateful(stateful: Path, warm_store: Path) -> None:
    """What the profile changes of the description is expected changed; the answers are a job's."""
    done = judged(stateful, "-p", "stateful", store=warm_store)
    assert (PASSED, 0) == (done.stdout, done.returncode), done.stderr


def test_the_template_passes_on_the_other_debian(template_project: Path, warm_store: Path) -> None:
    """bookworm, with another Python."""
    add_settings(template_project, '[base]\ndebian = "bookworm"\n')
    lock(template_project, store=warm_store)
    done = judged(template_project, store=warm_store)
    assert (PASSED, 0) == (done.stdout, done.returncode), done.stderr


@pytest.fixture(scope="session")
def stateful(locked_once: Path, warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project, locked with its profile "stateful", too; not to be changed."""
    project = Path(shutil.copytree(locked_once, tmp_path_factory.mktemp("stateful") / locked_once.name))
    lock(project, "-p", "stateful", store=warm_store)
    return project


# -- what is changed is found --


def test_a_changed_output_fails_and_is_told(locked_template: Path, warm_store: Path, tmp_path: Path) -> None:
    """Exit code 1; by path, with both values; pictures lie beside each other."""
    output = locked_template / RESOURCES / "test_1/output"
    (output / "number_output.float").write_text("2.5")
    (output / "extra.int").write_text("1")
    (output / "string_output.string").unlink()
    other = output / "image_list/1.png"
    shutil.copy(other, output / "image.png")
    junit = tmp_path / "report.xml"
    done = judged(locked_template, "--junit", junit, "-o", tmp_path / "pictures", store=warm_store)
    shown = tmp_path / "pictures/test_1"
    expected = f"""\
describe: passed
test_1: failed
  extra: is missing, expected 1
  image: is another picture than expected
    expected: {shown}/image.expected.png
    actual:   {shown}/image.actual.png
  number_output: expected 2.5, is 3.14159
  string_output: is not expected, is "some input value"
test_2: passed
2 passed, 1 failed
"""
    assert (expected, 1) == (done.stdout, done.returncode), done.stderr
    assert other.read_bytes() == (shown / "image.expected.png").read_bytes()
    assert (shown / "image.actual.png").read_bytes().startswith(b"\x89PNG")
    root = ElementTree.parse(junit).getroot()
    assert ("3", "1", "0") == tuple(root.get(key) for key in ("tests", "failures", "skipped"))
    failure = root.find(".//testcase[@name='test_1']/failure")
    assert failure is not None
    assert "extra: is missing, expected 1" == failure.get("message")


# -- an image --


@pytest.fixture(scope="module")
def layout(locked_once: Path, warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The template's image, in a layout."""
    place = f"oci:{tmp_path_factory.mktemp('layout') / 'image'}"
    run("build", locked_once, "-o", place, "--store", warm_store)
    return place


def test_an_image_is_tested_with_the_tests_of_the_current_folder(
    layout: str, locked_once: Path, warm_store: Path
) -> None:
    """And it says so."""
    done = run("test", layout, "--store", warm_store, cwd=locked_once)
    assert (PASSED, f"testing {layout} with the tests in {RESOURCES}\n") == (done.stdout, done.stderr)


def test_another_command_runs_in_the_image(layout: str, warm_store: Path) -> None:
    """Its streams and its exit code are the command's own, and its words nobody else's."""
    script = "import os, sys; print(os.getuid(), sys.prefix, os.environ['X'], sys.argv[1:]); sys.exit(7)"
    words = ["-e", "X=1", "--", "python3", "-c", script, "-p", "a", "b"]
    done = run("run", layout, "--store", warm_store, *words, check=False)
    assert ("65532 /opt/venv 1 ['-p', 'a', 'b']\n", "", 7) == (done.stdout, done.stderr, done.returncode)


def test_one_request_is_answered(layout: str, locked_once: Path, warm_store: Path, tmp_path: Path) -> None:
    """The file for the answer holds what the service said; without one it is on stdout, and nothing else is."""
    folder = locked_once / RESOURCES / "test_1"
    picture = base64.b64encode((folder / "input/image.png").read_bytes()).decode()
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"image": picture, "string_parameter": "a text"}))
    done = run("run", layout, "--process", payload, "--store", warm_store)
    assert "a text" == json.loads(done.stdout)["string_output"]
    assert "" == done.stderr
    payload.write_text("{}")
    done = run("run", layout, "--process", payload, "-o", tmp_path / "x", "--store", warm_store, check=False)
    assert (1, "") == (done.returncode, done.stdout)
    said = "error: POST /process: the service answered 500: Error while processing, see logs for more details : "
    assert f"{said}'image' is a required property" == done.stderr.splitlines()[-1]
    assert not (tmp_path / "x").exists()


# -- the end of a service --


def births() -> dict[int, tuple[int, str]]:
    """The processes of this machine: their parents and their times of birth, for numbers are used again."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            found[int(path.parent.name)] = (int(fields[1]), fields[19])
    return found


def family(pid: int) -> dict[int, str]:
    """The process *pid* and all below it, with their times of birth."""
    now, found = births(), [pid]
    for each in found:
        found += [child for child, (parent, _) in now.items() if parent == each]
    return {each: now[each][1] for each in found}


@pytest.mark.parametrize(
    ("engine", "number", "code"),
    [
        ("bwrap", signal.SIGKILL, -signal.SIGKILL),
        ("bwrap", signal.SIGINT, 130),
        ("self", signal.SIGKILL, -signal.SIGKILL),
        ("self", signal.SIGINT, 130),
    ],
)
def test_a_service_that_ends_leaves_nothing(
    layout: str, warm_store: Path, tmp_path: Path, engine: str, number: int, code: int
) -> None:
    """However it ends, no process, no mount and no file is left of it."""
    found = shutil.which("bwrap")
    if engine == "bwrap" and found is None:
        pytest.skip("no bwrap here")
    tools, scratch = tmp_path / "tools", tmp_path / "scratch"
    for each in (tools, scratch):
        each.mkdir()
    if engine == "bwrap" and found is not None:
        (tools / "bwrap").symlink_to(found)
    environment = {"PATH": str(tools), "TMPDIR": str(scratch)}
    with (
        run_service(layout, warm_store, env=environment) as (process, port),
        socket.create_connection(("127.0.0.1", port)),
    ):
        before = family(process.pid)
        process.send_signal(number)
        assert code == process.wait()
    assert len(before) > 2
    end = time.monotonic() + 60
    while (left := before.items() & {(pid, birth) for pid, (_, birth) in births().items()}) and time.monotonic() < end:
        time.sleep(0.05)
    assert set() == left
    assert str(warm_store) not in Path("/proc/mounts").read_text()
    assert [] == [*scratch.iterdir(), *(warm_store / "tmp").iterdir()]


# -- upstream agrees --

Change = Callable[[Path], object]


def rewrite(name: str, change: Callable[[Any], Any]) -> Change:
    """The change of a JSON file of the output."""
    return lambda output: (output / name).write_text(json.dumps(change(json.loads((output / name).read_text()))))


def retype(path: Path, suffix: str, text: str) -> None:
    """Another type of value in the place of *path*."""
    path.unlink()
    path.with_suffix(suffix).write_text(text)


def empty(folder: Path) -> None:
    for each in folder.iterdir():
        each.unlink()


def floats(value: Any) -> Any:
    """*value* with every whole number as a floating point number."""
    if isinstance(value, dict):
        return {key: floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [floats(each) for each in value]
    return float(value) if isinstance(value, int) else value


def swap(first: str, second: str) -> Change:
    """Two files of the output change places."""

    def change(output: Path) -> None:
        data = [(output / name).read_bytes() for name in (first, second)]
        (output / second).write_bytes(data[0])
        (output / first).write_bytes(data[1])

    return change


CHANGES: Mapping[str, Change] = {
    "test_same": lambda output: None,
    "test_number": lambda output: (output / "number_output.float").write_text("3.1415900001"),
    "test_number_equal": lambda output: (output / "number_output.float").write_text("3.141590"),
    "test_integer": lambda output: (output / "integer_output.integer").write_text("43"),
    "test_integer_as_number": lambda output: retype(output / "integer_output.integer", ".float", "42.0"),
    "test_integer_as_text": lambda output: retype(output / "integer_output.integer", ".string", "42"),
    "test_string": lambda output: (output / "string_output.string").write_text("some input value\n"),
    "test_missing": lambda output: (output / "string_output.string").unlink(),
    "test_extra": lambda output: (output / "more.json").write_text("null"),
    "test_areas_order": swap("areas/0.json", "areas/1.json"),
    "test_areas_none": lambda output: empty(output / "areas"),
    "test_area_floats": rewrite("areas/0.json", floats),
    "test_area_less": lambda output: (output / "areas/1.json").unlink(),
    "test_area_more": lambda output: (output / "areas/2.json").write_text("{}"),
    "test_area_corners": rewrite("areas/0.json", lambda area: {**area, "coordinates": [area["coordinates"][0][::-1]]}),
    "test_pictures_order": swap("image_list/0.png", "image_list/1.png"),
    "test_picture": swap("image.png", "image_list/1.png"),
    "test_picture_more": lambda output: shutil.copy(output / "image.png", output / "image_list/2.png"),
    "test_dict_order": rewrite("dict_output.json", lambda value: dict(reversed(value.items()))),
    "test_dict": rewrite("dict_output.json", lambda value: {**value, "object": {}}),
    "test_features_order": rewrite("geojson.json", lambda value: {**value, "features": value["features"][::-1]}),
    "test_features_less": rewrite("geojson.json", lambda value: {**value, "features": value["features"][1:]}),
    "test_property": rewrite("geojson.json", lambda value: {**value, "type": "FeatureCollection"}),
}
DIFFERENT = {
    "test_number",
    "test_integer",
    "test_integer_as_text",
    "test_string",
    "test_missing",
    "test_extra",
    "test_area_more",
    "test_area_corners",
    "test_picture",
    "test_picture_more",
    "test_dict",
    "test_property",
}


@pytest.mark.parametrize("profiles", [(), ("stateful",)])
def test_upstream_s_tester_agrees(
    stateful: Path, warm_store: Path, tester: Path, tmp_path: Path, profiles: tuple[str, ...]
) -> None:
    """On the same service, test by test, with what is expected changed in every way."""
    changed = json.loads((stateful / "pesto/api/description.stateful.json").read_text()) if profiles else {}
    resources = tmp_path / "resources"
    for name, change in CHANGES.items():
        shutil.copytree(stateful / RESOURCES / "test_1", resources / name)
        change(resources / name / "output")
    shutil.copy(stateful / RESOURCES / "expected_describe.json", resources)
    update_json(resources / "expected_describe.json", **changed)
    words = ["-p", *profiles] if profiles else []
    with service(stateful, warm_store, *words, "--mount", f"{resources}:{resources}") as port:
        theirs = upstream_s(resources, port, tester, tmp_path)
        ours = own(resources, port, tester)
        for name in CHANGES:
            shutil.rmtree(resources / name)
        update_json(resources / "expected_describe.json", title="another")
        described = [upstream_s(resources, port, tester, tmp_path), own(resources, port, tester)]
    assert theirs == ours
    assert [{"describe": Verdict.FAILED}] * 2 == described
    assert DIFFERENT == {name for name, verdict in ours.items() if verdict is Verdict.FAILED}


def upstream_s(resources: Path, port: int, tester: Path, home: Path) -> dict[str, Verdict]:
    """Upstream's verdicts."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tester), "HOME": str(home), "TMPDIR": str(home)}
    script = str(REPOSITORY / "tests/upstream_tester.py")
    command = [sys.executable, "-S", script, str(resources), str(port)]
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=empty, check=False)
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    return {name: Verdict.PASSED if said == {"NoDifference": True} else Verdict.FAILED for name, said in found.items()}


def own(resources: Path, port: int, tester: Path) -> dict[str, Verdict]:
    """Ours; the files are where the service sees them, too."""

    def decode(data: list[bytes]) -> list[Mapping[str, Any]]:
        asked = json.dumps([base64.b64encode(each).decode() for each in data])
        environment = {"PATH": os.defpath, "PYTHONPATH": str(tester)}
        command = [sys.executable, "-S", str(REPOSITORY / "pesto_repro/service/picture_prints.py")]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, env=environment, check=True)
        found: list[Mapping[str, Any]] = json.loads(done.stdout)
        return found

    client = Client(lambda patience: socket.create_connection(("127.0.0.1", port), patience))
    suite = read_suite(resources)
    results = Examiner(client, lambda file: f"file://{file.path}", decode).run(suite)
    return {each.name: each.verdict for each in results}


@contextmanager
def service(project: Path, store: Path, *arguments: str) -> Iterator[int]:
    """The service of *project*, run by the command line: its port."""
    with run_service(project, store, *arguments) as (process, port):
        yield port
        process.terminate()
    assert 143 == process.returncode  # 128 and SIGTERM


@contextmanager
def run_service(
    target: str | Path, store: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``run TARGET *arguments``: its process, and the port of the service. It is ended if it is not."""
    words = ["run", target, *arguments, "--port", "0", "-q", "--store", store]
    command = [sys.executable, "-m", "pesto_repro", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    # What is started in the background of a shell ignores Ctrl-C, and so does all that it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heed) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline()
            assert url, "the service did not start"
            yield process, int(url.rpartition(":")[2])
        finally:
            if process.poll() is None:
                process.terminate()
