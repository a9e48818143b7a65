"""The project's own Python requirements: every file's format, read without running anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ProjectError
from pesto_repro.project.pyaddress import address_of
from pesto_repro.project.pyrequires import CREDENTIALS, IndexOption, PythonRequires, normalised, python_requires

_MEND = 'put the requirements into pesto/build/image.toml: [python] requires = ["..."]'
GIT_CREDENTIALS = (
    "carries credentials, which belong neither into a project's files nor into a lock: name the address without them "
    "and give them through git's own configuration"
)
_ADDRESS = (
    'names an address, which a lock cannot: bring its wheel or sdist as a "type": "pip" entry of requirements.json, '
    "or name a git repository (git+https://HOST/REPOSITORY@REF)"
)
_WITH = """
from setuptools import setup
with open('requirements.txt', 'r') as requirements_file:
    install_requires = [line for line in requirements_file]
setup(name="x", install_requires=install_requires)
"""


def _read(files: dict[str, str]) -> PythonRequires:
    return python_requires(files.get)


def _problems(files: dict[str, str]) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        _read(files)
    return [str(problem) for problem in caught.value.problems]


def test_a_project_without_files_requires_nothing() -> None:
    """No file is required."""
    assert PythonRequires() == _read({})


def test_requirements_txt() -> None:
    """Comments, continuations, nested files, hashes, options of indexes."""
    files = {
        "requirements.txt": (
            "# comment\n\n--index-url https://i/simple\n--extra-index-url=https://e/simple\n-f wheels\n"
            "--no-index\n-i'https://j/simple'\n--find-links it's\n"
            "-r more/base.txt\n-c limits.txt\nNumPy >=2 ; python_version >= '3.11'  # why\n"
            "foo==1 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\nfoo == 1\n"
        ),
        "more/base.txt": "-r ../requirements.txt\n-c ../limits.txt\n--find-links wheels\nBar_baz[B,a]\n",
        "limits.txt": "scipy<2\n-r limits2.txt\n",
        "limits2.txt": "numpy<3",
    }
    assert PythonRequires(
        ("bar-baz[a,b]", "foo==1", 'numpy>=2; python_version >= "3.11"'),
        ("numpy<3", "scipy<2"),
        (
            IndexOption("index-url", "https://i/simple"),
            IndexOption("extra-index-url", "https://e/simple"),
            IndexOption("find-links", "wheels"),
            IndexOption("no-index", ""),
            IndexOption("index-url", "https://j/simple"),
            IndexOption("find-links", "it's"),
            IndexOption("find-links", "more/wheels"),
        ),
    ) == _read(files)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-e .", '"." is the project itself, whose files are in the image anyway: leave it out'),
        ("-e /opt/lib", '"/opt/lib" is a path of this machine: name it relative to the project'),
        ("x @ file:///x", '"file:///x" is a path of this machine: name it relative to the project'),
        ("x @ git+https://h/x#subdirectory=../y", 'the subdirectory "../y" is outside of the repository'),
        ("./lib ; never", '"never" is not a marker (PEP 508)'),
        *(
            (line, f'"git+https://h/x.git" {GIT_CREDENTIALS}')
            for line in [
                "--editable=git+https://me:pw@h/x.git",
                "git+https://me:pw@h/x.git",
                "x @ git+https://token@h/x.git",
            ]
        ),
        *(
            (line, f'"{shown}" {_ADDRESS}')
            for line, shown in [
                ("https://h/x-1.tar.gz", "https://h/x-1.tar.gz"),
                ("https://h/x-1-py3-none-any.whl#sha256=aa", "https://h/x-1-py3-none-any.whl"),
                ("x @ https://me:pw@h/x-1-py3-none-any.whl", "x @ https://h/x-1-py3-none-any.whl"),
                ("x @ hg+https://h/x", "x @ hg+https://h/x"),
            ]
        ),
        *(
            (line, f'"{line}" is a file: declare it in requirements.json as an entry with "type": "pip"')
            for line in ["./w/x-1-py3-none-any.whl", "x-1.tar.gz", "w/x-1.zip", "x @ file:x-1.tar.gz"]
        ),
        ("--pre", 'the option "--pre" is not supported'),
        ("-r https://me:pw@h/more.txt?t", 'names "https://h/more.txt", which is not a file of the project'),
        *(
            (line, f'"{shown}" {CREDENTIALS}')
            for line, shown in [
                ("--extra-index-url https://bob:pw@h/simple", "https://h/simple"),
                ("-i https://bob:${A}pw@h/simple", "https://h/simple"),
                ("--find-links=https://token@h/", "https://h/"),
            ]
        ),
        ("x==1 --config-settings=a=b", 'the option "--config-settings" is not supported'),
        ("-r ../other.txt", 'names "../other.txt", which is not a file of the project'),
        ("-c gone.txt", 'names "gone.txt", which is not a file of the project'),
    ],
)
def test_lines_that_are_refused(line: str, problem: str) -> None:
    """With file, line, and a hint; never a password."""
    assert [f"requirements.txt:2: {problem}"] == _problems({"requirements.txt": f"ok\n{line}\n"})


def test_credentials_from_the_environment() -> None:
    """They are in no file: pip's ${NAME} is kept for who reads the environment."""
    values = ("https://${TOKEN}@h/simple", "https://me:${A}${B}@h/simple", "https://h/a@b")
    text = "".join(f"--extra-index-url {value}\n" for value in values)
    assert (
        tuple(IndexOption("extra-index-url", value) for value in values)
        == _read({"requirements.txt": text}).index_options
    )


