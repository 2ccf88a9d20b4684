"""On a machine that pods share with other programs: what is allocatable follows what those really use.

In: every ten seconds the cgroups of the machine and of all pods together: the rest is others'. Out: allocatable with
something of it withheld (`agent.node.live_plan` says how much), an event of the Node when that changes, and a call so
that it is told. No pod is ended for it; new ones are judged by what is told. Memory counts as for evictions: without
file pages that were not used of late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import PurePosixPath

from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.errors import ConfigError
from agent.model import quantity
from agent.model.meta import Quantity
from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.node.eviction.ports import EvictablePods
from agent.node.facts import MachineFacts
from agent.node.live_plan import NOTHING, RESOURCES, Amounts, Look, Withheld, decide
from agent.node.ports import Events
from agent.node.reserved import reserved
from agent.pods.admission.claim import pod_requests
from agent.pods.cgroups import CgroupVersion
from agent.stats.cgroups import Cgroups, Usage
from agent.stats.rates import Rates

EVERY_S = 10.0
CHANGED = "AllocatableChanged"
_TOP = PurePosixPath()
_UNITS = {"cpu": 1000, "memory": 1}


class LiveCapacity:
    """`run` is its one task; `under` may be called at any time."""

    def __init__(
        self,
        settings: Settings,
        facts: MachineFacts,
        usual: Mapping[str, str],
        provider: EvictablePods | None,
        before: Callable[[], Mapping[str, Quantity]],
        pods: Callable[[], Iterable[Pod]],
        events: Events,
        clock: Clock,
        changed: Callable[[], None],
        cgroups: Cgroups | None = None,
    ) -> None:
        """`usual`: allocatable with nothing withheld, as of now. `before`: what an agent before this one told, empty:
        nothing. `pods`: those that are here and have not ended.

        Raises ConfigError where the provider does not say which part of the machine its pods use.
        """
        if provider is None:
            raise ConfigError(f"--live-capacity: provider {settings.provider} does not say what its pods use")
        self._usual = usual
        self._provider = provider
        self._before = before
        self._pods = pods
        self._events = events
        self._clock = clock
        self._changed = changed
        self._cgroups = cgroups or Cgroups()
        self._node = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        # Of version 2's machine as a whole they are used; of version 1's they are in no cgroup.
        huge = sum(facts.hugepages_bytes.values()) if self._cgroups.version is CgroupVersion.V2 else 0
        self._kept = {name: int(reserved(settings, name) * unit) for name, unit in _UNITS.items()}
        self._kept["memory"] += huge
        self._rates = Rates()
        self._withheld = Withheld()

    def under(self, usual: Mapping[str, str]) -> dict[str, str]:
        """What is allocatable now of what is otherwise."""
        left = {name: max(0, amount - self._withheld.amounts[name]) for name, amount in _amounts(usual).items()}
        told = {name: _spelled(name, amount) for name, amount in left.items() if self._withheld.amounts[name]}
        return {**usual, **told}

    async def run(self) -> None:
        before, usual = _amounts({**self._usual, **self._before()}), _amounts(self._usual)
        self._withheld = Withheld({name: max(0, usual[name] - before[name]) for name in RESOURCES})
        while True:
            if (over := await asyncio.to_thread(self._read)) is not None:
                self._take(Look(self._clock.monotonic(), over))
            await self._clock.sleep(EVERY_S)

    def _take(self, look: Look) -> None:
        before = self._withheld.amounts
        self._withheld = decide(self._withheld, look, _amounts(self._usual), self._requested())
        if self._withheld.amounts == before:
            return
        told = self.under(self._usual)
        words = ", ".join(f"{name} {told[name]} of {self._usual[name]}" for name in RESOURCES)
        message = f"Allocatable follows what other programs use: {words}"
        logger.info(message)
        self._events.record(self._node, "Normal", CHANGED, message)
        self._changed()

    def _read(self) -> Amounts | None:
        """What others use beyond what is reserved; None: not known now."""
        group = self._provider.cgroup
        if group is None or (machine := self._cgroups.usage(_TOP)) is None:
            return None
        if (pods := self._cgroups.usage(group)) is None:
            return None
        cpu = self._milli_cpu("machine", machine), self._milli_cpu("pods", pods)
        if cpu[0] is None or cpu[1] is None:
            return None
        used = {"cpu": cpu[0] - cpu[1], "memory": machine.working_set_bytes - pods.working_set_bytes}
        return {name: max(0, amount - self._kept[name]) for name, amount in used.items()}

    def _milli_cpu(self, name: str, usage: Usage) -> int | None:
        # Not by the wall clock, which may jump.
        rate = self._rates.rate(name, time.monotonic_ns(), usage.cpu_ns)
        return None if rate is None else rate // 1_000_000

    def _requested(self) -> Amounts:
        summed = dict(NOTHING)
        for pod in self._pods():
            try:
                requests = pod_requests(pod)
            except ValueError:
                continue  # it was never admitted
            for name in RESOURCES:
                summed[name] += requests.get(name, 0)
        return summed


def _amounts(told: Mapping[str, Quantity]) -> dict[str, int]:
    return {name: int(quantity.parse(told.get(name, 0)) * unit) for name, unit in _UNITS.items()}


def _spelled(name: str, amount: int) -> str:
    return f"{amount // 1024}Ki" if name == "memory" else quantity.canonical(Fraction(amount, 1000), binary=False)
