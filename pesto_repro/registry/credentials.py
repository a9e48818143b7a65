"""Files of credentials that docker and podman write and read: auth.json, config.json, and credential helpers.

In the form of containers-auth.json(5) and docker's config.json: ``{"auths": {host: {"auth": base64(user:password),
"identitytoken": ...}}, "credHelpers": {host: helper}, "credsStore": helper}``. What we do not know in a file stays as
it is. No error shows what a file, or a helper, says.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pesto_repro.errors import PestoError
from pesto_repro.registry.access import Credential
from pesto_repro.registry.reference import aliases

HELPER_TIMEOUT = 60.0
_TOKEN_USER = "<token>"
"""docker-credential-helpers: "the username <token>" marks an identity token."""
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    auth: str = Field("", repr=False)
    identitytoken: str = Field("", repr=False)


class _AuthFile(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    auths: Mapping[str, _Entry] = Field(default_factory=dict)
    cred_helpers: Mapping[str, str] = Field(default_factory=dict, alias="credHelpers")
    creds_store: str = Field("", alias="credsStore")


def find(files: Iterable[Path], host: str) -> Credential | None:
    """What the first of *files* that knows *host* says; it may be missing. Raises PestoError if one is malformed."""
    for path in files:
        document = _parse(path, _read(path))
        found = _from_helper(document, host) or _inline(path, document, host)
        if found is not None:
            return found
    return None


def store(path: Path, host: str, credential: Credential) -> None:
    """Keep *credential* for *host* in *path*, or with the helper that it names. All else in it stays."""
    raw = _read(path)
    document = _parse(path, raw)
    key = aliases(host)[-1]  # the one that docker and podman both understand
    helper = _helper(document, host)
    if helper is not None:
        secret = {"ServerURL": key, "Username": credential.user, "Secret": credential.password}
        _run(helper, "store", json.dumps(secret))
        return
    auth = base64.b64encode(f"{credential.user}:{credential.password}".encode()).decode()
    others = {name: entry for name, entry in raw.get("auths", {}).items() if not _names(name, host)}
    _write(path, {**raw, "auths": {**others, key: {"auth": auth}}})


def erase(path: Path, host: str) -> bool:
    """Forget *host* in *path* and in the helper that it names: whether there was something."""
    raw = _read(path)
    document = _parse(path, raw)
    helper = _helper(document, host)
    known = helper is not None and _from_helper(document, host) is not None
    if helper is not None and known:
        _run(helper, "erase", aliases(host)[-1])
    kept = {name: entry for name, entry in raw.get("auths", {}).items() if not _names(name, host)}
    if len(kept) == len(document.auths):
        return known
    _write(path, {**raw, "auths": kept})
    return True


# -- the form ------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """The file as JSON; {} if there is none, or it is empty."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PestoError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise _malformed(path, "it is no JSON") from None
    if not isinstance(document, dict):
        raise _malformed(path, "it is no JSON object")
    return document


def _parse(path: Path, document: Mapping[str, Any]) -> _AuthFile:
    stated = {key: value for key, value in document.items() if value is not None}
    try:
        return _AuthFile.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise _malformed(path, f"{first['loc'][0]}: {first['msg']}") from None


def _names(key: str, host: str) -> bool:
    """Whether *key* of "auths" means *host*: its name, or an old address such as "https://host/v1/"."""
    return key in aliases(host) or (key.startswith(("https://", "http://")) and urlsplit(key).netloc in aliases(host))


def _inline(path: Path, document: _AuthFile, host: str) -> Credential | None:
    entries = [document.auths[key] for key in sorted(document.auths, key=len) if _names(key, host)]
    entry = next((each for each in entries if each.auth or each.identitytoken), None)
    if entry is None:
        return None
    user, password = _decode(path, host, entry.auth) if entry.auth else ("", "")
    return Credential(user, password, entry.identitytoken)


def _decode(path: Path, host: str, auth: str) -> tuple[str, str]:
    """containers-auth.json(5): "the base64-encoded combination of user name and password separated by a colon"."""
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise _malformed(path, f"the auth of {host} is no base64 of USER:PASSWORD")
    return user, password.rstrip("\0")


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the file in one step; nobody else may read it."""
    target = path.resolve()  # a link stays a link
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, encoding="utf-8") as handle:
            temporary = Path(handle.name)  # made with mode 0600
            try:
                handle.write(json.dumps(document, indent="\t") + "\n")
                handle.flush()
                os.fsync(handle.fileno())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise PestoError(f"{path} cannot be written: {error.strerror}") from None


def _malformed(path: Path, reason: str) -> PestoError:
    hint = "correct it, or name another in REGISTRY_AUTH_FILE"
    return PestoError(f"{path} is no file of credentials: {reason}", hint)


# -- helpers -------------------------------------------------------------------------------------------------------


def _helper(document: _AuthFile, host: str) -> str | None:
    named = [document.cred_helpers[name] for name in aliases(host) if name in document.cred_helpers]
    return next(iter([*named, document.creds_store]), "") or None


def _from_helper(document: _AuthFile, host: str) -> Credential | None:
    helper = _helper(document, host)
    if helper is None:
        return None
    said = _run(helper, "get", aliases(host)[-1])
    if said is None:
        return None
    try:
        answer = json.loads(said)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError):
        raise PestoError(f"docker-credential-{helper} answers something that is no credential") from None
    if not secret:
        return None
    return Credential(identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)


def _run(helper: str, action: str, text: str) -> str | None:
    """Run the helper with *text* on its stdin: what it says. None if it does not know the host."""
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise PestoError(f'"{helper}" is no name of a credential helper')
    try:
        ended = subprocess.run(
            [program, action], input=text, capture_output=True, encoding="utf-8", timeout=HELPER_TIMEOUT, check=False
        )
    except FileNotFoundError:
        hint = "install it, or take it out of the file that names it"
        raise PestoError(f"the credential helper {program} is not on the PATH", hint) from None
    except (subprocess.TimeoutExpired, UnicodeDecodeError, OSError) as error:
        raise PestoError(f"the credential helper {program} fails: {type(error).__name__}") from None
    if ended.returncode == 0:
        return ended.stdout
    # docker-credential-helpers: "credentials not found in native keychain", said on stdout
    if action == "get" and "credentials not found" in ended.stdout:
        return None
    raise PestoError(f"the credential helper {program} fails with exit code {ended.returncode}")