def test_credentials_in_uv_s_configuration() -> None:
    """Wherever uv reads an address of an index; an address of something else is uv's affair."""
    places = """
index-url = "https://me:pw@a/"
find-links = ["https://b/", "https://me:pw@c/", "x@y"]
[[{0}index]]
url = "https://pw@d/simple?pw"
[{0}pip]
extra-index-url = ["https://me:pw@e/"]
[{0}sources]
x = {{ git = "ssh://git@host/x" }}
"""
    for file, table in (("uv.toml", ""), ("pyproject.toml", "tool.uv.")):
        head = f"[{table.rstrip('.')}]" if table else ""
        assert [
            f'{file}:{table}{key}: "https://{shown}" {CREDENTIALS}'
            for key, shown in [
                ("find-links.1", "c/"),
                ("index-url", "a/"),
                ("index.0.url", "d/simple"),
                ("pip.extra-index-url.0", "e/"),
            ]
        ] == _problems({file: head + places.format(table)})


def test_a_broken_uv_toml() -> None:
    """It has its place, as every file of the project."""
    assert ["uv.toml:1:5: malformed TOML: invalid value"] == _problems({"uv.toml": "a = = 1"})


def test_a_requirement_that_is_none() -> None:
    """The reason is that of the packaging library."""
    (problem,) = _problems({"requirements.txt": "numpy=2"})
    assert problem.startswith('requirements.txt:1: "numpy=2" is not a requirement (PEP 508): ')


def test_pyproject() -> None:
    """[project] dependencies, beside requirements.txt and image.toml: the union."""
    files = {"pyproject.toml": '[project]\ndependencies = ["b>=1", "A"]\n', "requirements.txt": "a\nc"}
    assert ("a", "b>=1", "c", "d") == python_requires(files.get, ("d", "a")).requires


def test_dynamic_dependencies() -> None:
    """They come from the files that setuptools is told of, or from setup.py; else nobody can tell."""
    dynamic = '[project]\ndynamic = ["dependencies"]\n'
    setuptools = dynamic + '[tool.setuptools.dynamic]\ndependencies = {file = ["reqs.in"]}\n'
    assert ("a",) == _read({"pyproject.toml": setuptools, "reqs.in": "a"}).requires
    assert ("b",) == _read({"pyproject.toml": dynamic, "setup.py": "setup(install_requires=['b'])"}).requires
    assert [
        f"pyproject.toml:project.dynamic: dependencies are dynamic and cannot be read without "
        f"building the project; {_MEND}"
    ] == _problems({"pyproject.toml": dynamic})


