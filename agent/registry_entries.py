"""What the settings say of each registry, read and checked: an entry by host, as `agent.config.Registry`.

In: a YAML mapping, or its text. Out: values; a wrong one raises ValueError that names host, key and value, and never a
password. Pure: nobody looks at a file here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import yaml

from agent.config import EVERY_REGISTRY, Mirror, Registry
from agent.option_registries import HOST, LABEL

_MIRROR = rf"(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?"


class _Mirror(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    overridePath: bool = False


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    mirrors: tuple[str | _Mirror, ...] = ()
    fallback: bool = True
    plainHttp: bool = False
    ca: str = ""
    skipVerify: bool = False
    clientCert: str = ""
    clientKey: str = ""
    username: str = ""
    passwordFile: str = ""


def entries(value: object) -> tuple[Registry, ...]:
    """A mapping by host, or the same as YAML in one line."""
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, Mapping):
        raise ValueError("not a mapping by registry")
    found = tuple(_registry(str(host), entry) for host, entry in value.items())
    _check_mirrors(found)
    return found


def is_pem(ca: str) -> bool:
    """It is the certificate itself, and no path."""
    return ca.lstrip().startswith("-----BEGIN")


def _registry(host: str, entry: object) -> Registry:
    if host != EVERY_REGISTRY and not HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no registry as images' names have it: write HOST, HOST:PORT or {EVERY_REGISTRY}")
    try:
        given = msgspec.convert(entry, _Entry)
    except msgspec.ValidationError as error:
        raise ValueError(f"{host}: {error}") from error
    try:
        made = Registry(
            host=host,
            mirrors=tuple(_mirror(one) for one in given.mirrors),
            fallback=given.fallback,
            plain_http=given.plainHttp,
            ca=given.ca if is_pem(given.ca) else str(_path("ca", given.ca) or ""),
            skip_verify=given.skipVerify,
            client_cert=_path("clientCert", given.clientCert),
            client_key=_path("clientKey", given.clientKey),
            username=given.username,
            password_file=_path("passwordFile", given.passwordFile),
        )
        _check(made)
    except ValueError as error:
        raise ValueError(f"{host}: {error}") from error
    return made


def _mirror(given: str | _Mirror) -> Mirror:
    mirror = Mirror(given) if isinstance(given, str) else Mirror(given.url, given.overridePath)
    url = urlsplit(mirror.url)
    if "@" in url.netloc:  # the value is not repeated: it has a password in it
        raise ValueError("mirrors: a password does not belong in a URL: the mirror's host has its own entry for it")
    if url.scheme not in ("http", "https") or not re.fullmatch(_MIRROR, url.netloc) or url.query or url.fragment:
        raise ValueError(f"mirrors: {mirror.url!r} is no http:// or https:// URL of a registry")
    return Mirror(mirror.url.rstrip("/"), mirror.override_path)


def _path(key: str, written: str) -> Path | None:
    if written and not written.startswith("/"):
        raise ValueError(f"{key}: {written!r} is no absolute path")
    return Path(written) if written else None


def _check(registry: Registry) -> None:
    has_tls = bool(registry.ca or registry.skip_verify or registry.client_cert)
    if registry == Registry(registry.host):
        raise ValueError("nothing is said of it")
    if registry.plain_http and has_tls:
        raise ValueError("plainHttp does not go with ca, skipVerify and clientCert")
    if registry.client_key is not None and registry.client_cert is None:
        raise ValueError("clientKey also needs clientCert")
    if not registry.fallback and not registry.mirrors:
        raise ValueError("fallback: false also needs mirrors")
    if bool(registry.username) != (registry.password_file is not None):
        raise ValueError("username and passwordFile go together")
    if registry.host == EVERY_REGISTRY and (registry.plain_http or registry.username):
        raise ValueError("plainHttp and username are said of one registry")


def _check_mirrors(found: Sequence[Registry]) -> None:
    """A mirror's own entry tells how it is asked, and must not say another scheme than its URL."""
    own = {one.host: one for one in found}
    for registry in found:
        for mirror in registry.mirrors:
            url = urlsplit(mirror.url)
            entry = own.get(url.netloc, Registry(url.netloc))
            if url.scheme == "https" and entry.plain_http:
                raise ValueError(f"{registry.host}: mirrors: {mirror.url} is HTTPS, and {entry.host} has plainHttp")
            if url.scheme == "http" and (entry.ca or entry.skip_verify or entry.client_cert):
                raise ValueError(f"{registry.host}: mirrors: {mirror.url} is plain HTTP, and {entry.host} has TLS")
