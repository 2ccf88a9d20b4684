"""What a failed pull is called. Pure.

Source: pkg/errors of cri-api, whose two errors a runtime puts before its text.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import Permanent

PULL_REASONS = ("ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed")
"""Waiting reasons of a pull that failed just now."""
IMAGE_REASONS = (*PULL_REASONS, "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "InvalidImageName")
"""Waiting reasons of a container that lacks its image."""

_NAMED = {
    "RegistryUnavailable": "the registry is unavailable",
    "SignatureValidationFailed": "the signature validation failed",
}


def pull_fault(image: str, text: str) -> Permanent:
    """The reason and message of a container whose image could not be pulled because of `text`."""
    for reason, words in _NAMED.items():
        if text.startswith(reason):
            detail = text.removeprefix(reason)
            return Permanent(reason, f"image pull failed for {image} because {words}{detail}")
    return Permanent("ErrImagePull", text)


def summary(texts: Sequence[str]) -> str:
    """What every credential's try said, each text once."""
    distinct = list(dict.fromkeys(texts))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"
