"""The same pods without an agent: what a containerd that was just started needs for them at the very least.

In: the sandboxes and containers of a node, as containerd itself tells their configs. Out: the same once more under
another attempt, made by plain calls, so many pods at a time; the caller measures. Only the runtime's part is in it: no
volumes, no cgroups of pods, no record.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable

ANOTHER_ATTEMPT = 1000
"""The names of the agent's own stay reserved until it removes them."""
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class BarePod:
    """`containers` in the order of their making: each init container ends before the next begins."""

    sandbox: pb.PodSandboxConfig
    containers: tuple[pb.ContainerConfig, ...]
    inits: int


class Bare:
    def __init__(self, channel: RuntimeChannel) -> None:
        self._runtime = RuntimeClient(channel)
        self._made: list[str] = []

    async def pods(self) -> list[BarePod]:
        """All that run, as they were asked for."""
        found = []
        for item in await self._runtime.list_pod_sandbox():
            told = await self._runtime.pod_sandbox_status(item.id, verbose=True)
            sandbox = json_format.ParseDict(_config(told.info), pb.PodSandboxConfig(), ignore_unknown_fields=True)
            sandbox.metadata.attempt += ANOTHER_ATTEMPT
            only = pb.ContainerFilter(pod_sandbox_id=item.id)
            listed = sorted(await self._runtime.list_containers(only), key=lambda one: one.created_at)
            configs: list[pb.ContainerConfig] = []
            for one in listed:
                status = await self._runtime.container_status(one.id, verbose=True)
                configs.append(pb.ContainerConfig())
                json_format.ParseDict(_config(status.info), configs[-1], ignore_unknown_fields=True)
                configs[-1].metadata.attempt += ANOTHER_ATTEMPT
            ended = sum(one.state == pb.CONTAINER_EXITED for one in listed)
            found.append(BarePod(sandbox, tuple(configs), ended))
        return found

    async def wait_served(self) -> None:
        while True:
            try:
                await self._runtime.ping()
            except Retryable:
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                return

    async def count_running(self, name: str) -> int:
        """Containers of this name; -1 while the runtime does not answer."""
        state = pb.ContainerStateValue(state=pb.CONTAINER_RUNNING)
        running = pb.ContainerFilter(state=state, label_selector={"io.kubernetes.container.name": name})
        try:
            return len(await self._runtime.list_containers(running))
        except Retryable:
            return -1

    async def start(self, pods: Sequence[BarePod], at_once: int) -> None:
        """Returns when the last container was started."""
        turns = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(self._start(pod, turns))

    async def remove(self) -> None:
        """What `start` made."""
        async with asyncio.TaskGroup() as tasks:
            for sandbox in self._made:
                tasks.create_task(self._remove(sandbox))
        self._made.clear()

    async def _remove(self, sandbox: str) -> None:
        await self._runtime.stop_pod_sandbox(sandbox)
        await self._runtime.remove_pod_sandbox(sandbox)

    async def _start(self, pod: BarePod, turns: asyncio.Semaphore) -> None:
        async with turns:
            sandbox = await self._runtime.run_pod_sandbox(pod.sandbox)
            self._made.append(sandbox)
        for number, config in enumerate(pod.containers):
            async with turns:
                container = await self._runtime.create_container(sandbox, config, pod.sandbox)
                await self._runtime.start_container(container)
            if number < pod.inits:
                await self._ended(container)

    async def _ended(self, container: str) -> None:
        while True:
            if (await self._runtime.container_status(container)).status.state == pb.CONTAINER_EXITED:
                return
            await asyncio.sleep(LOOK_EVERY_S)


def _config(info: Any) -> dict[str, Any]:
    """containerd tells it as its own JSON in a verbose answer."""
    config: dict[str, Any] = json.loads(info["info"])["config"]
    for variable in config.get("envs") or []:
        # A string to containerd; our stub has bytes there, which are the same on the wire.
        variable["value"] = base64.b64encode(variable.get("value", "").encode()).decode()
    return config
