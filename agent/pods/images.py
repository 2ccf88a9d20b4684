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
_DEFAULT_REGISTRY = "index.docker.io"
_MAX_NAME = 255

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_DIGEST_CHARS = {"sha256": 64, "sha384": 96, "sha512": 128}
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
    reason = _why_not(image)
    if reason is not None:
        raise Permanent(
            "InvalidImageName",
            f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {reason}',
        )
    domain, path, tag, digest = _parts(image)
    return ImageName(domain, path, tag or ("" if digest else "latest"), digest)


def with_default_tag(image: str) -> str:
    """The image as written, with `:latest` where it has neither tag nor digest: the name for the runtime.

    Short names stay short: which registry they mean is the runtime's to say. Raises Permanent("InvalidImageName").
    """
    parse_image(image)
    _, _, tag, digest = _parts(image)
    return image if tag or digest else f"{image}:latest"


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


def _parts(image: str) -> tuple[str, str, str, str]:
    """Domain, path, tag and digest, not yet known to be well formed."""
    rest, _, digest = image.partition("@")
    first, slash, after = rest.partition("/")
    if slash and (set(first) & {".", ":"} or first == "localhost" or first.lower() != first):
        domain, rest = first, after
    else:
        domain = _DEFAULT_DOMAIN
    path, _, tag = rest.partition(":")
    if domain == _DEFAULT_REGISTRY:
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path, tag, digest


def _why_not(image: str) -> str | None:
    """What is wrong with the name, None where nothing is."""
    if _BARE_ID.fullmatch(image):
        return f"invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
    domain, path, tag, digest = _parts(image)
    if path != path.lower() and _PATH.fullmatch(path.lower()):
        return f"invalid reference format: repository name ({path}) must be lowercase"
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        return "invalid reference format"
    if len(f"{domain}/{path}") > _MAX_NAME:
        return f"repository name must not be more than {_MAX_NAME} characters"
    if (":" in image.partition("@")[0].rpartition("/")[2] and not _TAG.fullmatch(tag)) or (
        "@" in image and not _DIGEST.fullmatch(digest)
    ):
        return "invalid reference format"
    algorithm, _, checksum = digest.partition(":")
    if digest and algorithm not in _DIGEST_CHARS:
        return "unsupported digest algorithm"
    if digest and len(checksum) != _DIGEST_CHARS[algorithm]:
        return "invalid checksum digest length"
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
