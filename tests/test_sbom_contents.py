"""What is read out of layers: packages, licences, the base, what a whiteout hides, what is not as locked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.audit import cyclonedx, spdx
from pesto_repro.audit.contents import Contents, contents
from pesto_repro.audit.licences import NONE, Licence, of_copyright, of_metadata
from pesto_repro.audit.scan import image_layers, manifests
from pesto_repro.build.entry import Entry, data, symlink
from pesto_repro.cli.main import run
from pesto_repro.errors import FetchError, LockError, PestoError
from pesto_repro.lock.model import (
    Assembly,
    DebianPackage,
    Input,
    Interpreter,
    Lock,
    Pin,
    PlatformLock,
    PythonPackage,
    Source,
)
from pesto_repro.lock.text import seal
from pesto_repro.oci import Base, Descriptor, Layer, MediaType, Platform, Recipe, assemble, assemble_index
from pesto_repro.registry.content import StoreContent, documents
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.images import CREATED, as_base, make_image, make_layer, make_layers
from tests.test_sbom import require_valid

SITE = "opt/venv/lib/python3.13/site-packages"
HEX = "7" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def metadata(name: str, version: str, *lines: str, site: str = SITE) -> Entry:
    text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines, "", ""])
    return data(f"{site}/{name}-{version}.dist-info/METADATA", text.encode())


def control(name: str, version: str, *lines: str) -> str:
    return "\n".join([f"Package: {name}", *lines, "Architecture: amd64", f"Version: {version}", ""])


def status(name: str, version: str) -> Entry:
    return data(f"var/lib/dpkg/status.d/{name}", control(name, version).encode())


def found_in(
    store: Store, *layers: Layer, base: tuple[Layer, ...] = (), lock: Lock | None = None, created: str = CREATED
) -> Contents:
    """What is in the image of *layers* on *base*, which was made from *lock*."""
    labels = {"org.pesto-repro.lock": lock.content_hash} if lock else {}
    recipe = Recipe(Platform("linux", "amd64"), created, "1:1", labels=labels)
    below = Base(base, {"architecture": "amd64", "os": "linux"}) if base else None
    image = assemble_index([assemble(recipe, layers, below)])
    content = StoreContent.of(image, store)
    (manifest,) = manifests(documents(content, image.descriptor))
    return contents(manifest, content, lock)


def names(found: Contents) -> list[tuple[str, str, str]]:
    return [(each.section, each.name, each.version) for each in found.packages]


def make_lock(*packages: PythonPackage, debian: tuple[DebianPackage, ...] = ()) -> Lock:
    python = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")
    part = PlatformLock(platform="linux/amd64", python=python, packages=packages, debian=debian)
    asked = Input(
        name="small", platforms=("linux/amd64",), base="debian trixie", runtime="r", max_layers=40, user="1:1"
    )
    rules = Assembly(version=1, compression="gzip", compressor="zlib-ng", epoch=CREATED)
    unsealed = f"sha256:{'0' * 64}"
    return seal(Lock(lock_version=1, content_hash=unsealed, assembly=rules, input=asked, platforms=(part,)))


def wheel(name: str, version: str, **more: Any) -> PythonPackage:
    filename = f"{name}-{version}-py3-none-any.whl"
    return PythonPackage(name=name, version=version, wheel=Pin(name=filename, sha256=HEX, size=3), **more)


def test_packages_of_the_base_are_the_bases(store: Store) -> None:
    """dpkg's own status and any site-packages count there; they are no part of the lock, and no contradiction."""
    base = make_layer(
        store,
        "base",
        data("var/lib/dpkg/status", f"{control('bash', '5.2', 'Status: install ok installed')}\n".encode()),
        metadata("pip", "25.0", site="usr/local/lib/python3.13/site-packages"),
    )
    ours = make_layer(store, "numpy", metadata("numpy", "2.3.1"))
    found = found_in(store, ours, base=(as_base(base),), lock=make_lock(wheel("numpy", "2.3.1")))
    assert [("base", "bash", "5.2"), ("python", "numpy", "2.3.1"), ("base", "pip", "25.0")] == names(found)
    assert [None, HEX, None] == [each.sha256 for each in found.packages]


def test_removed_packages_are_not_listed(store: Store) -> None:
    """dpkg(1): "config-files" may remain of one; "not-installed" was never there."""
    text = "\n".join(
        [
            control("old", "1", "Status: deinstall ok config-files"),
            control("never", "1", "Status: purge ok not-installed"),
            control("here", "1", "Status: install ok installed"),
        ]
    )
    base = make_layer(store, "base", data("var/lib/dpkg/status", text.encode()))
    assert [("base", "here", "1")] == names(found_in(store, base=(as_base(base),)))


