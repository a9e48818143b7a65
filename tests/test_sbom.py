"""The bill of materials: valid by its schemas, exactly what the lock pins, the same for equal images."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from pesto_repro.cli.main import run
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.registry.content import LayoutContent, documents
from pesto_repro.validate import validate
from tests.e2e import EXAMPLES, REPOSITORY, build
from tests.small_project import Small, make_small, write_lock

FORMS = ("cyclonedx", "spdx")
Pins = set[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Made:
    """The small project, built twice: *bills* are of the project with a store of its own, by format."""

    small: Small
    lock: Lock
    digest: str
    bills: dict[str, bytes]


@pytest.fixture(scope="session")
def made(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built as an archive in one store; described from the project in another."""
    small = make_small(tmp_path_factory.mktemp("sbom"), runtime_wheel)
    digest = small.build()["digest"]
    other = small.root.parent / "other-store"
    bills = {form: sbom(small.root, form, "--store", other, env=small.env) for form in FORMS}
    return Made(small, lock_text.loads(small.lockfile.read_text(), "lock"), digest, bills)


def sbom(target: Path, form: str, *arguments: str | Path, env: dict[str, str] | None = None) -> bytes:
    """``sbom TARGET --format FORM``, run here: what it writes."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        path = Path(folder, "bill.json")
        command = ["sbom", str(target), "--format", form, "-o", str(path), *map(str, arguments)]
        assert 0 == run(command)
        return path.read_bytes()


def require_valid(form: str, data: bytes) -> None:
    """Hold *data* against the format's schema and rules."""
    if form == "cyclonedx":
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bill.spdx.json")
        path.write_bytes(data)
        found = validate_full_spdx_document(parse_file(str(path)), "SPDX-2.3")
    assert [] == [message.validation_message for message in found]


def packages_in(form: str, data: bytes) -> Pins:
    """(purl, version, sha256) of every Python or Debian package that a document lists."""
    document = json.loads(data)
    if form == "cyclonedx":
        listed = [each for each in document["components"] if "purl" in each]
        return {(each["purl"], each["version"], each.get("hashes", [{}])[0].get("content", "")) for each in listed}
    found: Pins = set()
    for each in document["packages"]:
        for reference in each.get("externalRefs", ()):
            sums = [one["checksumValue"] for one in each.get("checksums", ())]
            found.add((reference["referenceLocator"], each["versionInfo"], *(sums or [""])))
    return found


def pinned_in(lock: Lock) -> Pins:
    """The same of a lock for one platform."""
    (platform,) = lock.platforms
    found = {(f"pkg:pypi/{each.name}@{each.version}", each.version, each.wheel.sha256) for each in platform.packages}
    for each in platform.debian:
        version = each.version.replace("+", "%2B")
        name = each.name.replace("+", "%2B")
        qualifiers = f"arch={each.architecture}&distro={each.suite.partition('-')[0]}"
        found.add((f"pkg:deb/debian/{name}@{version}?{qualifiers}", each.version, each.sha256))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_it_is_valid(form: str, made: Made) -> None:
    """By the judgement of the formats' own validators."""
    require_valid(form, made.bills[form])


@pytest.mark.parametrize("form", FORMS)
def test_it_lists_exactly_the_locks_packages(form: str, made: Made) -> None:
    """Compared as sets, so in both directions; each with the digest of its wheel."""
    assert pinned_in(made.lock) == packages_in(form, made.bills[form])


@pytest.mark.parametrize("form", FORMS)
def test_equal_images_have_equal_bills(form: str, made: Made) -> None:
    """Of the project in one store and of the archive that another store made: byte for byte."""
    assert made.bills[form] == sbom(made.small.output, form, "--lockfile", made.small.lockfile)


def test_a_bill_is_of_nobodys_time_and_chance(made: Made) -> None:
    """The time is the image's, the serial number follows from its digest; no version of a tool is named."""
    document = json.loads(made.bills["cyclonedx"])
    assert "2026-01-02T03:04:05+00:00" == document["metadata"]["timestamp"]
    assert {"component", "timestamp"} == set(document["metadata"])
    spdx = json.loads(made.bills["spdx"])
    assert {"created": "2026-01-02T03:04:05Z", "creators": ["Tool: pesto-repro"]} == spdx["creationInfo"]


