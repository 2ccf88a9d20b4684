"""Image names and the credentials for them.

In: an image as the pod names it, and the pod's pull secrets. Out: the name's parts, the name with its default tag, and
the CRI's AuthConfigs to try in order. Pure; passwords are never part of a message.
Source: the reference grammar of the OCI distribution project; the Kubernetes page "Images" (imagePullSecrets).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.objects import Secret

_DEFAULT_DOMAIN = "docker.io"
_DEFAULT_TAG = "latest"
_DEFAULT_REGISTRY = "index.docker.io"
_MAX_NAME = 255
"""Of the part after the domain."""

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"({_DOMAIN})/({_PATH_PART}(?:/{_PATH_PART})*)(?::(\w[\w.-]{{0,127}}))?(?:@({_DIGEST}))?", re.ASCII
)
_DIGEST_CHARS = {"sha256": 64, "sha384": 96, "sha512": 128}
_LOWER_HEX = re.compile(r"[a-f0-9]+")
_BARE_ID = re.compile(r"[a-f0-9]{64}")

_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


@dataclass(frozen=True, slots=True)
class ImageName:
    """`busybox` is docker.io, library/busybox, tag latest; with a digest and no tag the tag stays empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_image(image: str) -> ImageName:
    """Raises Permanent("InvalidImageName")."""
    domain, rest = _completed(image)
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    reason = _why_not(image, rest, match)
    if match is None or reason is not None:
        raise Permanent(
            "InvalidImageName",
            f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {reason}',
        )
    _, path, tag, digest = match.groups(default="")
    return ImageName(domain, path, tag or ("" if digest else _DEFAULT_TAG), digest)


def with_default_tag(image: str) -> str:
    """The image as written, with `:latest` where it has neither tag nor digest: the name for the runtime.

    Short names stay short: which registry they mean is the runtime's to say. Raises Permanent("InvalidImageName").
    """
    name = parse_image(image)
    written = name.digest or image.endswith(f":{name.tag}")
    return image if written else f"{image}:{name.tag}"


def credentials(image: str, pull_secrets: Iterable[Secret]) -> tuple[api_pb2.AuthConfig, ...]:
    """What to log in with, the most specific entry first; empty: nothing fits, pull anonymously.

    Raises Permanent("InvalidImageName"), or Permanent("ErrImagePull") naming a secret that cannot be read.
    """
    repository = parse_image(image).repository
    known: dict[str, list[api_pb2.AuthConfig]] = {}
    for secret in pull_secrets:
        for registry, entry in _entries(secret).items():
            known.setdefault(_registry_key(registry), []).append(_auth(entry))
    found = [auth for key in sorted(known, reverse=True) if _fits(key, repository) for auth in known[key]]
    if not found and repository.startswith(f"{_DEFAULT_DOMAIN}/"):
        found = known.get(_DEFAULT_REGISTRY, [])
    return tuple(found)


def _completed(image: str) -> tuple[str, str]:
    """Domain and the rest, short names completed; not yet known to be well formed."""
    first, slash, rest = image.partition("/")
    if not (slash and (set(first) & {".", ":"} or first == "localhost" or first.lower() != first)):
        first, rest = _DEFAULT_DOMAIN, image
    if first == _DEFAULT_REGISTRY:
        first = _DEFAULT_DOMAIN
    if first == _DEFAULT_DOMAIN and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _why_not(image: str, rest: str, match: re.Match[str] | None) -> str | None:
    """What is wrong with the name, None where nothing is."""
    if _BARE_ID.fullmatch(image):
        return f"invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
    path = rest.partition(":")[0]
    if path != path.lower():
        return f"invalid reference format: repository name ({path}) must be lowercase"
    if match is None:
        return "invalid reference format"
    _, path, _, digest = match.groups(default="")
    if len(path) > _MAX_NAME:
        return f"repository name must not be more than {_MAX_NAME} characters"
    algorithm, _, checksum = digest.partition(":")
    if digest and algorithm not in _DIGEST_CHARS:
        return "unsupported digest algorithm"
    if digest and len(checksum) != _DIGEST_CHARS[algorithm]:
        return "invalid checksum digest length"
    if digest and not _LOWER_HEX.fullmatch(checksum):
        return "invalid checksum digest format"
    return None


def _entries(secret: Secret) -> Mapping[str, Mapping[str, Any]]:
    """Registry to entry of a Docker configuration, as its `type` writes it; a secret of another type holds none."""
    key = _SECRET_KEYS.get(secret.type, "")
    raw = secret.contents().get(key, b"")
    if not raw:
        return {}
    try:
        config = json.loads(raw)
        entries = config.get("auths", {}) if key == ".dockerconfigjson" else config
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError("an entry is no object")
    except (ValueError, AttributeError):
        meta = secret.metadata
        message = f"imagePullSecret {meta.namespace}/{meta.name}: {key} is not a Docker configuration"
        # Not `from` it: the JSON error carries the document, and with it the password.
        raise Permanent("ErrImagePull", message) from None
    return dict(entries)


def _auth(entry: Mapping[str, Any]) -> api_pb2.AuthConfig:
    """`auth` is base64 of user:password and wins over the plain fields, as in Docker's own file."""
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if auth := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(auth)).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Permanent("ErrImagePull", "an imagePullSecret's auth field is not base64 of user:password") from None
    return api_pb2.AuthConfig(username=username, password=password)


def _registry_key(registry: str) -> str:
    """Host and path of an entry, without scheme and API version: `https://index.docker.io/v1/` is `index.docker.io`."""
    url = urlsplit(registry if registry.startswith(("https://", "http://")) else f"https://{registry}")
    path = url.path[3:] if url.path.startswith(("/v1/", "/v2/")) else url.path
    return url.netloc + (path if path != "/" else "")


def _fits(key: str, repository: str) -> bool:
    """Port equal, host equal part by part (`*` stands for one whole or partial label), path a prefix."""
    wanted, image = urlsplit(f"//{key}"), urlsplit(f"//{repository}")
    wanted_host, _, wanted_port = wanted.netloc.partition(":")
    image_host, _, image_port = image.netloc.partition(":")
    patterns, labels = wanted_host.split("."), image_host.split(".")
    return (
        wanted_port == image_port
        and len(patterns) == len(labels)
        and image.path.startswith(wanted.path)
        and all(fnmatchcase(label, pattern) for label, pattern in zip(labels, patterns, strict=True))
    )
