"""TLS for a service: a key of its own, made beside an image that may be anybody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, Mount
from pesto_repro.service.tls import with_tls


@pytest.fixture
def pesto(tmp_path: Path) -> Path:
    """The folder of PESTO in a root."""
    folder = tmp_path / "root/etc/pesto"
    folder.mkdir(parents=True)
    (folder / "service.json").write_text("{}")
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_service_without_a_key_gets_one(pesto: Path, scratch: Path) -> None:
    """Beside what its folder has, in a copy; the image stays as it is."""
    cell = with_tls(Cell(pesto.parents[1], {"A": "b"}), scratch)
    assert {"A": "b", "PESTO_USE_SSL": "true"} == cell.env
    assert (Mount(scratch / "pesto", "/etc/pesto"),) == cell.mounts
    found = sorted(path.relative_to(scratch / "pesto").as_posix() for path in (scratch / "pesto").rglob("*"))
    assert ["service.json", "ssl", "ssl/cert.pem", "ssl/key.pem"] == found
    assert ["service.json"] == [path.name for path in pesto.iterdir()]


def test_a_key_of_its_own_is_used(pesto: Path, scratch: Path) -> None:
    """Nothing is made."""
    (pesto / "ssl").mkdir()
    for name in ("key.pem", "cert.pem"):
        (pesto / "ssl" / name).touch()
    assert () == with_tls(Cell(pesto.parents[1], {}), scratch).mounts


@pytest.mark.parametrize("place", ["ssl", "ssl/key.pem"])
def test_a_link_in_the_image_leads_nothing_to_the_host(pesto: Path, scratch: Path, tmp_path: Path, place: str) -> None:
    """The key is not written through it."""
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "key.pem").write_text("precious")
    (pesto / place).parent.mkdir(exist_ok=True)
    (pesto / place).symlink_to(ours if place == "ssl" else ours / "key.pem")
    with_tls(Cell(pesto.parents[1], {}), scratch)
    assert [("key.pem", "precious")] == [(path.name, path.read_text()) for path in ours.iterdir()]
    assert (scratch / "pesto/ssl/key.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_a_folder_of_the_host_is_none_of_the_image(pesto: Path, scratch: Path, tmp_path: Path) -> None:
    """A link that is /etc is followed inside the root."""
    root = tmp_path / "other"
    root.mkdir()
    (root / "etc").symlink_to(pesto.parent)
    with pytest.raises(PestoError) as caught:
        with_tls(Cell(root, {}), scratch)
    assert (
        "the image cannot use TLS: it has no /etc/pesto/service.json, so it is no PESTO service" == caught.value.message
    )
