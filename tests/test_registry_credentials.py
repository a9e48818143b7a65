"""Credentials: found where docker and podman keep them, shown nowhere, written so that both read them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pesto_repro.cli.registry_access import access_from_environment
from pesto_repro.errors import PestoError
from pesto_repro.registry.access import Access, Credential
from pesto_repro.registry.credentials import erase, find, store
from pesto_repro.registry.http import DEFAULT_HOST, DEFAULT_NAMES
from tests.judges import judge
from tests.registries import CANARY, USER, LiveRegistry

HOST = "registry.example:5000"
ADA = Credential(USER, CANARY)


def auth(user: str = USER, password: str = CANARY) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def written(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def helper(folder: Path, name: str, *lines: str) -> None:
    """A credential helper: a shell script on the PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH, for helpers."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"auths": {HOST: {"auth": auth()}}}, ADA),
        ({"auths": {f"https://{HOST}/v1/": {"auth": auth()}}}, ADA),
        ({"auths": {HOST: {"auth": auth("", ""), "identitytoken": "t"}}}, Credential(identity_token="t")),
        ({"auths": {HOST: {}}}, None),
        ({"auths": {f"{HOST}/team": {"auth": auth()}}}, None),
        ({"auths": {"registry.example": {"auth": auth()}}}, None),
        ({"auths": None, "credHelpers": None}, None),
        ({}, None),
    ],
)
def test_reads_entries(tmp_path: Path, document: object, expected: Credential | None) -> None:
    """A host's entry is found by its very name and port, in old and new forms."""
    assert expected == find([tmp_path / "absent", written(tmp_path / "auth.json", document)], HOST)


def test_the_default_registry_has_many_names(tmp_path: Path) -> None:
    """docker and podman write it differently; both are read, and one of them is written that both read."""
    for name in (DEFAULT_HOST, *DEFAULT_NAMES):
        assert ADA == find([written(tmp_path / "auth.json", {"auths": {name: {"auth": auth()}}})], DEFAULT_HOST)
    store(tmp_path / "auth.json", DEFAULT_HOST, ADA)
    assert {"auths": {DEFAULT_NAMES[-1]: {"auth": auth()}}} == json.loads((tmp_path / "auth.json").read_text())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"auths": {"' + CANARY, "it is no JSON"),
        ("[]", "it is no JSON object"),
        (json.dumps({"auths": {HOST: CANARY}}), "auths: Input should be a valid dictionary or instance of _Entry"),
        (json.dumps({"auths": {HOST: {"auth": CANARY}}}), f"the auth of {HOST} is no base64 of USER:PASSWORD"),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error_without_its_content(tmp_path: Path, text: str, reason: str) -> None:
    """The file is named; what it says is not."""
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(PestoError) as caught:
        find([path], HOST)
    assert f"{path} is no file of credentials: {reason}" == caught.value.message


def test_a_helper_is_asked_for_its_own_host_only(tmp_path: Path, programs: Path) -> None:
    """credHelpers comes before credsStore and inline entries; the host is on its stdin."""
    answer = json.dumps({"ServerURL": HOST, "Username": USER, "Secret": CANARY})
    helper(programs, "mine", f'read host; [ "$1 $host" = "get {HOST}" ] || exit 3', f"echo '{answer}'")
    helper(programs, "other", 'echo "credentials not found in native keychain"; exit 1')
    document = {"credHelpers": {HOST: "mine"}, "credsStore": "other", "auths": {"b.example": {"auth": auth("b", "b")}}}
    path = written(tmp_path / "auth.json", document)
    assert [ADA, Credential("b", "b"), None] == [find([path], each) for each in (HOST, "b.example", "c.example")]


def test_a_helper_may_give_an_identity_token(tmp_path: Path, programs: Path) -> None:
    """docker-credential-helpers: the user name <token> marks it."""
    answer = json.dumps({"Username": "<token>", "Secret": "t"})
    helper(programs, "mine", f"echo '{answer}'")
    path = written(tmp_path / "auth.json", {"credsStore": "mine"})
    assert Credential(identity_token="t") == find([path], HOST)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("gone", None, "the credential helper docker-credential-gone is not on the PATH"),
        ("bad", [f"echo {CANARY}", "exit 7"], "the credential helper docker-credential-bad fails with exit code 7"),
        ("odd", [f"echo {CANARY}"], "docker-credential-odd answers something that is no credential"),
        ("../evil", None, '"../evil" is no name of a credential helper'),
    ],
)
def test_a_helper_that_fails_is_an_error_without_its_words(
    tmp_path: Path, programs: Path, name: str, lines: list[str] | None, message: str
) -> None:
    """Whatever it printed may be a secret."""
    if lines is not None:
        helper(programs, name, *lines)
    with pytest.raises(PestoError) as caught:
        find([written(tmp_path / "auth.json", {"credHelpers": {HOST: name}})], HOST)
    assert message == caught.value.message