@pytest.mark.parametrize(
    "hidden",
    [
        data("var/lib/dpkg/status.d/.wh.bash", b""),
        data("var/lib/dpkg/.wh.status.d", b""),
        data("var/lib/dpkg/status.d/.wh..wh..opq", b""),
        data(".wh.var", b""),
        data("var/lib/dpkg/status.d", b"a file now"),
        symlink("var/lib/dpkg/status.d", "elsewhere"),
    ],
    ids=lambda each: f"{each.kind} {each.path}",
)
def test_what_a_later_layer_hides_is_not_there(hidden: Entry, store: Store) -> None:
    """layer.md, "Whiteouts"; a file or a link takes the place of a folder, too."""
    layers = make_layer(store, "one", status("bash", "5.2")), make_layer(store, "two", hidden)
    assert [] == names(found_in(store, base=tuple(map(as_base, layers))))


def test_a_whiteout_does_not_hide_its_own_layer(store: Store) -> None:
    """layer.md: "Whiteout files MUST only apply to resources in lower/parent layers"."""
    below = make_layer(store, "one", status("bash", "5.2"))
    above = make_layer(store, "two", status("dash", "1"), data("var/lib/dpkg/status.d/.wh..wh..opq", b""))
    found = found_in(store, base=(as_base(below), as_base(above)))
    assert [("base", "dash", "1")] == names(found)


def test_debians_own_python_packages_are_debians(store: Store) -> None:
    """Below our virtual environment they are only files of a Debian package, as are packages inside a package."""
    layer = make_layer(
        store,
        "python3-six",
        status("python3-six", "1.17"),
        metadata("six", "1.17", site="usr/lib/python3/dist-packages"),
        metadata("vendored", "1", site=f"{SITE}/setuptools/_vendor"),
        kind="debian",
    )
    assert [("debian", "python3-six", "1.17")] == names(found_in(store, layer))


def test_the_distribution_is_what_os_release_says(store: Store) -> None:
    """Links followed: etc/os-release leads to usr/lib."""
    system = [
        data("usr/lib/os-release", b'ID=ubuntu\nVERSION_CODENAME="noble"\n'),
        symlink("etc/os-release", "../usr/lib/os-release"),
    ]
    (package,) = found_in(store, make_layer(store, "bash", *system, status("bash", "5.2"))).packages
    assert "pkg:deb/ubuntu/bash@5.2?arch=amd64&distro=noble" == package.purl.to_string()


def test_a_copyright_may_lie_behind_a_link(store: Store) -> None:
    """Debian Policy 12.3: ``/usr/share/doc/PACKAGE`` may be a link to that of another one."""
    text = b"Format: https://example.org/1.0/\n\nFiles: *\nCopyright: x\nLicense: Expat\n"
    layer = make_layer(
        store,
        "libb1",
        status("libb1", "1"),
        data("usr/share/doc/liba1/copyright", text),
        symlink("usr/share/doc/libb1", "liba1"),
    )
    (package,) = found_in(store, layer).packages
    assert Licence("MIT") == package.licence


def test_links_in_a_circle_end(store: Store) -> None:
    """They lead to no document."""
    links = [symlink("usr/share/doc/bash", "dash"), symlink("usr/share/doc/dash", "bash")]
    (package,) = found_in(store, make_layer(store, "bash", *links, status("bash", "1"))).packages
    assert NONE == package.licence


def test_an_image_that_is_not_its_lock_is_refused(store: Store) -> None:
    """Both ways at once: what is not locked, and what is not in it."""
    debian = DebianPackage(
        name="dash", version="1", architecture="amd64", filename="d", suite="s", snapshot="t", sha256=HEX, size=1
    )
    layer = make_layer(store, "numpy", metadata("numpy", "2.3.1"), metadata("evil", "6"))
    with pytest.raises(PestoError) as caught:
        found_in(store, layer, lock=make_lock(wheel("numpy", "2.3.0"), debian=(debian,)))
    expected = (
        "the image is not what its lock says:\n"
        "  evil 6 (python) is not locked\n"
        "  numpy 2.3.1 (python) is not locked\n"
        "  dash 1 (debian) is not in it\n"
        "  numpy 2.3.0 (python) is not in it"
    )
    assert expected == caught.value.message
    assert "do not trust it; build it again and compare: pesto-repro verify" == caught.value.hint


def test_versions_are_equal_by_their_meaning(store: Store) -> None:
    """METADATA may spell a version in another way than the lock, whose spelling counts."""
    layer = make_layer(store, "numpy", metadata("NumPy", "2.0.0.post01"))
    assert [("python", "numpy", "2.0.post1")] == names(
        found_in(store, layer, lock=make_lock(wheel("numpy", "2.0.post1")))
    )


