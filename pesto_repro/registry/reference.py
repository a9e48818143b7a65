"""What people write to name an image in a registry: ``[host[:port]/]repository[:tag][@digest]``.

The rules are those of docker and podman: without a host it is the default registry's (whose name the client's library
knows), where a repository of one word lies below "library/"; without tag and digest the tag is "latest".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.project.reference import is_name, is_tag

LATEST = "latest"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_FORM = "it reads HOST/REPOSITORY[:TAG][@sha256:DIGEST]"


@dataclass(frozen=True, slots=True, order=True)
class RemoteReference:
    """An image, or a repository, in a registry. At most one of *tag* and *digest* need be given.

    >>> RemoteReference.parse("localhost:5000/team/algo:1.0")
    RemoteReference(host='localhost:5000', repository='team/algo', tag='1.0', digest=None)
    """

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> RemoteReference:
        """The inverse of ``str``. Raises PestoError that says what is wrong with *text*."""
        rest, at, digest = text.partition("@")
        if "/" in digest:
            raise PestoError(f'"****@{digest}" has a user name or a password in it', "say them with pesto-repro login")
        rest, tag = _split_tag(rest)
        host, repository = _split_host(rest)
        if not is_host(host):
            raise _wrong(text, f'"{host}" is no host')
        if not is_name(repository):
            raise _wrong(text, f'"{repository}" is no repository')
        if tag is not None and not is_tag(tag):
            raise _wrong(text, f'"{tag}" is no tag')
        try:
            pinned = Digest.parse(digest) if at else None
        except ValueError as error:
            raise _wrong(text, f"the digest {error}") from None
        return cls(host, repository, LATEST if tag is None and pinned is None else tag, pinned)

    @property
    def target(self) -> str:
        """What to ask the repository for: the digest where there is one, else the tag."""
        return str(self.digest or self.tag or LATEST)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def is_host(text: str) -> bool:
    """Whether *text* may be a registry's ``host`` or ``host:port``."""
    match = _HOST.fullmatch(text)
    return match is not None and int(match["port"] or 1) in range(1, 1 << 16)


def aliases(host: str) -> tuple[str, ...]:
    """The names of *host* in files of credentials, best first: the default registry has several."""
    from pesto_repro.registry.http import DEFAULT_HOST, DEFAULT_NAMES  # imported late: the library takes a while

    return (DEFAULT_HOST, *DEFAULT_NAMES) if host == DEFAULT_HOST else (host,)


def canonical_host(host: str) -> str:
    """The one name of *host*: the default registry goes by several."""
    from pesto_repro.registry.http import DEFAULT_HOST, DEFAULT_NAMES  # imported late, as above

    return DEFAULT_HOST if host in DEFAULT_NAMES else host.lower()


def _split_tag(text: str) -> tuple[str, str | None]:
    head, colon, last = text.rpartition(":")
    return (text, None) if not colon or "/" in last else (head, last)


def _split_host(text: str) -> tuple[str, str]:
    """distribution/reference: the first part is a host if it has a "." or a ":" or is "localhost"."""
    from pesto_repro.registry.http import DEFAULT_HOST  # imported late, as above

    first, slash, rest = text.partition("/")
    named = bool(slash) and (first == "localhost" or bool(set(".:[") & set(first)) or first != first.lower())
    host, repository = (canonical_host(first), rest) if named else (DEFAULT_HOST, text)
    official = host == DEFAULT_HOST and bool(repository) and "/" not in repository
    return host, f"library/{repository}" if official else repository


def _wrong(text: str, reason: str) -> PestoError:
    return PestoError(f'"{text}" names no image in a registry: {reason}', _FORM)
