"""Keep the machine usable: look at what is left of it, show the pressure, and end pods where nothing else helps.

In: signals of the machine, alarms of the kernel, and the pods of a provider that lets them be ended. Out: the node's
pressure, events, and evictions: one pod at a time, whose end is awaited before the next look. Disk is first freed by
the provider itself. What pods use is read only when one has to go, and what they wrote only of those with limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from loguru import logger

from agent.clock import Clock, sleep_unless
from agent.config import Settings
from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.node.eviction.limits import exceeded, is_limited
from agent.node.eviction.ports import EvictablePods, Eviction
from agent.node.eviction.reading import IMAGE_DIR, SignalReader, shares_disk
from agent.node.eviction.signals import IMAGE_FS, Condition, Observations, Resource, Signal
from agent.node.eviction.thresholds import (
    LOOK_CLOSELY_S,
    LOOK_EVERY_S,
    State,
    Threshold,
    look,
    met,
    next_look_s,
    thresholds,
)
from agent.node.eviction.wake import MemoryAlarm
from agent.node.pressure import NodePressure, Pressure
from agent.own_metrics import EVICTIONS
from agent.pods.admission.claim import is_critical
from agent.pods.admission.pressure import EVICTED
from agent.pods.ports import Events

IMMEDIATELY_S = 1
"""The grace of a pod that has to go at once: enough for the system's own work, not for the pod's."""
CLEANED_WITHIN_S = 30.0
CLEANED_EVERY_S = 0.5
REST_S = 1.0
"""Between two looks, however often the kernel calls."""
_TOP = PurePosixPath()


class EvictionManager:
    def __init__(
        self,
        settings: Settings,
        reader: SignalReader,
        pressure: NodePressure,
        events: Events,
        clock: Clock,
        pods: EvictablePods | None = None,
        *,
        alarm: Callable[[Callable[[], None]], MemoryAlarm] = MemoryAlarm,
    ) -> None:
        """Without pods that may be ended the pressure is shown, and nothing else is done."""
        self._thresholds = thresholds(settings)
        self._settings = settings
        self._reader = reader
        self._pressure = pressure
        self._events = events
        self._clock = clock
        self._pods = pods
        self._node = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        self._state = State()
        self._wake = asyncio.Event()
        self._alarm = alarm(self._wake.set)

    def use(self, settings: Settings) -> None:
        """Go by other thresholds from now on. A pressure that they no longer find is over as any other."""
        self._settings = settings
        self._thresholds = thresholds(settings)
        self._wake.set()

    async def run(self) -> None:
        """For as long as the agent lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_machine(), name="pressure")
            if self._pods is not None:
                # A folder may take minutes to count: the machine is not left alone meanwhile.
                tasks.create_task(self._watch_limits(self._pods), name="limits on disk")

    async def _watch_machine(self) -> None:
        self._alarm.open()
        try:
            while True:
                self._wake.clear()
                began = self._clock.monotonic()
                seen = await self._observe()
                if evicted := await self._act(seen):
                    await self._cleaned_up(evicted)
                else:
                    await self._pause(began, self._next_look_s(seen))
        finally:
            self._alarm.close()

    # ------------------------------------------------------------ looking

    async def _observe(self) -> Observations:
        images = await self._pods.image_dir() if self._pods is not None else IMAGE_DIR
        group = self._pods.cgroup if self._pods is not None else None
        seen = await asyncio.to_thread(self._reader.read, images, group)
        self._alarm.at(await asyncio.to_thread(self._levels, seen, group))
        return seen

    def _next_look_s(self, seen: Observations) -> float:
        if self._pods is not None and self._pods.cgroup is None:
            return LOOK_CLOSELY_S  # the runtime is about to come, and with it the pods' cgroup
        return next_look_s(self._thresholds, seen)

    def _levels(self, seen: Observations, group: PurePosixPath | None) -> dict[PurePosixPath, int]:
        """The use of memory at which the first threshold of each cgroup is crossed, in bytes."""
        found = {}
        for signal, path in ((Signal.MEMORY, _TOP), (Signal.ALLOCATABLE_MEMORY, group)):
            amounts = [one.amount for one in self._thresholds if one.signal is signal]
            if path is None or not amounts or (observed := seen.get(signal)) is None:
                continue
            memory = self._reader.cgroups.memory(path)
            if memory is not None:
                cold = memory.used_bytes - memory.working_set_bytes
                found[path] = observed.capacity - max(one.of(observed.capacity) for one in amounts) + cold
        return found

    async def _act(self, seen: Observations) -> frozenset[str]:
        """Show the pressure and do what has to be done for it; the UIDs of pods that were told to end."""
        now = self._clock.monotonic()
        transition_s = self._settings.eviction_pressure_transition_period
        found = look(self._thresholds, self._state, seen, now, transition_period_s=transition_s)
        self._state = found.state
        self._pressure.show(
            Pressure(
                memory=Condition.MEMORY in found.conditions,
                disk=Condition.DISK in found.conditions,
                pids=Condition.PIDS in found.conditions,
            )
        )
        if self._pods is None or not found.reclaim:
            return frozenset()
        return await self._relieve(self._pods, found.reclaim, seen)

    async def _pause(self, began: float, seconds: float) -> None:
        await sleep_unless(self._wake, self._clock.sleep(seconds))
        await self._clock.sleep(REST_S - (self._clock.monotonic() - began))

    # ------------------------------------------------------------ pods that wrote too much

    async def _watch_limits(self, pods: EvictablePods) -> None:
        while True:
            if limited := [pod for pod in pods.active() if _is_limited(pod)]:
                await self._end_over_limits(pods, limited)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _end_over_limits(self, pods: EvictablePods, limited: Sequence[Pod]) -> None:
        own_image_disk = await self._own_image_disk(pods)
        written = await pods.storage(limited)
        still_here = {pod.uid for pod in pods.active()}
        for pod in limited:
            if pod.uid not in still_here or (storage := written.get(pod.uid)) is None:
                continue
            if (over := exceeded(pod, storage, own_image_disk=own_image_disk)) is not None:
                self._evict(pods, pod, Eviction(over.message, IMMEDIATELY_S), over.limit)

    # ------------------------------------------------------------ a machine that runs short

    async def _relieve(self, pods: EvictablePods, crossed: tuple[Threshold, ...], seen: Observations) -> frozenset[str]:
        """Free what can be freed, else end one pod."""
        first = crossed[0]
        self._events.record(self._node, "Warning", "EvictionThresholdMet", f"Attempting to reclaim {first.resource}")
        own_image_disk = await self._own_image_disk(pods)
        on_image_disk = first.signal in IMAGE_FS or not own_image_disk
        if first.resource in (Resource.DISK, Resource.INODES) and on_image_disk:
            await pods.reclaim()
            seen = await self._observe()
            if not met(self._thresholds, seen, reclaimed=True):
                logger.info("there is room on the disk again, no pod has to go")
                return frozenset()
        # A node that never runs short need not hold the code.
        from agent.node.eviction.messages import eviction_message
        from agent.node.eviction.ranking import Candidate, parts, ranked

        active = pods.active()
        figures = await pods.figures(first.resource)
        candidates = [Candidate(pod, figures.get(pod.uid)) for pod in active]
        for one in ranked(candidates, first.signal, parts(first.signal, own_image_disk=own_image_disk)):
            message, annotations = eviction_message(one.pod, one.figures, crossed, seen)
            eviction = Eviction(message, self._grace_s(first, one.pod), disruption=message)
            if self._evict(pods, one.pod, eviction, first.signal, annotations):
                return frozenset({one.pod.uid})
        logger.error("{} is short and there is no pod that may be evicted", first.resource)
        return frozenset()

    def _grace_s(self, threshold: Threshold, pod: Pod) -> int:
        own, most = pod.spec.terminationGracePeriodSeconds, self._settings.eviction_max_pod_grace_period
        if threshold.hard:
            return IMMEDIATELY_S
        return own if most < 0 else min(most, own)

    def _evict(
        self,
        pods: EvictablePods,
        pod: Pod,
        eviction: Eviction,
        signal: str,
        annotations: Mapping[str, str] | None = None,
    ) -> bool:
        """False: the node cannot do without it."""
        if is_critical(pod):
            logger.bind(pod=pod.full_name).warning("a critical pod is not evicted: {}", eviction.message)
            return False
        self._events.record(ObjectReference.of(pod), "Warning", EVICTED, eviction.message, annotations)
        EVICTIONS.inc(signal)
        pods.evict(pod.uid, eviction)
        return True

    async def _cleaned_up(self, uids: frozenset[str]) -> None:
        """Until they are down: before that nothing that is read says whether it was enough."""
        assert self._pods is not None
        until = self._clock.monotonic() + CLEANED_WITHIN_S
        while not all(self._pods.is_down(uid) for uid in uids):
            if self._clock.monotonic() >= until:
                logger.warning("evicted pods have not ended within {:g} s", CLEANED_WITHIN_S)
                return
            await self._clock.sleep(CLEANED_EVERY_S)

    async def _own_image_disk(self, pods: EvictablePods) -> bool:
        images: Path = await pods.image_dir() or IMAGE_DIR
        return not await asyncio.to_thread(shares_disk, self._settings.root_dir, images)


def _is_limited(pod: Pod) -> bool:
    try:
        return is_limited(pod)
    except ValueError:  # it was never admitted either
        return False
