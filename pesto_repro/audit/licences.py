"""Under which licence a package stands, by its own words: an SPDX expression where they mean one, else the words.

Nothing is guessed from a licence's text. Python packages say it in their core metadata (PEP 639: License-Expression;
before it License and classifiers), Debian's in ``copyright`` where that is machine-readable (DEP-5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from pesto_repro.fetch.debian import paragraphs

_CLASSIFIERS = {
    "Apache Software License": None,  # of no version
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
}
"""The last part of a classifier -> its SPDX identifier, where there is but one ("BSD License" may mean several)."""
_DEBIAN = {
    "expat": "MIT",
    "artistic": "Artistic-1.0",
    "psf-2": "PSF-2.0",
    "python": "PSF-2.0",
    "zlib": "Zlib",
    "cc0": "CC0-1.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
}
"""Short names of DEP-5 ("License specification") that SPDX spells in another way; the GNU licences follow a rule."""
_GNU = ("gpl", "lgpl", "agpl", "gfdl")


@dataclass(frozen=True, slots=True)
class Licence:
    """*expression* in SPDX's words, if there is one; *stated*: what the package says instead."""

    expression: str | None = None
    stated: tuple[str, ...] = ()


NONE = Licence()
"""Nobody says so in a way that a program could read."""


def of_metadata(expression: str | None, text: str | None, classifiers: Iterable[str]) -> Licence:
    """Of a Python package's License-Expression, License and classifiers."""
    for said in (expression, text):
        if said and (found := spdx(said)):
            return Licence(found)
    words = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    named = sorted({word for word in words if word != "OSI Approved"})
    known = [_CLASSIFIERS.get(word) for word in named]
    if len(known) == 1 and known[0]:
        return Licence(known[0])
    lines = (text or expression or "").strip().splitlines()
    lines = [] if lines == ["UNKNOWN"] else lines  # what setuptools wrote where nothing was said
    # License used to hold the licence's whole text as often as its name
    return Licence(None, tuple(named) or ((lines[0],) if len(lines) == 1 else ()))


def of_copyright(text: str) -> Licence:
    """Of a Debian package's ``copyright``: every licence that one of its files stands under."""
    # DEP-5, "Header stanza": Format is REQUIRED; without it the file is for people only
    if not text.lstrip().lower().startswith("format:"):
        return NONE
    stanzas = list(paragraphs(text))
    said = sorted({synopsis for each in stanzas if "files" in each for synopsis in _synopsis(each)})
    if not said:
        return NONE
    translated = [_translated(each) for each in said]
    known = sorted({each for each in translated if each})
    if len([each for each in translated if each]) < len(said):
        return Licence(None, tuple(said))
    return Licence(known[0] if len(known) == 1 else " AND ".join(map(_grouped, known)))


def _synopsis(stanza: dict[str, str]) -> Iterator[str]:
    """DEP-5, "License": "First line: ... abbreviated names for the licenses"."""
    lines = stanza.get("license", "").strip().splitlines()
    if lines and lines[0].strip():
        yield " ".join(lines[0].split())


def _translated(synopsis: str) -> str | None:
    """``GPL-2+ or Expat`` as ``GPL-2.0-or-later OR MIT``; None if a part of it is no licence that SPDX lists."""
    words = synopsis.replace(", and ", " and ").replace(", or ", " or ").split()
    return spdx(" ".join(_word(each, words) for each in words))


def _word(word: str, words: Sequence[str]) -> str:
    lower = word.lower()
    if lower in ("and", "or"):
        return lower.upper()
    if lower in _DEBIAN:
        return _DEBIAN[lower]
    family, dash, version = lower.partition("-")
    if family in _GNU and dash and version.rstrip("+").replace(".", "").isdigit():
        number = version.rstrip("+")
        number = number if "." in number else f"{number}.0"
        return f"{family.upper()}-{number}-{'or-later' if version.endswith('+') else 'only'}"
    return word


def _grouped(expression: str) -> str:
    return f"({expression})" if " OR " in expression else expression


def spdx(text: str) -> str | None:
    """*text* as an SPDX expression in canonical form; None if it is none.

    ``LicenseRef-x`` is none either: what it refers to is defined elsewhere (SPDX 2.3, Annex D).
    """
    try:
        found = str(canonicalize_license_expression(" ".join(text.split())))
    except InvalidLicenseExpression:
        return None
    return None if "LicenseRef-" in found else found
