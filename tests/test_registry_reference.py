"""What people write to name an image in a registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.registry.http import DEFAULT_HOST, DEFAULT_NAMES
from pesto_repro.registry.reference import RemoteReference

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python", (DEFAULT_HOST, "library/python", "latest", None)),
        ("python:3.11-slim", (DEFAULT_HOST, "library/python", "3.11-slim", None)),
        ("ada/algo:1.0", (DEFAULT_HOST, "ada/algo", "1.0", None)),
        (f"{DEFAULT_NAMES[1]}/python", (DEFAULT_HOST, "library/python", "latest", None)),
        ("localhost/algo", ("localhost", "algo", "latest", None)),
        ("localhost:5000/algo", ("localhost:5000", "algo", "latest", None)),
        ("127.0.0.1:5000/a/b/c:d", ("127.0.0.1:5000", "a/b/c", "d", None)),
        ("[::1]:5000/algo", ("[::1]:5000", "algo", "latest", None)),
        ("Registry.Example/algo", ("registry.example", "algo", "latest", None)),
        (f"registry.example/algo@{DIGEST}", ("registry.example", "algo", None, DIGEST)),
        (f"registry.example/algo:1@{DIGEST}", ("registry.example", "algo", "1", DIGEST)),
    ],
)
def test_reads_as_docker_and_podman_do(text: str, expected: tuple[str, str, str | None, Digest | None]) -> None:
    """Hosts, ports, tags and digests are told apart; the default registry has its rules."""
    assert RemoteReference(*expected) == RemoteReference.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", '"" is no repository'),
        ("registry.example/", '"" is no repository'),
        ("registry.example/Algo", '"Algo" is no repository'),
        ("registry.example/algo:", '"" is no tag'),
        ("registry.example/algo:a b", '"a b" is no tag'),
        ("registry.example:http/algo", '"registry.example:http" is no host'),
        ("registry.example:70000/algo", '"registry.example:70000" is no host'),
        ("https://registry.example/algo", '"https:" is no host'),
        ("registry.example/algo@sha256:12", "the digest '12' is not a sha256 in lower-case hex"),
        ("registry.example/../algo", '"../algo" is no repository'),
    ],
)
def test_says_what_is_wrong(text: str, reason: str) -> None:
    """Nonsense is an error that names the part which is wrong."""
    with pytest.raises(PestoError) as caught:
        RemoteReference.parse(text)
    assert f'"{text}" names no image in a registry: {reason}' == caught.value.message
    assert "it reads HOST/REPOSITORY[:TAG][@sha256:DIGEST]" == caught.value.hint


@pytest.mark.parametrize("text", ["ada:pw@registry.example/algo", "https://ada:pw@registry.example/algo"])
def test_a_password_in_a_reference_is_not_shown(text: str) -> None:
    """Whoever writes one learns where it belongs, and no log does."""
    with pytest.raises(PestoError) as caught:
        RemoteReference.parse(text)
    assert '"****@registry.example/algo" has a user name or a password in it' == caught.value.message
    assert "say them with pesto-repro login" == caught.value.hint


@given(
    st.sampled_from(["localhost", "registry.example", "127.0.0.1:5000", DEFAULT_HOST]),
    st.from_regex(r"[a-z0-9]+([._/-][a-z0-9]+){1,3}", fullmatch=True).filter(lambda name: "/" in name),
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)),
    st.one_of(st.none(), st.binary().map(Digest.of)),
)
def test_text_and_value_are_inverse(host: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    """What is written reads back the same."""
    if tag is None and digest is None:
        tag = "latest"
    reference = RemoteReference(host, repository, tag, digest)
    assert reference == RemoteReference.parse(str(reference))