def test_a_lock_needs_an_image_that_names_it(store: Store) -> None:
    """One without the label was not made from it."""
    image = make_image((make_layer(store, "numpy"),))
    content = StoreContent.of(image, store)
    (manifest,) = manifests(documents(content, image.descriptor))
    lock = make_lock()
    with pytest.raises(LockError) as caught:
        contents(manifest, content, lock)
    assert f"the image was made from the lock sha256:{'1' * 64}, not from {lock.content_hash}" == caught.value.message


def test_a_wheel_built_here_says_of_what(store: Store) -> None:
    """The source, its digest and the commit are in both documents."""
    source = Source(kind="git", name="https://example.org/wget.git", sha256="8" * 64, size=9, commit="c0ffee")
    layer = make_layer(store, "wget", metadata("wget", "3.2"))
    found = found_in(store, layer, lock=make_lock(wheel("wget", "3.2", source=source)))
    (component,) = json.loads(cyclonedx.document(found))["components"]
    assert [{"uid": "c0ffee"}] == component["pedigree"]["commits"]
    assert ["https://example.org/wget.git"] == [each["name"] for each in component["pedigree"]["ancestors"]]
    packages = json.loads(spdx.document(found))["packages"]
    expected = f"built from the git https://example.org/wget.git at commit c0ffee, sha256:{'8' * 64}"
    assert [expected] == [each["sourceInfo"] for each in packages if "sourceInfo" in each]
    for form, data_ in (("cyclonedx", cyclonedx.document(found)), ("spdx", spdx.document(found))):
        require_valid(form, data_)


def test_equal_names_have_identifiers_of_their_own(store: Store) -> None:
    """A package may be in the base, in ours, and for two architectures."""
    two = "\n".join([control("libc6", "1"), control("libc6", "1").replace("amd64", "i386")])
    base = make_layer(store, "base", data("var/lib/dpkg/status", two.encode()), metadata("pip", "1", site=SITE))
    ours = make_layer(store, "pip", metadata("pip", "1", site="opt/venv/lib/python3.14/site-packages"))
    found = found_in(store, ours, base=(as_base(base),))
    assert 4 == len(found.packages)
    require_valid("spdx", spdx.document(found))
    require_valid("cyclonedx", cyclonedx.document(found))
    assert 4 == len(json.loads(cyclonedx.document(found))["components"])


def test_hostile_names_make_valid_documents(store: Store) -> None:
    """What packages say of themselves is quoted, whatever it is."""
    layer = make_layer(
        store,
        "odd",
        metadata("o", "1", "License: a, b & <c>", "Classifier: License :: Other/Proprietary License"),
        data("opt/algorithm/a b#c'\"\\é\n.txt", b"x"),
        kind="algorithm",
    )
    found = found_in(store, layer)
    for form, document in (("cyclonedx", cyclonedx.document(found)), ("spdx", spdx.document(found))):
        require_valid(form, document)


