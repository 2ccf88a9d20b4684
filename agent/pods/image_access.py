"""Who may use an image that is on the machine already. Pure.

An image that one pod pulled with its secret is not open to every pod that knows its name: another has to show that it
could have pulled it. In: what is recorded of earlier pulls, and the pod's credentials. Out: whether the image has to be
pulled, so that the registry decides.
Source: the Kubernetes page "Images" ("Ensure image pull credential verification").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from agent.pods.credentials import SecretSource
from agent.pods.images import parse_image

MAX_SECRETS = 100
"""Kept for one image. A pod whose secret has no room pulls each time."""


class Verification(StrEnum):
    """Which images have to be shown access to."""

    NEVER = "NeverVerify"
    PULLED = "NeverVerifyPreloadedImages"
    """Those that this agent pulled; what was imported is for every pod."""
    UNLISTED = "NeverVerifyAllowlistedImages"
    ALWAYS = "AlwaysVerify"


class Grant(msgspec.Struct, frozen=True):
    """Who pulled an image under one name. `everyone`: without a secret, so any pod could."""

    everyone: bool = False
    secrets: tuple[SecretSource, ...] = ()

    def with_secret(self, source: SecretSource) -> Grant:
        """Also with this one. A secret of the same identity is replaced by what it says now."""
        if self.everyone:
            return self
        others = [known for known in self.secrets if _identity(known) != _identity(source)]
        return Grant(secrets=(*others, source)[-MAX_SECRETS:])

    def lets_in(self, sources: Iterable[SecretSource]) -> SecretSource | None:
        """The first of the pod's secrets that was used before: the same content, or the same object with another."""
        for source in sources:
            for known in self.secrets:
                if known.digest == source.digest or _identity(known) == _identity(source):
                    return source
        return None


def must_be_shown(policy: Verification, allowed: Sequence[str], image: str, *, pulled_here: bool) -> bool:
    """Whether a pod needs a record of its access to use the image."""
    match policy:
        case Verification.NEVER:
            return False
        case Verification.PULLED:
            return pulled_here
        case Verification.UNLISTED:
            return not any(_matches(pattern, image) for pattern in allowed)
        case Verification.ALWAYS:
            return True


def _matches(pattern: str, image: str) -> bool:
    """As written in the pod: a short name and its long form are two."""
    parsed = parse_image(image)
    name = image.removesuffix(f"@{parsed.digest}") if parsed.digest else image
    name = name.removesuffix(f":{parsed.tag}") if parsed.tag else name
    return name.startswith(pattern.removesuffix("*")) if pattern.endswith("/*") else name == pattern


def _identity(source: SecretSource) -> tuple[str, str, str]:
    return source.uid, source.namespace, source.name
