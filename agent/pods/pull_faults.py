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


def is_away(text: str) -> bool:
    """Whether a pull failed because nobody answered, and not because of what the registry said.

    `text` is the runtime's, which is the Go standard library's where the network failed; "context canceled" is
    what containerd calls a pull that made no progress (`image_pull_progress_timeout`). A certificate that is not yet
    valid is what a machine sees whose clock has not been set.
    """
    return text.startswith("RegistryUnavailable") or any(words in text for words in _AWAY)


_AWAY = (
    "connection refused",
    "connection reset",
    "no such host",
    "no route to host",
    "network is unreachable",
    "server misbehaving",
    "i/o timeout",
    "TLS handshake timeout",
    "connection timed out",
    "context deadline exceeded",
    "context canceled",
    "DeadlineExceeded",
    "Client.Timeout exceeded",
    "certificate has expired or is not yet valid",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
)