def test_pyproject_that_is_wrong() -> None:
    """Malformed TOML has its place, a wrong requirement its index."""
    assert ["pyproject.toml:1:5: malformed TOML: invalid value"] == _problems({"pyproject.toml": "a = = 1"})
    assert ["pyproject.toml:project.dependencies: must be an array of strings"] == _problems(
        {"pyproject.toml": '[project]\ndependencies = "a"'}
    )


@pytest.mark.parametrize(
    "value",
    [
        "\n    a>=1\n    # no\n    b; python_version<'4'\n",
        " file: reqs.txt\n",
        "\n  a>=1\n  b ; python_version < '4'",
    ],
)
def test_setup_cfg(value: str) -> None:
    """install_requires as lines, or in a file."""
    files = {"setup.cfg": f"[options]\ninstall_requires ={value}", "reqs.txt": "a>=1\nb;python_version<'4'"}
    assert ("a>=1", 'b; python_version < "4"') == _read(files).requires


@pytest.mark.parametrize(
    "source",
    [
        "setup(install_requires=['a', 'b>=1'])",
        "import setuptools\nsetuptools.setup(install_requires=('a', 'b>=1'))",
        "NEEDS = ['a']\nMORE = ['b>=1']\nALL = NEEDS + MORE\nsetup(install_requires=ALL)",
        "B = 'b>=1'\nif __name__ == '__main__':\n    setup(install_requires=['a', B])",
        "NEEDS: list[str] = ['a', 'b>=1']\nsetup(install_requires=NEEDS)",
        _WITH,
        "with open('requirements.txt') as f:\n    r = f.read().splitlines()\nsetup(install_requires=r)",
        "with open('requirements.txt') as f:\n    r = f.readlines()\nsetup(install_requires=r)",
        "with open('requirements.txt') as f:\n    r = [x.strip() for x in f.readlines() if "
        "x.strip() and not x.startswith('#')]\nsetup(install_requires=r)",
        "setup(install_requires=open('requirements.txt').read().split('\\n'))",
        "setup(install_requires=list(open('requirements.txt')))",
        "f = open('requirements.txt')\nsetup(install_requires=f.read().strip().splitlines())",
        "import os\nhere = "
        "os.path.dirname(os.path.abspath(__file__))\nsetup(install_requires=open(os.path.join(here, "
        "'requirements.txt')).readlines())",
        "from pathlib import Path\nHERE = Path(__file__).parent\nsetup(install_requires=(HERE / "
        "'requirements.txt').read_text().splitlines())",
        "from pathlib import Path\nsetup(install_requires=Path('requirements.txt').read_text().splitlines())",
        "from pathlib import Path\nsetup(install_requires=Path(__file__).with_name('requirements.txt')"
        ".read_text(encoding='utf-8').splitlines())",
    ],
)
def test_setup_py_that_can_be_read(source: str) -> None:
    """Literals, names of literals, and the lines of a requirements file, in the usual idioms."""
    files = {"setup.py": source, "requirements.txt": "# needs\na\nb>=1\n"}
    if "requirements.txt" not in source:
        del files["requirements.txt"]
    assert PythonRequires(("a", "b>=1")) == _read(files)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("setup(install_requires=read())", "install_requires is read()"),
        ("setup(install_requires=['a', f'b=={V}'])", "install_requires holds f'b=={V}'"),
        ("r = ['a']\nr.append('b')\nsetup(install_requires=r)", '"r" is not bound exactly once'),
        ("r = ['a']\nr += ['b']\nsetup(install_requires=r)", '"r" is not bound exactly once'),
        ("r = ['a']\nif x:\n    r = ['b']\nsetup(install_requires=r)", '"r" is not bound exactly once'),
        ("a = b\nb = a\nsetup(install_requires=a)", "names are bound in a circle"),
        ("setup(**config)", "setup() is called with **"),
        ("from x import main\nmain()", "it has no single call of setup()"),
        ("print 'x'", "it is no Python 3"),
        (
            "setup(install_requires=[x for x in open('requirements.txt') if 'torch' not in x])",
            "install_requires is [x for x in open('requirements.txt') if 'torch' not in x]",
        ),
        ("setup(install_requires=open(NAME).readlines())", '"NAME" is not bound exactly once'),
    ],
)
def test_setup_py_that_cannot_be_read(source: str, why: str) -> None:
    """requirements.txt stands in with a warning; without one it is a problem with a remedy."""
    text = f"cannot be read without running it ({why})"
    found = _read({"setup.py": source, "requirements.txt": "a"})
    assert (("a",), (f"setup.py {text}; requirements.txt is used instead",)) == (
        found.requires,
        found.warnings,
    )
    assert [f"setup.py:install_requires: {text}; {_MEND}"] == _problems({"setup.py": source})


