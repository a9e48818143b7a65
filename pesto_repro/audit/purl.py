"""Package URLs, the names by which scanners and databases know a package (the purl specification): the one importer."""

from __future__ import annotations

import posixpath

from packageurl import PackageURL

__all__ = ["PackageURL", "debian", "oci", "pypi"]


def pypi(name: str, version: str) -> PackageURL:
    """Of a Python package; *name* in normal form."""
    return PackageURL("pypi", None, name, version)


def debian(
    name: str, version: str, architecture: str | None, codename: str | None, vendor: str = "debian"
) -> PackageURL:
    """Of a Debian package; *codename* is that of the distribution, "trixie"."""
    qualifiers = {key: value for key, value in (("arch", architecture), ("distro", codename)) if value}
    return PackageURL("deb", vendor, name, version, qualifiers)


def oci(reference: str, digest: str) -> PackageURL:
    """Of an image, which is known by the last part of its name and its digest."""
    name = posixpath.basename(reference.partition("@")[0]).partition(":")[0].lower()
    return PackageURL("oci", None, name or "image", digest)
