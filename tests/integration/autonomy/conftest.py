"""Here the distribution's containerd alone: what a node does without its network or its disk does not depend on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hack.runtime import Containerd, Generation


@pytest.fixture(scope="session")
def one_containerd(runtimes: Callable[[Generation], Containerd]) -> Containerd:
    return runtimes(Generation.DISTRIBUTION)
