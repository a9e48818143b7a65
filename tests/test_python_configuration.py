"""uv's and pip's configuration: who wins, what adds up, what uv is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesto_repro.cli.indexes import indexes_from_environment
from pesto_repro.errors import PestoError
from pesto_repro.fetch.index import DEFAULT_INDEX_URL, Index, Indexes
from pesto_repro.project import IndexOption


class Machine:
    """A machine with a home, a system folder, a virtual environment and a project, all empty."""

    def __init__(self, root: Path) -> None:
        self.home, self.system, self.prefix, self.project = (root / each for each in ("home", "etc", "venv", "project"))
        for folder in (self.home, self.system, self.prefix, self.project):
            folder.mkdir()
        self.env: dict[str, str] = {}

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def read(self, *options: IndexOption, index_url: str | None = None, find_links: tuple[str, ...] = ()) -> Indexes:
        return self.both(*options, index_url=index_url, find_links=find_links)[0]

    def both(
        self, *options: IndexOption, index_url: str | None = None, find_links: tuple[str, ...] = ()
    ) -> tuple[Indexes, dict[str, str]]:
        return indexes_from_environment(
            self.env, self.home, self.project, index_url, find_links, options,
            system=self.system, environment_root=self.prefix,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def named(indexes: Indexes) -> list[tuple[str, str]]:
    return [(each.name, each.url) for each in indexes.indexes]


def test_nothing_configured_is_the_default_index(machine: Machine) -> None:
    """The library's own default, under the name that locks have."""
    assert Indexes((Index("default", DEFAULT_INDEX_URL),)) == machine.read()


def test_uv_in_the_environment(machine: Machine) -> None:
    """Names are kept, the nameless are numbered, the main index comes last; credentials come by name."""
    machine.env = {
        "UV_DEFAULT_INDEX": "https://main/simple",
        "UV_INDEX": "corp-x=https://corp/simple https://nameless/simple",
        "UV_EXTRA_INDEX_URL": "https://more/simple",
        "UV_INDEX_CORP_X_USERNAME": "bob",
        "UV_INDEX_CORP_X_PASSWORD": "p@ss",
        "UV_FIND_LINKS": "/wheels,https://links/page.html",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_INDEX": "1",
        "PIP_EXTRA_INDEX_URL": "https://not-asked/simple",
    }
    found = machine.read()
    assert [
        ("corp-x", "https://bob:p%40ss@corp/simple"),
        ("extra-1", "https://nameless/simple"),
        ("extra-2", "https://more/simple"),
        ("default", "https://main/simple"),
    ] == named(found)
    assert ("file:///wheels", "https://links/page.html") == found.find_links
    assert (True, "unsafe-best-match") == (found.no_index, found.strategy)


def test_uv_files_from_near_to_far(machine: Machine) -> None:
    """Project, user, system: the nearest decides the main index, the others add up."""
    machine.write(
        machine.project / "pyproject.toml",
        '[[tool.uv.index]]\nname = "near"\nurl = "https://near/"\n'
        '[[tool.uv.index]]\nname = "sources-only"\nurl = "https://explicit/"\nexplicit = true\n'
        '[[tool.uv.index]]\nname = "flat"\nurl = "./wheels"\nformat = "flat"\n',
    )
    user = '[[index]]\nname = "corp"\nurl = "https://user/"\ndefault = true\n[[index]]\nname = "near"\nurl = "https://far/"\n'
    machine.write(machine.home / ".config/uv/uv.toml", user)
    machine.write(machine.system / "uv/uv.toml", 'index-url = "https://system/"\nfind-links = ["/links"]\n')
    found = machine.read()
    assert [("near", "https://near/"), ("default", "https://user/")] == named(found)
    assert ((machine.project / "wheels").as_uri(), "file:///links") == found.find_links


def test_uv_without_configuration_files(machine: Machine) -> None:
    """UV_NO_CONFIG and UV_CONFIG_FILE mean what they mean to uv."""
    machine.write(machine.home / ".config/uv/uv.toml", 'index-url = "https://user/"\n')
    machine.write(
        machine.home / "other.toml",
        'extra-index-url = ["https://other/"]\n[pip]\nindex-url = "https://pip/"\n',
    )
    machine.env = {"UV_NO_CONFIG": "1"}
    assert [("default", DEFAULT_INDEX_URL)] == named(machine.read())
    machine.env = {"UV_CONFIG_FILE": str(machine.home / "other.toml")}
    assert [("extra-1", "https://other/"), ("default", "https://pip/")] == named(machine.read())


def test_pip_where_uv_says_nothing(machine: Machine) -> None:
    """Later files override earlier ones, a command's section [global], the environment all of them."""
    machine.write(
        machine.system / "pip.conf",
        "[global]\nindex-url = https://a/\nextra-index-url =\n  https://b/\n  https://c/\n",
    )
    machine.write(machine.home / ".config/pip/pip.conf", "[global]\nindex_url = https://d/\n[install]\nno-index = no\n")
    machine.write(machine.prefix / "pip.conf", "[global]\ncert = /ca.pem\nno-index = yes\n")
    found = machine.read()
    assert [("extra-1", "https://b/"), ("extra-2", "https://c/"), ("default", "https://d/")] == named(found)
    assert (False, Path("/ca.pem")) == (found.no_index, found.cert)
    machine.env = {"PIP_INDEX_URL": "https://e/", "PIP_CERT": "/own.pem", "PIP_FIND_LINKS": "/w https://l/"}
    found = machine.read()
    assert ("default", "https://e/") == named(found)[-1]
    assert (("file:///w", "https://l/"), Path("/own.pem")) == (found.find_links, found.cert)


