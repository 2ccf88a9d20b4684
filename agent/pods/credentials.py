"""What to log in to registries with.

In: an image, and where credentials come from: the pod's pull secrets, the answers of credential plugins. Out: the CRI's
AuthConfigs to try in order, each with the source that it came from. Pure; passwords are never part of a message.
Source: the Kubernetes page "Images" (imagePullSecrets); Docker's configuration file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.objects import Secret
from agent.pods.images import DEFAULT_DOMAIN, DEFAULT_REGISTRY, parse_image

_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


class SecretSource(msgspec.Struct, frozen=True):
    """Whose word it is. `digest` tells that two secrets say the same, without saying what."""

    uid: str
    namespace: str
    name: str
    digest: str


class Credential(msgspec.Struct, frozen=True):
    """`source` None: it is the node's own, any pod may use what was pulled with it."""

    auth: api_pb2.AuthConfig
    source: SecretSource | None = None


def of_secrets(image: str, pull_secrets: Iterable[Secret]) -> tuple[Credential, ...]:
    """What to log in with, the most specific entry first; empty: nothing fits.

    Raises Permanent("InvalidImageName"), or Permanent("ErrImagePull") naming a secret that cannot be read.
    """
    entries: list[tuple[str, Credential]] = []
    for secret in pull_secrets:
        meta = secret.metadata
        for registry, entry in _entries(secret).items():
            auth = _auth(entry)
            source = SecretSource(meta.uid, meta.namespace, meta.name, _digest(auth))
            entries.append((registry, Credential(auth, source)))
    return fitting(image, entries)


def fitting(image: str, entries: Iterable[tuple[str, Credential]]) -> tuple[Credential, ...]:
    """Of (registry, credential) those that fit the image, the most specific registry first."""
    repository = parse_image(image).repository
    known: dict[str, list[Credential]] = {}
    for registry, credential in entries:
        known.setdefault(_registry_key(registry), []).append(credential)
    found = [credential for key in sorted(known, reverse=True) if fits(key, repository) for credential in known[key]]
    if not found and repository.startswith(f"{DEFAULT_DOMAIN}/"):
        found = known.get(DEFAULT_REGISTRY, [])
    return tuple(found)


def fits(pattern: str, repository: str) -> bool:
    """Port equal, host equal part by part (`*` stands for one whole or partial label), path a prefix."""
    wanted, image = urlsplit(f"//{pattern}"), urlsplit(f"//{repository}")
    wanted_host, _, wanted_port = wanted.netloc.partition(":")
    image_host, _, image_port = image.netloc.partition(":")
    patterns, labels = wanted_host.split("."), image_host.split(".")
    return (
        wanted_port == image_port
        and len(patterns) == len(labels)
        and image.path.startswith(wanted.path)
        and all(fnmatchcase(label, part) for label, part in zip(labels, patterns, strict=True))
    )


def _entries(secret: Secret) -> Mapping[str, Mapping[str, Any]]:
    """Registry to entry of a Docker configuration, as its `type` writes it; a secret of another type holds none."""
    key = _SECRET_KEYS.get(secret.type, "")
    raw = secret.contents().get(key, b"")
    if not raw:
        return {}
    where = f"imagePullSecret {secret.metadata.namespace}/{secret.metadata.name}: {key}"
    config = _decode(raw, where)
    return _checked(config.get("auths") or {} if key == ".dockerconfigjson" else config, where)


def of_docker_config(raw: bytes, where: str) -> tuple[tuple[str, Credential], ...]:
    """(registry, credential) of Docker's own file, as the node's. Raises Permanent that begins with `where`."""
    config = _decode(raw, where)
    for key in ("credsStore", "credHelpers"):
        if config.get(key):
            raise Permanent("", f"{where}: {key} is not supported, --image-credential-provider-config is")
    entries = _checked(config.get("auths") or {}, where)
    return tuple((registry, Credential(_auth(entry, f"{where}: {registry}"))) for registry, entry in entries.items())


def _decode(raw: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(raw)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        # Not `from` it: the JSON error carries the document, and with it the password.
        raise Permanent("ErrImagePull", f"{where} is not a Docker configuration")
    return config


def _checked(entries: object, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise Permanent("ErrImagePull", f"{where} is not a Docker configuration")
    return entries


def _auth(entry: Mapping[str, Any], where: str = "an imagePullSecret's") -> api_pb2.AuthConfig:
    """`auth` is base64 of user:password and wins over the plain fields, as in Docker's own file."""
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if auth := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(auth)).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Permanent("ErrImagePull", f"{where} auth field is not base64 of user:password") from None
    return api_pb2.AuthConfig(username=username, password=password)


def _digest(auth: api_pb2.AuthConfig) -> str:
    return hashlib.sha256(json.dumps([auth.username, auth.password]).encode()).hexdigest()


def _registry_key(registry: str) -> str:
    """Host and path of an entry, without scheme and API version: `https://index.docker.io/v1/` is `index.docker.io`."""
    url = urlsplit(registry if registry.startswith(("https://", "http://")) else f"https://{registry}")
    path = url.path[3:] if url.path.startswith(("/v1/", "/v2/")) else url.path
    return url.netloc + (path if path != "/" else "")
