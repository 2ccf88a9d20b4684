"""End containers: preStop hook, the container's turn, stop signal, SIGKILL; all within one grace period.

In: the kills of one plan. Out: ended containers. Hooks of all run at the same time; a sidecar then waits until those
that need it have ended, or until the grace is over. The pod's end, beginning meanwhile, interrupts a kill that has
another cause; a shorter grace period shortens what is under way, and a hook that has ended is never run again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable
from pathlib import Path

from loguru import logger

from agent.errors import NotFound
from agent.model.action import KillContainer
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedPod
from agent.pods.addresses import pod_addresses
from agent.pods.interrupt import Interrupt
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState
from agent.pods.probes.target import Target
from agent.pods.volumes.layout import pre_stop_mark

MINIMUM_STOP_S = 2
"""Even a container whose time is over gets this long to end by itself, as the kubelet gives it."""
MINIMUM_HOOK_S = 1


class ContainerEnder:
    """For one pod; `root` is the agent's root folder."""

    def __init__(self, machine: Machine, state: PodState, root: Path, interrupt: Interrupt) -> None:
        self._machine = machine
        self._state = state
        self._root = root
        self._interrupt = interrupt
        self._ended: dict[str, asyncio.Event] = {}

    def expect(self, kills: Iterable[KillContainer]) -> None:
        """These are about to be ended at the same time, and may wait for each other."""
        self._ended = {kill.container_id: asyncio.Event() for kill in kills}

    async def end(self, kill: KillContainer, observed: ObservedPod) -> None:
        """Returns early where the pod's end has begun meanwhile: that is another plan. Raises Retryable, Permanent."""
        machine, state = self._machine, self._state
        container = state.container(kill.name)
        about = ObjectReference.of(state.pod, f"spec.containers{{{kill.name}}}")
        grace = _Grace(machine, state, kill)
        if container is not None:
            sandbox_ips = observed.sandbox.ips if observed.sandbox is not None else ()
            ips = pod_addresses(state.pod, sandbox_ips, machine.node.host_ips)
            target = Target(state.pod, container, kill.container_id, next(iter(ips), ""))
            about = target.reference
        if kill.replaced:
            state.replaced.add(kill.container_id)
        machine.events.record(about, "Normal", "Killing", kill.message)
        if container is not None and container.lifecycle is not None and container.lifecycle.preStop is not None:
            mark = pre_stop_mark(self._root, state.pod.uid, kill.name, kill.container_id)
            if kill.grace_s > 0 and not await asyncio.to_thread(mark.exists):
                if not await self._within(grace, machine.hooks.pre_stop(target)):
                    return
                await asyncio.to_thread(_leave, mark)
        if not await self._within(grace, self._turn(kill)):
            return
        while True:
            async with self._interrupt.scope() as scope:
                await self._stop(kill.container_id, max(MINIMUM_STOP_S, math.ceil(grace.left)))
            if not scope.interrupted:
                break
            if grace.is_void:
                return
        if kill.container_id in self._ended:
            self._ended[kill.container_id].set()
        machine.prober.stop(kill.container_id)
        state.post_starting.pop(kill.container_id, None)

    async def _turn(self, kill: KillContainer) -> None:
        for first in kill.after:
            await self._ended[first].wait()

    async def _within(self, grace: _Grace, work: Coroutine[None, None, None]) -> bool:
        """Let it go on to its end or to that of the grace period; False where the pod's own end cut it short."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            while not task.done() and grace.left > 0 and not grace.is_void:
                async with self._interrupt.scope():
                    await asyncio.wait({task}, timeout=grace.left)
            task.cancel()
        return not grace.is_void

    async def _stop(self, container_id: str, grace_s: int) -> None:
        try:
            with self._machine.observer.ending(container_id):
                await self._machine.runtime.stop_container(container_id, grace_s)
        except NotFound as error:
            logger.bind(pod=self._state.pod.full_name).debug("gone already: {}", error)


class _Grace:
    """The time that one kill has: its own, and no more than the pod's."""

    def __init__(self, machine: Machine, state: PodState, kill: KillContainer) -> None:
        self._machine = machine
        self._state = state
        self._began = machine.monotonic()
        self._due = self._began + kill.grace_s
        self._pod_was_ending = state.stop is not None

    @property
    def left(self) -> float:
        """Seconds."""
        due = self._due
        if self._state.stop is not None:
            due = min(due, max(self._state.stop.deadline, self._began + MINIMUM_HOOK_S))
        return max(0.0, due - self._machine.monotonic())

    @property
    def is_void(self) -> bool:
        """The pod's end has begun since."""
        return not self._pod_was_ending and self._state.stop is not None


def _leave(mark: Path) -> None:
    """For an agent after this one."""
    try:
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        mark.touch()
    except OSError as error:
        logger.warning("a preStop hook may be run again after a restart: {}", error)