def test_names_that_are_no_text_are_spelled_out(store: Store) -> None:
    """A file's name is bytes, and others make layers that ours never are; JSON holds text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("./opt/a\udcff.txt"))
    digest = store.put(buffer.getvalue())
    descriptor = Descriptor(MediaType.LAYER, digest, len(buffer.getvalue()))
    found = found_in(store, Layer("algorithm", "odd", "", descriptor, digest))
    assert ["opt/a\\xff.txt"] == [each.path for each in found.files]
    require_valid("spdx", spdx.document(found))


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("", "1970-01-01T00:00:00Z"),
        ("2025-06-01T01:02:03.123456789Z", "2025-06-01T01:02:03Z"),
        ("2025-06-01T01:02:03+02:00", "2025-05-31T23:02:03Z"),
        ("2025-06-01T01:02:03", "2025-06-01T01:02:03Z"),
    ],
)
def test_times_are_the_images(created: str, expected: str, store: Store) -> None:
    """Whoever made it spells them as they like; without one it is none of ours."""
    found = found_in(store, make_layers(store)[1], created=created)
    assert expected == json.loads(spdx.document(found))["creationInfo"]["created"]
    require_valid("cyclonedx", cyclonedx.document(found))


def test_a_time_that_is_none_is_refused(store: Store) -> None:
    """And not guessed."""
    with pytest.raises(FetchError) as caught:
        found_in(store, make_layers(store)[1], created="soon")
    assert "the image's config says that it was created at 'soon', which is no time" == caught.value.message


@pytest.mark.parametrize(
    "config",
    [{}, {"rootfs": {"diff_ids": []}}, {"rootfs": {"diff_ids": ["sha256:x"]}}, {"rootfs": []}, {"history": ["x"]}],
    ids=str,
)
def test_a_config_of_other_layers_is_refused(config: dict[str, Any], store: Store) -> None:
    """As many diff_ids as layers, and each a digest; others write configs, too."""
    image = make_image((make_layer(store, "x"),))
    content = StoreContent.of(image, store)
    (manifest,) = manifests(documents(content, image.descriptor))
    whole = {"rootfs": {"diff_ids": [f"sha256:{HEX}"]}, **config} if "history" in config else config
    with pytest.raises(FetchError, match=f"^the config of {image.digest} is not that of its layers: "):
        image_layers(manifest, whole)


def test_a_layer_that_is_no_tar_is_refused(store: Store) -> None:
    """Bytes that no container engine could unpack."""
    layer = make_layer(store, "x", data("a", b"b" * 2000))
    broken = store.put(b"no tar at all")
    descriptor = replace(layer.descriptor, digest=broken, size=13)
    with pytest.raises(FetchError, match=f"^the layer {broken} cannot be read: "):
        found_in(store, replace(layer, descriptor=descriptor))


def test_several_platforms_want_a_choice(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A document is of one platform."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    path = tmp_path / "image.tar"
    write_archive(image, "some:1", path, store)
    assert 1 == run(["sbom", "-q", str(path)])
    refusal = "error: some:1 is for linux/amd64, linux/arm64\nhint: choose one of them with --platform\n"
    assert capsys.readouterr().err.endswith(refusal)
    assert 1 == run(["sbom", "-q", str(path), "--platform", "linux/riscv64"])
    assert "error: some:1 is not for linux/riscv64, but for linux/amd64, linux/arm64" in capsys.readouterr().err
    digests = []
    for number, name in enumerate(("linux/amd64", "linux/arm64")):
        assert 0 == run(["sbom", "-q", str(path), "--platform", name])
        component: Mapping[str, Any] = json.loads(capsys.readouterr().out)["metadata"]["component"]
        assert image.platforms[number].descriptor.digest.hex == component["hashes"][0]["content"]
        digests.append(component["hashes"])
    assert digests[0] != digests[1]


def test_layers_are_read_in_every_compression(store: Store) -> None:
    """gzip, zstd, none."""
    layers = [
        make_layer(store, name, metadata(name, "1"), compression=name if name != "plain" else "none")
        for name in ("gzip", "zstd", "plain")
    ]
    assert ["gzip", "plain", "zstd"] == [each.name for each in found_in(store, *layers).packages]


# -- licences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("mit OR Apache-2.0", None, [], Licence("MIT OR Apache-2.0")),
        (None, "BSD-3-Clause", ["License :: OSI Approved :: BSD License"], Licence("BSD-3-Clause")),
        (None, "MIT License", ["License :: OSI Approved :: MIT License"], Licence("MIT")),
        (
            None,
            None,
            ["License :: OSI Approved", "License :: OSI Approved :: BSD License"],
            Licence(None, ("BSD License",)),
        ),
        (None, "Apache 2.0", [], Licence(None, ("Apache 2.0",))),
        (None, "UNKNOWN", [], NONE),
        (None, "Copyright (c) me\n\nAll rights\nreserved", [], NONE),
        ("LicenseRef-Mine", None, [], Licence(None, ("LicenseRef-Mine",))),
        (None, None, [], NONE),
    ],
)
def test_licences_of_python_packages(
    expression: str | None, text: str | None, classifiers: list[str], expected: Licence
) -> None:
    """PEP 639's expression first, then License where it is one, then a classifier that means one licence only."""
    assert expected == of_metadata(expression, text, classifiers)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["Expat"], Licence("MIT")),
        (["GPL-2+", "LGPL-2.1"], Licence("GPL-2.0-or-later AND LGPL-2.1-only")),
        (["BSD-3-clause or GPL-2", "zlib"], Licence("(BSD-3-Clause OR GPL-2.0-only) AND Zlib")),
        (["Expat", "Expat"], Licence("MIT")),
        (["Expat", "public-domain"], Licence(None, ("Expat", "public-domain"))),
        (["GPL-2+ with OpenSSL exception"], Licence(None, ("GPL-2+ with OpenSSL exception",))),
        ([], NONE),
    ],
)
def test_licences_of_debian_packages(licences: list[str], expected: Licence) -> None:
    """All of DEP-5's Files paragraphs together; one short name that SPDX does not list, and all are quoted."""
    files = "".join(f"\n\nFiles: {number}\nLicense: {each}\n the text" for number, each in enumerate(licences))
    assert expected == of_copyright(f"Format: https://example.org/1.0/{files}\n\nLicense: ISC\n its text, of no file\n")


def test_a_copyright_for_people_says_nothing() -> None:
    """DEP-5: without Format it is not machine-readable, whatever its lines look like."""
    assert NONE == of_copyright("This package is free.\n\nFiles: *\nLicense: Expat\n")
