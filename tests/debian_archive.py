"""A Debian archive made in code: packages, signed suites, a mirror in a folder."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pysequoia
import zstandard

from pesto_repro.build.maker import Inputs
from pesto_repro.digest import Digest
from pesto_repro.fetch.debian import Mirrors
from pesto_repro.plan import Pinned, Step
from pesto_repro.store import Store

POCKETS = ("", "-updates", "-security")
DATE = "Sat, 12 Sep 2026 07:55:41 UTC"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@dataclass(frozen=True)
class Item:
    """One path of a package: content, or a link's target, or neither for a folder."""

    path: str
    content: bytes | None = None
    link: str = ""
    kind: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.path)
        info.mode, info.uid, info.gid, info.linkname = self.mode, self.uid, self.gid, self.link
        info.size = len(self.content or b"")
        info.type = self.kind or (tarfile.DIRTYPE if self.content is None else tarfile.REGTYPE)
        return info


def folder(path: str, mode: int = 0o755, gid: int = 0) -> Item:
    return Item(path, mode=mode, gid=gid)


def content(path: str, data: bytes, mode: int = 0o644) -> Item:
    return Item(path, data, mode=mode)


def link(path: str, target: str) -> Item:
    return Item(path, link=target, kind=tarfile.SYMTYPE, mode=0o777)


def hard(path: str, target: str) -> Item:
    return Item(path, link=target, kind=tarfile.LNKTYPE)


def tar(members: Iterable[Item]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            archive.addfile(member.info(), io.BytesIO(member.content or b""))
    return stream.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts += [f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode(), data]
        parts.append(b"\n" * (len(data) % 2))
    return b"".join(parts)


def deb(
    name: str,
    members: Iterable[Item] = (),
    *,
    version: str = "1",
    architecture: str = "amd64",
    scripts: Mapping[str, bytes] | None = None,
    packed: str = ".xz",
    **fields: str,
) -> bytes:
    """A .deb; *fields* like ``depends`` go into its control paragraph, *scripts* beside it."""
    control = paragraph(package=name, version=version, architecture=architecture, **fields).encode()
    files = {"control": control, **(scripts or {})}
    return ar(
        {
            "debian-binary": b"2.0\n",
            f"control.tar{packed}": PACK[packed](tar(content(f"./{each}", files[each]) for each in files)),
            f"data.tar{packed}": PACK[packed](tar(members)),
        }
    )


def paragraph(**fields: str) -> str:
    return "".join(f"{name.replace('_', '-').title()}: {value}\n" for name, value in fields.items())


def stanza(name: str, version: str = "1", *, architecture: str = "amd64", **fields: str) -> str:
    """A stanza of ``Packages`` for a package whose file nobody will look at."""
    digest = Digest.of(f"{name} {version} {architecture}".encode()).hex
    filename = f"pool/main/{name}_{version}_{architecture}.deb"
    defaults = {"filename": filename, "size": "7", "sha256": digest, "priority": "optional"}
    return paragraph(package=name, version=version, architecture=architecture, **{**defaults, **fields})


@dataclass
class Archive:
    """Suites below *root*, signed with a key of its own."""

    root: Path
    secret: pysequoia.Tsk = field(default_factory=lambda: pysequoia.Tsk.generate("An archive <archive@example.org>"))

    @property
    def keys(self) -> tuple[pysequoia.Cert, ...]:
        return (self.secret.extract_certificate(),)

    @property
    def mirrors(self) -> Mirrors:
        return Mirrors((f"file://{self.root}/debian",), (f"file://{self.root}/debian-security",))

    def publish(
        self, suite: str, packages: Mapping[str, Sequence[str]], *, codename: str = "", extra: str = ""
    ) -> None:
        """Write the index of *suite*: its stanzas by architecture."""
        base = self.root / ("debian-security" if suite.endswith("-security") else "debian")
        checksums = []
        for architecture, stanzas in packages.items():
            packed = lzma.compress("\n".join(stanzas).encode())
            digest = Digest.of(packed).hex
            place = f"main/binary-{architecture}"
            write(base / "dists" / suite / place / "by-hash" / "SHA256" / digest, packed)
            checksums.append(f" {digest} {len(packed)} {place}/Packages.xz\n")
        text = f"Codename: {codename or suite}\nDate: {DATE}\nAcquire-By-Hash: yes\n{extra}SHA256:\n"
        write(base / "dists" / suite / "InRelease", self.sign(text + "".join(checksums)))

    def publish_all(self, suite: str, packages: Mapping[str, Sequence[str]]) -> None:
        """*packages* as the suite; its updates and security updates are empty."""
        self.publish(suite, packages)
        for pocket in POCKETS[1:]:
            self.publish(suite + pocket, dict.fromkeys(packages, ()))

    def sign(self, text: str) -> bytes:
        signed = pysequoia.sign(self.secret.signer(), text.encode(), mode=pysequoia.SignatureMode.CLEAR)
        return bytes(signed)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextmanager
def inputs(store: Store) -> Iterator[Inputs]:
    """What a maker is given, until its layer is written."""
    with ExitStack() as stack:
        yield Inputs(store.open, store.scratch, stack)


def step(kind: str, store: Store, debs: Mapping[str, bytes], **params: str) -> Step:
    """A step over *debs*, which are put into *store*."""
    pinned = tuple(Pinned(name, store.put(data), len(data)) for name, data in debs.items())
    return Step(kind, kind, "debian", params, pinned)
