"""How long to wait before the API server is asked again about the Node."""

from __future__ import annotations

import random

INITIAL_S = 0.2
MAXIMUM_S = 7.0


class Backoff:
    """0.2 s, doubling to 7 s, jittered: after a cut the node is seen again within seconds."""

    def __init__(self) -> None:
        self._next_s = INITIAL_S

    def next(self) -> float:
        now = self._next_s
        self._next_s = min(now * 2, MAXIMUM_S)
        return now * random.uniform(0.75, 1.0)  # noqa: S311

    def reset(self) -> None:
        self._next_s = INITIAL_S