def test_setup_py_is_never_run() -> None:
    """Code in it has no effect."""
    source = "raise SystemExit('ran')\nimport gone\nsetup(install_requires=['a'])"
    assert ("a",) == _read({"setup.py": source}).requires


def test_setup_py_that_names_a_missing_file() -> None:
    """The file it reads must be there."""
    expected = ['setup.py: names "requirements.txt", which is not a file of the project']
    assert expected == _problems({"setup.py": _WITH})


def test_all_files_problems_at_once() -> None:
    """No file hides another's problems."""
    files = {
        "requirements.txt": "-e .",
        "pyproject.toml": "[project]\ndependencies = [1]",
        "setup.cfg": "no section",
        "setup.py": "setup(install_requires=['/x'])",
    }
    assert ["pyproject.toml", "requirements.txt", "setup.cfg", "setup.py"] == [
        problem.split(":")[0] for problem in _problems(files)
    ]


_NAMES = st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,6}[A-Za-z0-9])?", fullmatch=True)
_BOUNDS = st.lists(st.sampled_from([">=1", "<3", "!=2", "~=1.0"]), unique=True)


@given(_NAMES, st.lists(_NAMES), _BOUNDS)
def test_one_spelling(name: str, extras: list[str], bounds: list[str]) -> None:
    """However a requirement is written, it is normalised to one text, which stays as it is."""
    one = normalised(f"{name}[{','.join(extras)}]{','.join(bounds)}")
    other = normalised(f"{name.upper()} [ {' , '.join(reversed(extras))} ] {', '.join(reversed(bounds))}")
    assert one == other == normalised(one)


@pytest.mark.parametrize(
    ("line", "spelling"),
    [
        ("-e ./libs/foo", "file:libs/foo"),
        ("libs/foo/[B,a] ; python_version>'3'", 'file:libs/foo[a,b] ; python_version > "3"'),
        ("file:../shared", "file:../shared"),
        ("Foo[b] @ file:./libs/foo", "foo[b] @ file:libs/foo"),
        (
            "git+https://h/x.git@feature/y#egg=Foo_x&subdirectory=a/b",
            "foo-x @ git+https://h/x.git@feature/y#subdirectory=a/b",
        ),
        ("x @ git+ssh://git@h/x", "x @ git+ssh://git@h/x"),
        ("x @ git+https://h/x.git@v1 ; sys_platform=='linux'", 'x @ git+https://h/x.git@v1 ; sys_platform == "linux"'),
    ],
)
def test_addresses_that_are_built_from(line: str, spelling: str) -> None:
    """Each has one spelling, which is read back as it is."""
    assert (spelling,) == _read({"requirements.txt": line}).requires
    address = address_of(spelling)
    assert address is not None
    assert spelling == str(address)


def test_an_address_constrains_nothing() -> None:
    """A constraints file says which version, not where."""
    problem = 'c.txt:1: "./libs/foo" is an address, which constrains nothing: require it'
    assert [problem] == _problems({"requirements.txt": "-c c.txt", "c.txt": "./libs/foo"})
