"""Ask the runtime how it is: its conditions RuntimeReady and NetworkReady, its name and version, its cgroup driver."""

from __future__ import annotations

import asyncio

import msgspec

from agent.cri.runtime import RuntimeClient
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.pods.cgroups import CgroupDriver
from agent.providers.contract import Health

ANSWER_S = 5.0
"""A runtime that does not answer for this long cannot run pods."""


async def runtime_health(runtime: RuntimeClient) -> Health:
    """Never raises ours: a runtime that cannot be asked is not ready."""
    try:
        async with asyncio.timeout(ANSWER_S):
            status, version = await asyncio.gather(runtime.status(), runtime.version())
    except TimeoutError:
        return Health(ready=False, message=f"the container runtime did not answer within {ANSWER_S:g} s")
    except (Retryable, Permanent, NotFound, ConfigError) as error:
        return Health(ready=False, message=f"container runtime is down: {error}")
    found = {condition.type: condition for condition in status.status.conditions}
    own, network = found.get("RuntimeReady"), found.get("NetworkReady")
    return Health(
        ready=own is not None and own.status,
        message=f"{own.reason}: {own.message}" if own is not None and not own.status else "",
        network_ready=network is not None and network.status,
        network_message=(
            f"container runtime network not ready: NetworkReady=false reason:{network.reason} message:{network.message}"
            if network is not None and not network.status
            else ""
        ),
        runtime_version=f"{version.runtime_name}://{version.runtime_version}",
    )


class _Options(msgspec.Struct):
    SystemdCgroup: bool = False


class _Handler(msgspec.Struct):
    options: _Options = msgspec.field(default_factory=_Options)


class _Containerd(msgspec.Struct):
    defaultRuntimeName: str = "runc"
    runtimes: dict[str, _Handler] = {}


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
    handler = config.containerd.runtimes.get(config.containerd.defaultRuntimeName, _Handler())
    return CgroupDriver.SYSTEMD if handler.options.SystemdCgroup else CgroupDriver.CGROUPFS