def test_it_is_about_the_image(made: Made) -> None:
    """The component, or package, that the document describes has the manifest's digest."""
    component = json.loads(made.bills["cyclonedx"])["metadata"]["component"]
    assert [{"alg": "SHA-256", "content": made.digest.removeprefix("sha256:")}] == component["hashes"]
    assert "container" == component["type"]
    spdx = json.loads(made.bills["spdx"])
    (described,) = [each for each in spdx["packages"] if each["SPDXID"] == "SPDXRef-image"]
    assert made.digest == f"sha256:{described['checksums'][0]['checksumValue']}"
    relation = {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES"}
    assert relation | {"relatedSpdxElement": "SPDXRef-image"} in spdx["relationships"]


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in component["properties"]}


def test_it_says_in_which_layer_each_package_is(made: Made) -> None:
    """And the layer really holds it."""
    document = json.loads(made.bills["cyclonedx"])
    (alpha,) = [each for each in document["components"] if each["name"] == "alpha"]
    said = properties(alpha)
    archive = LayoutContent.at(made.small.output)
    layers = documents(archive, archive.root())[-1].blobs[1:]
    (layer,) = [each for each in layers if str(each.digest) == said["pesto-repro:layer:digest"]]
    with archive.open(layer) as stream, tarfile.open(fileobj=io.BytesIO(stream.read()), mode="r:gz") as tar:
        names = {info.name for info in tar}
    assert "opt/venv/lib/python3.13/site-packages/alpha-1.0.dist-info/METADATA" in names
    assert "alpha-1.0-py3-none-any.whl" == said["pesto-repro:package:filename"]
    assert "python" == said["pesto-repro:package:section"]