def test_pip_config_file_replaces_the_users(machine: Machine) -> None:
    """And os.devnull means no file at all."""
    machine.write(machine.home / ".config/pip/pip.conf", "[global]\nextra-index-url = https://user/\n")
    machine.write(machine.system / "pip.conf", "[global]\nindex-url = https://system/\n")
    machine.write(machine.home / "own.conf", "[global]\nfind-links = /own\n")
    machine.env = {"PIP_CONFIG_FILE": str(machine.home / "own.conf")}
    assert Indexes((Index("default", "https://system/"),), ("file:///own",)) == machine.read()
    machine.env = {"PIP_CONFIG_FILE": "/dev/null"}
    assert Indexes() == machine.read()


def test_the_project_stands_between_environment_and_files(machine: Machine) -> None:
    """image.toml and options of requirements files; what uv has in the environment wins over them."""
    machine.write(machine.home / ".config/uv/uv.toml", 'index-url = "https://user/"\n')
    machine.env = {"TOKEN": "t0k"}
    options = (
        IndexOption("extra-index-url", "https://${TOKEN}@extra/"),
        IndexOption("find-links", "wheels"),
        IndexOption("index-url", "https://req/"),
    )
    found = machine.read(*options, index_url="https://image/", find_links=("more",))
    assert [("extra-1", "https://t0k@extra/"), ("project", "https://image/")] == named(found)
    assert tuple((machine.project / each).as_uri() for each in ("more", "wheels")) == found.find_links
    assert [("project", "https://req/")] == named(machine.read(IndexOption("index-url", "https://req/")))
    assert machine.read(IndexOption("no-index", "")).no_index
    machine.env = {"UV_DEFAULT_INDEX": "https://mirror/"}
    assert [("default", "https://mirror/")] == named(machine.read(index_url="https://image/"))


def test_uv_hears_of_the_network_and_of_nothing_that_chooses(machine: Machine) -> None:
    """No index (it gets those from the one value), no policy, no variable of others."""
    machine.env = {
        "PATH": "/bin",
        "HOME": "/elsewhere",
        "HTTPS_PROXY": "http://proxy",
        "UV_CACHE_DIR": "/cache",
        "UV_INDEX": "a=https://a/",
        "UV_PRERELEASE": "allow",
        "PYTHONPATH": "/x",
    }
    expected = {
        "PATH": "/bin",
        "HOME": str(machine.home),
        "HTTPS_PROXY": "http://proxy",
        "UV_CACHE_DIR": "/cache",
    }
    assert expected == machine.both()[1]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (".config/uv/uv.toml", "x = \n", "{} cannot be read: Invalid value (at line 1, column 5)"),
        (
            ".config/pip/pip.conf",
            "https://bob:hush@host\n",
            "{} is not a pip configuration file (MissingSectionHeaderError)",
        ),
        (".config/uv/uv.toml", 'index-strategy = "best"\n', "'best' is no index strategy"),
        (".config/uv/uv.toml", '[[index]]\nname = "a"\n', "{}: index.0.url is missing"),
        (".config/uv/uv.toml", "index = 5\n", "{}: index must be an array, not a number"),
        (".config/uv/uv.toml", "index = [5]\n", "{}: index.0 must be an object, not a number"),
        (".config/uv/uv.toml", 'find-links = "https://hush@h"\n', "{}: find-links must be an array, not a string"),
        (".config/uv/uv.toml", "extra-index-url = [1]\n", "{}: extra-index-url.0 must be a string, not a number"),
        (".config/uv/uv.toml", 'pip = "x"\n', "{}: pip must be an object, not a string"),
        (".config/uv/uv.toml", 'no-index = "x"\n', "{}: no-index must be a boolean, not a string"),
        (".config/uv/uv.toml", 'index-url = "https://b:hush@[h/s"', "{}: index-url is no address: https://[h/s"),
        (".config/pip/pip.conf", "[global]\nindex-url = ftp://b:hush@h/", "{}: index-url is no address: ftp://h/"),
        ("../project/pyproject.toml", "[tool]\nuv = 5\n", "{}: tool.uv must be an object, not a number"),
        ("../project/pyproject.toml", "[[tool.uv.index]]\n", "{}: tool.uv.index.0.url is missing"),
    ],
)
def test_a_broken_file_is_named_and_not_quoted(path: str, text: str, message: str, machine: Machine) -> None:
    """A line of it may hold a password."""
    machine.write(machine.home / path, text)
    with pytest.raises(PestoError) as caught:
        machine.read()
    assert message.format((machine.home / path).resolve()) == caught.value.message


@pytest.mark.parametrize(
    "variable",
    [
        *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
    ],
)
def test_a_variable_that_holds_no_address_is_named(variable: str, machine: Machine) -> None:
    """Not the address that happens to be asked next; and never a password."""
    machine.env = {variable: "https://bob:hush@[bad/simple"}
    with pytest.raises(PestoError) as caught:
        machine.read()
    assert f"{variable} is no address: https://[bad/simple" == caught.value.message
    assert "write https://HOST/PATH, file:///FOLDER or a path" == caught.value.hint


def test_an_option_that_is_no_address_after_the_environment_is_put_in(machine: Machine) -> None:
    """The file that has it is told; an apostrophe is part of a name."""
    machine.env = {"HOST": "[bad"}
    with pytest.raises(PestoError) as caught:
        machine.read(IndexOption("extra-index-url", "https://${HOST}/simple"))
    expected = "--extra-index-url of the project's requirements files is no address: https://[bad/simple"
    assert expected == caught.value.message
    found = machine.read(IndexOption("find-links", "it's"), IndexOption("find-links", "~nobody-of-that-name/x"))
    places = tuple((machine.project / name).as_uri() for name in ("it's", "~nobody-of-that-name/x"))
    assert places == found.find_links
