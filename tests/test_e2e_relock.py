"""Locking again: what stays pinned, what is asked anew, and what a changed project must not slip past."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tomli

from tests.e2e import lock, run, update_json
from tests.python_index import digest_of_file, make_wheel
from tests.small_project import Small, make_small


@pytest.fixture(scope="module")
def small_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked; not to be changed."""
    return make_small(tmp_path_factory.mktemp("relock"), runtime_wheel)


@pytest.fixture
def small(small_once: Small, tmp_path: Path) -> Small:
    """A copy of the small project, locked."""
    shutil.copytree(small_once.root.parent, tmp_path, dirs_exist_ok=True)
    return Small(tmp_path / "small", tmp_path / "store", tmp_path / "wheels")


def relock(small: Small, *arguments: str) -> dict[str, Any]:
    """Lock again; the lock's document."""
    lock(small.root, *arguments, store=small.store, env=small.env)
    return locked(small)


def locked(small: Small) -> dict[str, Any]:
    return tomli.loads(small.lockfile.read_text())


def failing(small: Small, *arguments: str) -> str:
    """The stderr of a command on the small project that must fail, and the lock stays as it was."""
    before = small.lockfile.read_bytes()
    done = run(arguments[0], small.root, *arguments[1:], "--store", small.store, env=small.env, check=False)
    assert (1, "") == (done.returncode, done.stdout), done.stderr
    assert before == small.lockfile.read_bytes()
    return done.stderr


def own_wheel(small: Small, content: bytes) -> Path:
    """The wheel that the project brings itself, with *content* in it."""
    return make_wheel(small.root / "libs", "own-1.0-py3-none-any.whl", {"own.py": content})


def require_own_wheel(small: Small) -> None:
    """Name it in requirements.json."""
    document = json.loads(small.requirements.read_text())
    entry = {"from": "libs/own-1.0-py3-none-any.whl", "type": "pip"}
    update_json(small.requirements, requirements=document["requirements"] | {"own": entry})


def pin_of(small: Small, name: str) -> dict[str, Any]:
    (found,) = [each for each in locked(small)["platforms"][0]["packages"] if each["name"] == name]
    return dict(found)


def test_a_rebuilt_wheel_of_the_project_is_pinned_anew(small: Small) -> None:
    """Same name, same version, other bytes: the lock and the image have the new ones."""
    own_wheel(small, b"OLD = 1\n")
    require_own_wheel(small)
    relock(small)
    small.build()
    rebuilt = own_wheel(small, b"NEW = 1\n")
    assert "resources are not what was locked:\n  requirements.own: " in failing(small, "build")
    relock(small)
    assert digest_of_file(rebuilt).hex == pin_of(small, "own")["wheel"]["sha256"]
    assert "own" == pin_of(small, "own")["resource"]
    layers = small.build()["platforms"][0]["layers"]
    (name,) = [each["name"] for each in layers if not each["cached"] and each["kind"] == "wheels"]
    assert "own 1.0" in name.split(", ")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a folder with one file, model.bin."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/model.bin"
        server.shutdown()


def test_a_changed_declared_digest_counts(small: Small, served: str) -> None:
    """It is drift for ``build`` and ``--check``, and ``lock`` holds the download against it."""
    right, wrong = sha256(b"weights").hexdigest(), "0" * 64
    document = json.loads(small.requirements.read_text())

    def declare(digest: str) -> None:
        entry = {"from": served, "to": "/opt/model.bin", "sha256": digest}
        update_json(small.requirements, requirements=document["requirements"] | {"far": entry})

    declare(right)
    relock(small)
    declare(wrong)
    told = f"requirements.far was {served} -> /opt/model.bin with sha256 {right}, is "
    assert told in failing(small, "build")
    assert told in failing(small, "lock", "--check")
    assert f"requirements.far: {served} has sha256 {right}, declared is {wrong}" in failing(small, "lock")


def test_a_platform_that_was_added_is_drift(small: Small) -> None:
    """``build`` does not leave it out silently."""
    with small.settings.open("a") as settings:
        settings.write('[image]\nplatforms = ["linux/amd64", "linux/arm64"]\n')
    assert "linux/arm64 was added to image.platforms" in failing(small, "build", "--offline")
    assert "linux/arm64 was added to image.platforms" in failing(small, "lock", "--check")


def test_the_order_of_environments_is_locked(small: Small) -> None:
    """A value may refer to those before it, so another order may be another image."""
    update_json(small.requirements, environments={"A": "1", "B": "$A"})
    assert ["A=1", "B=$A"] == relock(small)["input"]["environments"]
    update_json(small.requirements, environments={"B": "$A", "A": "1"})
    assert "the order of environments was A B, is B A" in failing(small, "build")


def test_a_merge_policy_of_the_command_line_is_kept(small: Small) -> None:
    """``build``, ``--check`` and the next ``lock`` go by it, until it is chosen otherwise."""
    assert ("deep", ["merge"]) == _policy(relock(small, "--merge", "deep"))
    small.build()
    run("lock", small.root, "--check", "--store", small.store)
    assert ("deep", ["merge"]) == _policy(relock(small))
    assert ("root", []) == _policy(relock(small, "--merge", "root"))


def _policy(document: dict[str, Any]) -> tuple[str, list[str]]:
    return document["input"]["merge"], document["input"].get("overrides", [])


def test_source_date_epoch_does_not_stay(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts when it is set; what is resolved later without it is as old as what is pinned."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "4000000000")
    assert "2096-10-02T07:06:40Z" == relock(small)["assembly"]["epoch"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert "2096-10-02T07:06:40Z" == relock(small)["assembly"]["epoch"]
    (small.root / "requirements.txt").write_text("alpha==1.0\n")
    assert relock(small)["assembly"]["epoch"] < "2096"


def test_a_package_to_renew_that_is_not_there(small: Small) -> None:
    """A slip, told with what was perhaps meant."""
    assert (
        'error: -P alfa: no such package is in the lock; did you mean "alpha"?\n'
        "hint: -P renews the pin of a package that is there; to add one, require it\n"
    ) == failing(small, "lock", "-P", "alfa")


def test_only_the_package_named_is_renewed(small: Small) -> None:
    """Its newest version comes in; everything else stays, although there is something newer."""
    make_wheel(small.wheels, "alpha-1.1-py3-none-any.whl", {"alpha.py": b""})
    make_wheel(small.wheels, "beta-2.1-py3-none-any.whl", {"beta.py": b""})
    relock(small)
    assert ("1.0", "2.0") == (pin_of(small, "alpha")["version"], pin_of(small, "beta")["version"])
    relock(small, "-P", "Alpha")
    assert ("1.1", "2.0") == (pin_of(small, "alpha")["version"], pin_of(small, "beta")["version"])
