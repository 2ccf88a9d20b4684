"""Take away what the runtime and the logs' folder still have of a pod that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from loguru import logger

from agent.errors import NotFound
from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.pods.machine import Machine
from agent.pods.on_disk import on_disk


async def remove_traces(machine: Machine, pod: Pod, observed: ObservedPod) -> None:
    """Sandboxes with their containers, and logs. Raises Retryable where something is still in use."""
    containers = (*observed.containers, *observed.abandoned)
    gone = {sandbox.id for sandbox in observed.sandboxes}
    with machine.observer.ending(*gone, *(container.id for container in containers)):
        for old in observed.sandboxes:
            await unless_gone(machine.runtime.remove_pod_sandbox(old.id))
        for container in containers:
            if container.sandbox_id not in gone:
                await unless_gone(machine.runtime.remove_container(container.id))
    machine.observer.forget(observed)
    with on_disk("cannot remove the logs"):
        await asyncio.to_thread(machine.log_files.remove_pod, pod)


async def remove_kept(machine: Machine, pod: Pod) -> None:
    """The same, of a pod that no worker looks after. Raises Retryable."""
    meta = pod.metadata
    await remove_traces(machine, pod, await machine.observer.observe(meta.uid, meta.namespace, meta.name))


async def unless_gone(call: Awaitable[None]) -> None:
    """The call of the runtime, which may find nothing of what it is to stop or to remove."""
    try:
        await call
    except NotFound as error:
        logger.debug("gone already: {}", error)
