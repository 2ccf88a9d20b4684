"""What a container that is made now gets of device plugins, as far as this runtime can give it.

In: the node's devices, the pod and the container. Out: its settings, empty for nearly every container. What the runtime
would leave out without a word is refused here.
"""

from __future__ import annotations

import re
from typing import Final

from agent.errors import Permanent, Retryable
from agent.model.container import Container
from agent.model.devices import DeviceSettings
from agent.model.pod import Pod
from agent.pods.machine import Machine

NOTHING: Final = DeviceSettings()
_CDI_SINCE: Final = (1, 7)
"""The first containerd whose CRI has a field for names of the Container Device Interface."""


async def given_devices(machine: Machine, pod: Pod, container: Container) -> DeviceSettings:
    """Raises Permanent("CreateContainerConfigError")."""
    if machine.devices is None or not container.resources.limits:
        return NOTHING
    try:
        settings = await machine.devices.prepare(pod, container) or NOTHING
        if settings.cdi:
            told = await machine.runtime.version()
            if not knows_cdi(told.runtime_name, told.runtime_version):
                name = f"{told.runtime_name} {told.runtime_version}"
                why = f"{name} can't give CDI devices ({', '.join(settings.cdi)}): containerd can since 1.7"
                raise Permanent("CreateContainerConfigError", why)
    except Retryable as error:
        raise Permanent("CreateContainerConfigError", str(error)) from error
    return settings


def knows_cdi(name: str, version: str) -> bool:
    """Of another runtime, or a version that can't be read, nothing is known that speaks against it."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return name != "containerd" or found is None or (int(found[1]), int(found[2])) >= _CDI_SINCE