def test_a_credential_is_stored_beside_what_is_there(tmp_path: Path) -> None:
    """Mode 0600; other entries and keys stay; a link stays a link; the old form of the entry goes."""
    document = {"auths": {"b.example": {"auth": "eA=="}, f"https://{HOST}/v1/": {"auth": "eA=="}}, "psFormat": "x"}
    path, link = written(tmp_path / "real.json", document), tmp_path / "auth.json"
    path.chmod(0o644)
    link.symlink_to(path)
    store(link, HOST, ADA)
    expected = {"auths": {"b.example": {"auth": "eA=="}, HOST: {"auth": auth()}}, "psFormat": "x"}
    assert (expected, 0o600, True) == (json.loads(path.read_text()), path.stat().st_mode & 0o777, link.is_symlink())
    assert ["auth.json", "real.json"] == sorted(each.name for each in tmp_path.iterdir())


def test_what_was_stored_is_found_and_erased(tmp_path: Path) -> None:
    """A round trip through a folder that was not there."""
    path = tmp_path / "new/containers/auth.json"
    store(path, HOST, ADA)
    assert (ADA, 0o600, 0o700) == (
        find([path], HOST),
        path.stat().st_mode & 0o777,
        path.parent.stat().st_mode & 0o777,
    )
    assert [True, False] == [erase(path, HOST), erase(path, HOST)]
    assert {"auths": {}} == json.loads(path.read_text())


def test_a_helper_stores_and_erases(tmp_path: Path, programs: Path) -> None:
    """Where the file names a helper the password goes there, not into the file."""
    kept = tmp_path / "kept"
    helper(
        programs,
        "mine",
        f'case "$1" in store) cat > {kept};; get) cat {kept} 2>/dev/null ||',
        f' {{ echo "credentials not found"; exit 1; }};; erase) rm {kept};; esac',
    )
    path = written(tmp_path / "auth.json", {"credsStore": "mine"})
    store(path, HOST, ADA)
    assert {"credsStore": "mine"} == json.loads(path.read_text())
    assert (ADA, True, None, False) == (find([path], HOST), erase(path, HOST), find([path], HOST), erase(path, HOST))


# -- the environment -----------------------------------------------------------------------------------------------


def known(env: Mapping[str, str], home: Path, host: str = HOST, target: str | None = None) -> Credential | None:
    return access_from_environment(env, home, target).credentials(host)


def test_files_are_asked_in_podmans_order(tmp_path: Path) -> None:
    """REGISTRY_AUTH_FILE alone; else the runtime folder, the configuration, docker's own."""
    places = {
        "one": tmp_path / "one.json",
        "two": tmp_path / "run/containers/auth.json",
        "three": tmp_path / ".config/containers/auth.json",
        "four": tmp_path / "docker/config.json",
        "five": tmp_path / ".docker/config.json",
    }
    for name, path in places.items():
        written(path, {"auths": {HOST: {"auth": auth(name)}}})
    runtime, docker = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}, {"DOCKER_CONFIG": str(tmp_path / "docker")}
    found = []
    for env in ({"REGISTRY_AUTH_FILE": str(places["one"]), **runtime}, {**runtime, **docker}, docker):
        found.append(known(env, tmp_path))
    places["three"].unlink()
    found += [known(docker, tmp_path), known({}, tmp_path)]
    assert [*"one two three four five".split()] == [each.user for each in found if each is not None]


def test_an_explicit_credential_is_for_one_host(tmp_path: Path) -> None:
    """The registry that is named, else the one that is pushed to; to all others we are who the files say."""
    written(tmp_path / ".docker/config.json", {"auths": {"b.example": {"auth": auth("b", "b")}}})
    env = {"PESTO_REPRO_REGISTRY_USER": USER, "PESTO_REPRO_REGISTRY_PASSWORD": CANARY}
    assert ADA == known(env, tmp_path, target=HOST)
    assert Credential("b", "b") == known(env, tmp_path, "b.example", target=HOST)
    assert None is known({**env, "PESTO_REPRO_REGISTRY_HOST": HOST}, tmp_path, "c.example", target="c.example")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"PESTO_REPRO_REGISTRY_USER": USER},
            "PESTO_REPRO_REGISTRY_USER and PESTO_REPRO_REGISTRY_PASSWORD belong together: "
            "PESTO_REPRO_REGISTRY_PASSWORD is missing",
        ),
        (
            {"PESTO_REPRO_REGISTRY_USER": USER, "PESTO_REPRO_REGISTRY_PASSWORD": CANARY},
            "PESTO_REPRO_REGISTRY_USER is set, but not for which registry",
        ),
        ({"PESTO_REPRO_REGISTRY_CA": "/absent.pem"}, "PESTO_REPRO_REGISTRY_CA is /absent.pem, where no file is"),
        ({"SSL_CERT_FILE": "/absent.pem"}, "SSL_CERT_FILE is /absent.pem, where no file is"),
        ({"PESTO_REPRO_REGISTRY_TIMEOUT": "x"}, 'PESTO_REPRO_REGISTRY_TIMEOUT is "x", which is no number of seconds'),
    ],
)
def test_an_environment_that_makes_no_sense_is_an_error(tmp_path: Path, env: Mapping[str, str], message: str) -> None:
    """It is said which variable, never its secret."""
    with pytest.raises(PestoError) as caught:
        access_from_environment(env, tmp_path)
    assert message == caught.value.message