def test_it_lists_the_projects_files_and_documents(made: Made) -> None:
    """The algorithm's own, and what is generated of it; each with its digest."""
    document = json.loads(made.bills["cyclonedx"])
    files = {each["name"]: each["hashes"][0]["content"] for each in document["components"] if each["type"] == "file"}
    assert {"/opt/small/algorithm/process.py", "/etc/pesto/service.json", "/etc/pesto/version.json"} <= set(files)
    expected = {
        f"/opt/small/{path.relative_to(made.small.root)}"
        for path in (made.small.root / "algorithm").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert expected == {name for name in files if name.startswith("/opt/small/algorithm/")}
    spdx = json.loads(made.bills["spdx"])
    sums = {each["fileName"].removeprefix("."): each["checksums"][1]["checksumValue"] for each in spdx["files"]}
    assert files == sums


def test_it_lists_the_resources(made: Made) -> None:
    """With their sources and digests; a folder has that of its tree."""
    document = json.loads(made.bills["cyclonedx"])
    found = {each["name"]: each for each in document["components"] if each["type"] == "data"}
    assert {each.key for each in made.lock.resources} == set(found)
    for each in made.lock.resources:
        said = properties(found[each.key])
        assert each.source == said["pesto-repro:resource:source"]
        assert each.tree == said.get("pesto-repro:resource:tree")
        assert [each.sha256] * bool(each.sha256) == [one["content"] for one in found[each.key].get("hashes", ())]


def test_an_image_alone_is_enough(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the lock the packages are the same; only what layers do not know is left out, which is said."""
    data = sbom(made.small.output, "cyclonedx")
    require_valid("cyclonedx", data)
    assert {each[:2] for each in pinned_in(made.lock)} == {each[:2] for each in packages_in("cyclonedx", data)}
    expected = (
        "warning: small:1.0.0 comes without its lock: where its packages came from is not said\n"
        "hint: name the lock with --lockfile\n"
    )
    assert capsys.readouterr().err.startswith(expected)


def test_a_lock_of_another_image_is_refused(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its digests would be those of other wheels."""
    other = lock_text.seal(made.lock.model_copy(update={"resources": ()}))
    path = tmp_path / "other.lock.toml"
    path.write_text(lock_text.dumps(other))
    assert 1 == run(["sbom", str(made.small.output), "--lockfile", str(path)])
    expected = (
        f"error: the image was made from the lock {made.lock.content_hash}, not from {other.content_hash}\n"
        "hint: give the lock that it was made from\n"
    )
    assert expected == capsys.readouterr().err


def test_profiles_are_a_projects(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """An image was built with the profiles that it was built with."""
    assert 1 == run(["sbom", str(made.small.output), "-p", "p1"])
    expected = (
        f"error: {made.small.output} is an image: its profiles were chosen when it was built\n"
        "hint: leave -p out, or name a project\n"
    )
    assert expected == capsys.readouterr().err


def test_it_goes_to_stdout_too(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bytes as in a file."""
    assert 0 == run(["sbom", str(made.small.output), "--lockfile", str(made.small.lockfile)])
    assert made.bills["cyclonedx"].decode() == capsys.readouterr().out


def test_an_embedded_lock_is_found(runtime_wheel: Path, tmp_path: Path) -> None:
    """An image that holds its own lock needs no other: the bill of the archive is that of the project."""
    small = make_small(tmp_path, runtime_wheel)
    before = lock_text.loads(small.lockfile.read_text(), "lock")
    small.settings.write_text(f"[image]\nembed-lock = true\n{small.settings.read_text()}")
    write_lock(small, before.platforms[0].packages)
    small.build()
    data = sbom(small.output, "cyclonedx")
    assert data == sbom(small.root, "cyclonedx", "--store", small.store, env=small.env)
    assert pinned_in(lock_text.loads(small.lockfile.read_text(), "lock")) == packages_in("cyclonedx", data)
    assert "/etc/pesto/lock.toml" in {each["name"] for each in json.loads(data)["components"]}


# -- with Debian's packages --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def example(warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of hello-service, on a base of Debian packages."""
    archive = tmp_path_factory.mktemp("sbom") / "hello-service.tar"
    build(EXAMPLES / "hello-service", store=warm_store, output=archive)
    return archive


LOCKFILE = REPOSITORY / "lockfiles/hello-service.lock.toml"


@pytest.mark.network
@pytest.mark.parametrize("form", FORMS)
def test_debians_packages_are_listed(form: str, example: Path) -> None:
    """Exactly those of the lock, as purls with architecture and suite, in a valid document."""
    data = sbom(example, form, "--lockfile", LOCKFILE)
    require_valid(form, data)
    assert pinned_in(lock_text.loads(LOCKFILE.read_text(), "lock")) == packages_in(form, data)


@pytest.mark.network
def test_licences_are_the_packages_own_words(example: Path) -> None:
    """An expression where a package states one that SPDX knows, its words where not, nothing where it states none."""
    document = json.loads(sbom(example, "cyclonedx", "--lockfile", LOCKFILE))
    found = {each["name"]: each.get("licenses") for each in document["components"] if "purl" in each}
    assert [{"expression": "Zlib"}] == found["zlib1g"]
    assert [{"expression": "GPL-2.0-or-later AND MPL-2.0"}] == found["ca-certificates"]
    assert {"license": {"name": "public-domain"}} in found["tzdata"]
    assert [{"expression": "PSF-2.0"}] == found["typing-extensions"]
    assert None is found["python3.13-minimal"]  # its copyright is for people only


@pytest.mark.network
def test_scanners_find_the_packages_by_themselves(example: Path) -> None:
    """A reader that knows nothing of us, only where dist-info and dpkg's status.d lie, finds the lock's packages."""
    validate(example)
    (platform,) = lock_text.loads(LOCKFILE.read_text(), "lock").platforms
    expected = {(each.name, each.version) for each in platform.packages}
    expected |= {(each.name, each.version) for each in platform.debian}
    assert expected == scanned(example)


def scanned(archive: Path) -> set[tuple[str, str]]:
    """(name, version) of every package in *archive*, read with nothing but the standard library."""
    found: set[tuple[str, str]] = set()
    with tarfile.open(archive) as outer:
        read: Callable[[str], bytes] = lambda name: outer.extractfile(name).read()  # type: ignore[union-attr]  # noqa: E731
        root = json.loads(read("index.json"))["manifests"][0]["digest"]
        for layer in json.loads(read(blob(root)))["layers"]:
            with tarfile.open(fileobj=outer.extractfile(blob(layer["digest"])), mode="r:gz") as tar:
                for info in tar:
                    if is_package(info.name):
                        found.add(named(tar.extractfile(info).read().decode()))  # type: ignore[union-attr]
    return found


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def is_package(path: str) -> bool:
    folder, name = os.path.split(path)
    status = folder == "var/lib/dpkg/status.d" and not name.endswith(".md5sums")
    return status or (folder.endswith(".dist-info") and name == "METADATA" and "/site-packages/" in folder)


def named(text: str) -> tuple[str, str]:
    """Of METADATA or of a control paragraph, which have the same form."""
    fields = dict(line.partition(": ")[::2] for line in text.split("\n\n")[0].splitlines())
    name = fields.get("Package") or fields["Name"].lower().replace("_", "-")
    return name, fields["Version"]
