"""Ask the runtime how it is: its conditions RuntimeReady and NetworkReady, its name and version, its cgroup driver."""

from __future__ import annotations

import asyncio

import msgspec

from agent.cri._generated import api_pb2
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.node.ports import NodeImage, RuntimeCondition, RuntimeHandler, RuntimeHealth
from agent.pods.cgroups import CgroupDriver
from agent.pods.image_rewrites import NO_REWRITES, Rewrites

ANSWER_S = 5.0
"""A runtime that does not answer for this long cannot run pods."""
DECLARED_FEATURES = (
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)
"""In order. From 1.36 on a pod that needs one of them comes only to a node that names it, and so does such a change."""


class HealthReader:
    """Remembers the runtime's name and version, which a Node keeps while its runtime is down."""

    def __init__(self, runtime: RuntimeClient, images: ImageClient, rewrites: Rewrites = NO_REWRITES) -> None:
        self._runtime = runtime
        self._images = images
        self._rewrites = rewrites
        self._name = ""
        self._version = ""
        self._version_is_stale = False
        self._seen: tuple[NodeImage, ...] = ()

    async def health(self) -> RuntimeHealth:
        """Never raises ours: a runtime that cannot be asked is down."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._runtime.status()
                if not self._version or self._version_is_stale:
                    version = await self._runtime.version()
                    self._name, self._version = version.runtime_name, version.runtime_version
        except TimeoutError:
            return self._down(f"it did not answer within {ANSWER_S:g} s")
        except (Retryable, Permanent, NotFound, ConfigError) as error:
            return self._down(str(error))
        self._version_is_stale = False
        conditions = {condition.type: condition for condition in answer.status.conditions}
        return RuntimeHealth(
            runtime=_condition(conditions.get("RuntimeReady")),
            network=_condition(conditions.get("NetworkReady")),
            name=self._name,
            version=self._version,
            handlers=tuple(
                RuntimeHandler(h.name, h.features.recursive_read_only_mounts, h.features.user_namespaces)
                for h in answer.runtime_handlers
            ),
            supplemental_groups_policy=(
                answer.features.supplemental_groups_policy if answer.HasField("features") else None
            ),
            declared_features=DECLARED_FEATURES,
        )

    async def images(self) -> tuple[NodeImage, ...]:
        try:
            listed = await self._images.list_images()
        except (Retryable, Permanent, NotFound):
            return self._seen
        self._seen = tuple(NodeImage(self._names(image), image.size) for image in listed)
        return self._seen

    def _names(self, image: api_pb2.Image) -> tuple[str, ...]:
        """Also what pods call it: schedulers look for that."""
        names = (*image.repo_digests, *image.repo_tags)
        return (*names, *self._rewrites.originals(names))

    def _down(self, why: str) -> RuntimeHealth:
        # It may come back as a newer one.
        self._version_is_stale = True
        return RuntimeHealth(down=why, name=self._name, version=self._version)


def _condition(told: api_pb2.RuntimeCondition | None) -> RuntimeCondition:
    if told is None:
        return RuntimeCondition(ready=False, reason="Unknown", message="the runtime does not say")
    return RuntimeCondition(told.status, told.reason, told.message)


class _Options(msgspec.Struct):
    SystemdCgroup: bool = False


class _Handler(msgspec.Struct):
    options: _Options | None = None


class _Containerd(msgspec.Struct):
    defaultRuntimeName: str = "runc"
    runtimes: dict[str, _Handler] | None = None


class _Config(msgspec.Struct):
    containerd: _Containerd = msgspec.field(default_factory=_Containerd)


async def cgroup_driver(runtime: RuntimeClient) -> CgroupDriver:
    """As the runtime says: by RuntimeConfig (containerd 2), else in its verbose status (1.x). Raises Retryable."""
    try:
        linux = (await runtime.runtime_config()).linux
        return CgroupDriver.SYSTEMD if linux.cgroup_driver == 0 else CgroupDriver.CGROUPFS
    except Permanent:
        pass
    status = await runtime.status(verbose=True)
    try:
        config = msgspec.json.decode(status.info.get("config", "{}"), type=_Config)
    except msgspec.DecodeError:
        return CgroupDriver.CGROUPFS
    handler = (config.containerd.runtimes or {}).get(config.containerd.defaultRuntimeName)
    systemd = handler is not None and handler.options is not None and handler.options.SystemdCgroup
    return CgroupDriver.SYSTEMD if systemd else CgroupDriver.CGROUPFS