def test_the_environment_becomes_an_access(tmp_path: Path) -> None:
    """Authorities, plain http and the time-out."""
    authorities = written(tmp_path / "ca.pem", "")
    env = {
        "PESTO_REPRO_REGISTRY_CA": str(authorities),
        "PESTO_REPRO_REGISTRY_PLAIN_HTTP": "a.example, B.example:80",
        "PESTO_REPRO_REGISTRY_TIMEOUT": "7.5",
    }
    access = access_from_environment(env, tmp_path)
    expected = Access(access.credentials, authorities, frozenset(["a.example", "b.example:80"]), 7.5)
    assert expected == access


def test_no_text_of_a_credential_shows_it() -> None:
    """Neither for people nor for debuggers."""
    credential = Credential(USER, CANARY, "t0ken")
    assert ("Credential('ada', ****)",) * 2 == (str(credential), repr(credential))


# -- login and logout ----------------------------------------------------------------------------------------------


def command(home: Path, *arguments: str, password: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command line with *password* on stdin and a home of its own."""
    everything = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(home), **env}
    return subprocess.run(
        [sys.executable, "-m", "pesto_repro", *arguments],
        env=everything,
        input=password,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.judge
def test_login_is_what_podman_and_skopeo_read(htpasswd_registry: LiveRegistry, tmp_path: Path) -> None:
    """What login wrote opens the registry for skopeo; after logout it is shut."""
    skopeo, host, path = judge("skopeo"), htpasswd_registry.host, tmp_path / ".config/containers/auth.json"
    done = command(tmp_path, "login", host, "-u", USER, "--password-stdin", "-vv", password=f"{CANARY}\n")
    assert (0, "") == (done.returncode, done.stdout)
    assert f"logged in to {host}; kept in {path}" == done.stderr.splitlines()[-1]
    listing = [skopeo, "list-tags", "--tls-verify=false", "--authfile", str(path), f"docker://{host}/team/app"]
    said = subprocess.run(listing, capture_output=True, text=True, check=False).stderr
    assert "404 (Not Found)" in said
    done = command(tmp_path, "logout", host)
    assert (0, "", f"logged out of {host}\n") == (done.returncode, done.stdout, done.stderr)
    said = subprocess.run(listing, capture_output=True, text=True, check=False).stderr
    assert "authentication required" in said


@pytest.mark.judge
@pytest.mark.parametrize("kind", ["htpasswd_registry", "token_registry"])
def test_a_wrong_password_is_one_error_at_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Nothing is written, nothing is tried again, and the password is not shown."""
    registry: LiveRegistry = request.getfixturevalue(kind)
    wrong = CANARY + "x"
    done = command(tmp_path, "login", registry.host, "-u", USER, "--password-stdin", "-vv", password=wrong)
    assert (1, "", False) == (done.returncode, done.stdout, (tmp_path / ".config").exists())
    assert [
        f"error: {registry.host} refuses the user name ada or its password",
        f"hint: pesto-repro login {registry.host}",
    ] == done.stderr.splitlines()[-2:]
    assert wrong not in done.stderr
    assert len(registry.requests()) <= 2


@pytest.mark.judge
def test_login_with_tokens_and_an_own_file(token_registry: LiveRegistry, tmp_path: Path) -> None:
    """The token service is asked; REGISTRY_AUTH_FILE says where to write."""
    path = tmp_path / "mine.json"
    arguments = ("login", token_registry.host, "-u", USER, "--password-stdin", "-vv")
    done = command(tmp_path, *arguments, password=CANARY, REGISTRY_AUTH_FILE=str(path))
    assert (0, ADA) == (done.returncode, find([path], token_registry.host))
    assert token_registry.tokens is not None
    for secret in (CANARY, auth(), *token_registry.tokens.granted):
        assert secret not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://h.example"], "Invalid value for 'HOST': \"https://h.example\" is no registry: it reads HOST or"),
        (["h.example", "-u", USER], "there is nobody to ask: say --password-stdin"),
        (["h.example", "--password-stdin"], "there is nobody to ask: say -u USER"),
        (["h.example", "-u", USER, "--password-stdin"], "the password is empty"),
        (["h.example", "-u", USER, "-p", CANARY], "No such option"),
    ],
)
def test_login_is_used_wrongly(tmp_path: Path, arguments: list[str], message: str) -> None:
    """A usage error; there is no option for a password."""
    done = command(tmp_path, "login", *arguments)
    assert (2, True) == (done.returncode, message in done.stderr)


def test_logout_tells_of_other_files(tmp_path: Path) -> None:
    """Whoever logs out should know that another file still opens the registry."""
    docker = written(tmp_path / ".docker/config.json", {"auths": {HOST: {"auth": auth()}}})
    done = command(tmp_path, "logout", HOST)
    own = tmp_path / ".config/containers/auth.json"
    assert (
        f"{own} has no credential for {HOST}\n"
        f"warning: {docker} has a credential for {HOST} too, which is used from now on\n"
    ) == done.stderr
