"""Facts of containerd's own services, which are on CRI's socket."""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = (("containerd-namespace", "k8s.io"),)
"""Metadata of a call: the part of containerd that CRI uses."""

PINNED: Final = {"io.cri-containerd.pinned": "pinned"}
"""An image's label: no collection of unused images may take it. containerd heeds it from 1.7 on."""


def under(lease: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call, CRI's PullImage too, that brings something under this lease."""
    return (("containerd-lease", lease),)
