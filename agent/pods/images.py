"""Image names.

In: an image as the pod names it. Out: the name's parts, and the name with its default tag. Pure.
Source: the reference grammar of the OCI distribution project.
"""

from __future__ import annotations

import re

import msgspec

from agent.errors import Permanent

DEFAULT_DOMAIN = "docker.io"
_DEFAULT_TAG = "latest"
DEFAULT_REGISTRY = "index.docker.io"
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


class ImageName(msgspec.Struct, frozen=True):
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


def _completed(image: str) -> tuple[str, str]:
    """Domain and the rest, short names completed; not yet known to be well formed."""
    first, slash, rest = image.partition("/")
    if not (slash and (set(first) & {".", ":"} or first == "localhost" or first.lower() != first)):
        first, rest = DEFAULT_DOMAIN, image
    if first == DEFAULT_REGISTRY:
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
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
