"""Which pressures the node is under now, as its parts share it: eviction finds them, Node and admission tell them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Pressure(msgspec.Struct, frozen=True):
    memory: bool = False
    disk: bool = False
    pids: bool = False

    @property
    def conditions(self) -> tuple[str, ...]:
        """The Node's conditions that are true by it."""
        named = (("MemoryPressure", self.memory), ("DiskPressure", self.disk), ("PIDPressure", self.pids))
        return tuple(name for name, holds in named if holds)


class NodePressure:
    def __init__(self) -> None:
        self._now = Pressure()
        self._changed: Callable[[], None] = lambda: None

    @property
    def now(self) -> Pressure:
        return self._now

    def notify(self, changed: Callable[[], None]) -> None:
        """`changed` is called when a pressure began or was over."""
        self._changed = changed

    def show(self, pressure: Pressure) -> None:
        if pressure != self._now:
            self._now = pressure
            self._changed()
