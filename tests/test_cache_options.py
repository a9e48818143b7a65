"""Which cache a build has: options, the environment, pyproject.toml; and the files of keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pesto_repro.cli.cache import VARIABLE, CacheChoice, chosen, may_write, open_cache
from pesto_repro.errors import PestoError, ProjectError
from pesto_repro.progress import Reporter
from pesto_repro.registry.access import Access
from tests.judges import judge

REF = "registry.example/team/steps"
NOTHING = CacheChoice()


def access_to(host: str) -> Access:
    """Without credentials."""
    assert "registry.example" == host
    return Access()


class Heard(Reporter):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str | None]] = []

    def warn(self, message: str, hint: str | None = None) -> None:
        self.warnings.append((message, hint))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own choice counts for no test."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project two folders below a pyproject.toml that names a cache."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pesto-repro.cache]\nref = "registry.example/stated"\nkey = "keys/cache.pub.pem"\nwrite = true\n'
    )
    root = tmp_path / "services/one"
    root.mkdir(parents=True)
    return root


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with a pair of keys, made as the README says."""
    openssl = [judge("openssl")]
    subprocess.run([*openssl, *"genpkey -algorithm ed25519 -out cache.pem".split()], cwd=tmp_path, check=True)
    (tmp_path / "cache.pem").chmod(0o600)
    subprocess.run([*openssl, *"pkey -in cache.pem -pubout -out cache.pub.pem".split()], cwd=tmp_path, check=True)
    return tmp_path


def test_without_a_word_there_is_no_cache(tmp_path: Path) -> None:
    """Nothing is asked, nothing is imported."""
    assert NOTHING == chosen(NOTHING, tmp_path)
    assert open_cache(NOTHING, access_to, Reporter()) is None


def test_the_option_comes_before_the_variable_before_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word by itself: a key that a team demands is demanded of any cache."""
    key = project.parent.parent / "keys/cache.pub.pem"
    assert CacheChoice("registry.example/stated", True, key) == chosen(NOTHING, project)
    monkeypatch.setenv(VARIABLE, "registry.example/variable")
    assert CacheChoice("registry.example/variable", True, key) == chosen(NOTHING, project)
    said = CacheChoice(REF, True, Path("other.pem"), Path("secret.pem"))
    assert said == chosen(said, project)


def test_the_nearest_table_counts(project: Path) -> None:
    """A pyproject.toml without one is passed by; an empty variable says nothing."""
    (project / "pyproject.toml").write_text('[tool.pesto-repro]\nlockfiles = "locks"\n')
    assert "registry.example/stated" == chosen(NOTHING, project).ref
    (project / "pyproject.toml").write_text('[tool.pesto-repro.cache]\nref = "registry.example/near"\n')
    assert CacheChoice("registry.example/near") == chosen(NOTHING, project)


def test_all_that_is_wrong_in_the_file_is_told(project: Path) -> None:
    """With the file, the key and what is expected."""
    file = project / "pyproject.toml"
    file.write_text("[tool.pesto-repro.cache]\nref = 1\nwrite = 'yes'\nkeys = 'x'\n")
    with pytest.raises(ProjectError) as caught:
        chosen(NOTHING, project)
    expected = [
        f'{file}:tool.pesto-repro.cache.keys: unknown key; did you mean "key"?',
        f"{file}:tool.pesto-repro.cache.ref: must be a string, not a number",
        f"{file}:tool.pesto-repro.cache.write: must be a boolean, not a string",
    ]
    assert expected == list(map(str, caught.value.problems))


def test_a_cache_is_a_table(project: Path) -> None:
    """Not just its name."""
    file = project / "pyproject.toml"
    file.write_text(f'[tool.pesto-repro]\ncache = "{REF}"\n')
    with pytest.raises(ProjectError) as caught:
        chosen(NOTHING, project)
    assert [f"{file}:tool.pesto-repro.cache: must be a table, not a string"] == list(map(str, caught.value.problems))


def test_options_without_a_cache_are_refused(tmp_path: Path) -> None:
    """They would do nothing."""
    with pytest.raises(PestoError) as caught:
        chosen(CacheChoice(write=True, key=Path("k")), tmp_path)
    assert "--cache-write and --cache-key: there is no cache" == caught.value.message
    assert "name one: --cache REF, or PESTO_REPRO_CACHE" == caught.value.hint


@pytest.mark.parametrize("ref", [f"{REF}:1.0", f"{REF}@sha256:{'0' * 64}"])
def test_a_cache_is_a_repository(ref: str) -> None:
    """An image is none."""
    with pytest.raises(PestoError) as caught:
        open_cache(CacheChoice(ref), access_to, Reporter())
    assert f'"{ref}" is an image, not a cache' == caught.value.message


def test_a_cache_is_opened_without_a_question() -> None:
    """Its host need not even exist."""
    cache = open_cache(CacheChoice(REF), access_to, Reporter())
    assert cache is not None
    assert REF == cache.origin


@pytest.mark.judge
def test_the_keys_of_a_cache(keys: Path) -> None:
    """Both are read, and must be a pair."""
    pair = CacheChoice(REF, True, keys / "cache.pub.pem", keys / "cache.pem")
    cache = open_cache(pair, access_to, Reporter())
    assert cache is not None
    assert cache.key is not None


@pytest.mark.judge
def test_keys_that_are_no_pair(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is written could not be read again."""
    other = tmp_path_factory.mktemp("other") / "cache.pem"
    subprocess.run([judge("openssl"), "genpkey", "-algorithm", "ed25519", "-out", other], check=True)
    other.chmod(0o600)
    public = keys / "cache.pub.pem"
    with pytest.raises(PestoError) as caught:
        open_cache(CacheChoice(REF, True, public, other), access_to, Reporter())
    expected = f"{other} is not the private half of {public}: what it signs would not be believed here"
    assert expected == caught.value.message
    assert f"make the public half anew: openssl pkey -in {other} -pubout -out {public}" == caught.value.hint


@pytest.mark.judge
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_private_key_is_private(keys: Path, mode: int) -> None:
    """Else it is not used."""
    path = keys / "cache.pem"
    path.chmod(mode)
    with pytest.raises(PestoError) as caught:
        open_cache(CacheChoice(REF, True, None, path), access_to, Reporter())
    expected = f"{path} is a private key that others may read: its mode is {mode:04o}"
    assert (expected, f"chmod 600 {path}") == (caught.value.message, caught.value.hint)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    """A key that is demanded and absent is an error, never no key."""
    with pytest.raises(PestoError) as caught:
        open_cache(CacheChoice(REF, key=tmp_path / "key"), access_to, Reporter())
    assert f"{tmp_path / 'key'} cannot be read: No such file or directory" == caught.value.message


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (NOTHING, False),
        (CacheChoice(REF), False),
        (CacheChoice(REF, write=True), True),
        (CacheChoice(REF, write=True, sign=Path("s")), True),
        (CacheChoice(REF, write=True, key=Path("k"), sign=Path("s")), True),
    ],
)
def test_who_writes(choice: CacheChoice, expected: bool) -> None:
    """Whoever is told to."""
    heard = Heard()
    assert expected == may_write(choice, heard)
    assert [] == heard.warnings


def test_what_would_not_be_believed_is_not_written() -> None:
    """A team's file may say key and write; who has no private key only reads."""
    heard = Heard()
    assert not may_write(CacheChoice(REF, write=True, key=Path("k")), heard)
    expected = f"nothing is put into the cache {REF}: unsigned, it would not be believed"
    assert [(expected, "sign it: --cache-sign FILE")] == heard.warnings
