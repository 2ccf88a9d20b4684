"""What pod workers need for pods of host programs: the rules, the empty image, and the host under their containers.

One for all pods of a node; made with the machine. Decisions are in `allowed` and `host_program`; here they become
effects.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.container import Container
from agent.model.pod import Pod
from agent.pods.on_disk import on_disk
from agent.pods.scripts.allowed import ScriptRules
from agent.pods.scripts.empty_image import EmptyImage
from agent.pods.scripts.host_program import mountpoints, plain_path, user, with_host
from agent.pods.scripts.host_root import read_host
from agent.pods.scripts.mountpoints import Mountpoints
from agent.pods.translate.security import CREATE_CONFIG


class Scripts(msgspec.Struct, frozen=True):
    rules: ScriptRules
    image: EmptyImage
    made: Mountpoints

    async def prepare(self, config: api_pb2.ContainerConfig, pod: Pod, container: Container) -> api_pb2.ContainerConfig:
        """The container's configuration with the host in it; what it mounts on is there. Raises Permanent."""
        with on_disk("cannot read the host's folders"):
            host = await asyncio.to_thread(read_host, user(pod, container))
        made = with_host(config, pod, container, host)
        wanted = mountpoints(made, host)
        if wanted:
            try:
                await asyncio.to_thread(self._make, pod.uid, wanted, made)
            except OSError as error:
                message = f"cannot make what the container mounts on: {error.strerror}: {error.filename}"
                raise Permanent(CREATE_CONFIG, message) from error
        return made

    async def release(self, uid: str) -> None:
        """The pod's containers are gone. Raises Retryable."""
        with on_disk("cannot remove what the pod was mounted on"):
            await asyncio.to_thread(self.made.release, uid)

    def _make(self, uid: str, wanted: tuple[str, ...], config: api_pb2.ContainerConfig) -> None:
        files = {plain_path(mount.container_path) for mount in config.mounts if not Path(mount.host_path).is_dir()}
        self.made.make(uid, {path: path not in files for path in wanted})
