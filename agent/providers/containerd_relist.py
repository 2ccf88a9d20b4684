"""The containerd provider follows the runtime: each of its events wakes one pod's worker, a relist finds the rest.

In: the runtime's events, and everything it has, read every 30 s; each second while no event can be heard, or while the
runtime does not show yet what an event told. Out: wakes, and pods that no worker has. It never acts on a pod: what a
worker hears is only a hint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing

from loguru import logger

from agent.cri.channel import RuntimeChannel
from agent.cri.events import Kind, RuntimeEvent, runtime_events
from agent.cri.faults import UNIMPLEMENTED
from agent.cri.runtime import RuntimeClient
from agent.errors import Permanent, Retryable
from agent.model.observed import ContainerState, ObservedPod
from agent.pods.observe import Observer
from agent.pods.worker import PodWorker
from agent.providers.relisting import Relisting

RELIST_S = 30.0
"""With an event source; without one every second."""
RELIST_BLIND_S = 1.0
UNSHOWN_S = 300.0
"""containerd shows an end only once the container's file system is unmounted, and with that on its disk."""
RECONNECT_S = 0.5


class ContainerdRelist:
    """Both jobs run for as long as the provider does, and end only with it."""

    def __init__(
        self,
        workers: Mapping[str, PodWorker],
        observer: Observer,
        take_over: Callable[[Mapping[str, ObservedPod]], None],
        health_changed: Callable[[], None],
    ) -> None:
        """`take_over` is given the pods that the runtime has and that had no worker when it was read."""
        self._workers = workers
        self._observer = observer
        self._take_over = take_over
        self._health_changed = health_changed
        self._now = asyncio.Event()
        self._every_s = RELIST_BLIND_S
        self._relisting = Relisting()
        self._unshown: dict[str, float] = {}
        """Containers and sandboxes whose end the runtime told and did not show yet, and until when to look for it."""

    async def follow_events(self, channel: RuntimeChannel, runtime: RuntimeClient) -> None:
        """Returns where the runtime has no event source."""
        while True:
            try:
                told = runtime_events(channel, runtime, self._observer, lambda _: self._subscribed())
                async with aclosing(told) as events:
                    async for event in events:
                        self._hear(event)
            except (Retryable, Permanent) as error:
                if isinstance(error, Permanent) and error.reason == UNIMPLEMENTED:
                    logger.warning("{}: looking at all containers every {:g} s instead", error, RELIST_BLIND_S)
                    self._relist_every(RELIST_BLIND_S)
                    return
                if self._every_s != RELIST_BLIND_S:
                    logger.warning("runtime events ended: {}", error)
                    self._relist_every(RELIST_BLIND_S)
                self._health_changed()
                await asyncio.sleep(RECONNECT_S)

    def _hear(self, event: RuntimeEvent) -> None:
        stopped, object_id = event.kind is Kind.STOPPED, event.container_id
        if not event.shown:
            self._unshown[object_id] = asyncio.get_running_loop().time() + UNSHOWN_S
            self._now.set()
        if stopped and self._observer.knows(object_id, ContainerState.EXITED):
            return
        owner = self._observer.owner(object_id)
        uid = event.pod_uid or owner
        if uid is None:
            if stopped:
                self._observer.hear_end(object_id)
            return
        if stopped and owner:
            self._observer.end(uid)
        else:
            self._observer.doubt(uid)
        if worker := self._workers.get(uid):
            worker.wake()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RELIST_BLIND_S if self._unshown else self._every_s):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            known = frozenset(self._workers)
            try:
                observed = await self._relisting.measure(self._observer.observe_all())
            except (Retryable, Permanent) as error:
                logger.debug("relist: {}", error)
                continue
            if self._unshown:
                self._look_for_unshown(observed)
            for uid, worker in self._workers.items():
                if _differs(worker.observed, observed.get(uid)):
                    self._observer.doubt(uid)
                    worker.wake()
            # What has ended since it was read is nobody's orphan.
            self._take_over({uid: pod for uid, pod in observed.items() if uid not in known})

    def _look_for_unshown(self, observed: Mapping[str, ObservedPod]) -> None:
        """The differences between two relists wake the workers; here is only decided how long they are looked for."""
        now, alive = asyncio.get_running_loop().time(), set[str]()
        for pod in observed.values():
            alive.update(one.id for one in pod.sandboxes if one.ready)
            alive.update(one.id for one in pod.containers if one.state is not ContainerState.EXITED)
        self._unshown = {one: until for one, until in self._unshown.items() if one in alive and now < until}

    def _subscribed(self) -> None:
        """What happened before is not told: look at everything once."""
        self._relist_every(RELIST_S)
        self._health_changed()

    def _relist_every(self, seconds: float) -> None:
        """Beginning now."""
        self._every_s = seconds
        self._now.set()


def _differs(last: ObservedPod, now: ObservedPod | None) -> bool:
    if now is None:
        return bool(last.sandboxes or last.containers)
    return last.sandboxes != now.sandboxes or last.containers != now.containers
