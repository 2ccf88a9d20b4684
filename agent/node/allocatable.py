"""What the machine has for pods, under the policies that hold now.

In: the machine, the settings under the policies, and what is withheld of it for other programs. Out: a mapping that is
always as of now, for whoever keeps it; and, less what is withheld, what the Node says and pods are admitted by.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.config import Settings
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.node.eviction.ports import EvictablePods
from agent.node.facts import MachineFacts
from agent.node.policies import NodePolicing
from agent.node.ports import Events
from agent.node.status import allocatable

if TYPE_CHECKING:  # most nodes have their machine to themselves
    from agent.node.live_capacity import LiveCapacity


class Allocatable(Mapping[str, str]):
    """Quantities by resource."""

    def __init__(self, facts: MachineFacts, policies: NodePolicing) -> None:
        self._facts = facts
        self._policies = policies
        self._made: tuple[Settings, dict[str, str]] | None = None
        self._live: LiveCapacity | None = None
        """None: nothing is withheld."""

    def share(
        self,
        settings: Settings,
        provider: EvictablePods | None,
        before: Callable[[], Mapping[str, Quantity]],
        pods: Callable[[], Iterable[Pod]],
        events: Events,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """From now on withhold what others use, as `LiveCapacity` does. Raises ConfigError."""
        from agent.node.live_capacity import LiveCapacity

        self._live = LiveCapacity(settings, self._facts, self, provider, before, pods, events, clock, changed)

    def jobs(self) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
        if self._live is not None:
            yield "live capacity", self._live.run()

    def told(self) -> Mapping[str, str]:
        """What the Node says now."""
        return self if self._live is None else self._live.under(self)

    def told_of(self, facts: MachineFacts) -> Mapping[str, str]:
        """The same for the machine as it was read later."""
        usual = allocatable(facts, self._policies.settings)
        return usual if self._live is None else self._live.under(usual)

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[str, str]:
        settings = self._policies.settings
        if self._made is None or self._made[0] is not settings:
            self._made = settings, allocatable(self._facts, settings)
        return self._made[1]
