"""Devices of a device plugin: what it has, what pods were given of it, and what a container gets with them.

Values only: `agent.devices` puts them on the wire, and what is given is kept in the record as it is here.
Source of names and meaning: the device plugin API, v1beta1.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

UNEXPECTED = "UnexpectedAdmissionError"
"""The reason of a pod that a plugin has nothing (or nothing more) for."""


class Device(msgspec.Struct, frozen=True):
    id: str
    healthy: bool = True
    numa: tuple[int, ...] = ()
    """The NUMA nodes that it is near to; none: the plugin doesn't say."""


class PluginOptions(msgspec.Struct, frozen=True):
    pre_start: bool = False
    """It wants to be called before each start of a container."""
    preferred: bool = False
    """It has an opinion on which devices go together."""


NO_OPTIONS = PluginOptions()


class DeviceNode(msgspec.Struct, frozen=True, array_like=True):
    container_path: str
    host_path: str
    permissions: str = ""
    """Any of r, w and m."""


class DeviceMount(msgspec.Struct, frozen=True, array_like=True):
    container_path: str
    host_path: str
    read_only: bool = False


class DeviceSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a container gets to use its devices."""

    env: dict[str, str] = {}
    mounts: tuple[DeviceMount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = {}
    cdi: tuple[str, ...] = ()
    """Names of the Container Device Interface: vendor.com/class=name."""


class GivenDevice(msgspec.Struct, frozen=True, array_like=True):
    id: str
    numa: tuple[int, ...] = ()


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Devices of one resource that one container has, and what the plugin answered for them."""

    container: str
    resource: str
    devices: tuple[GivenDevice, ...] = ()
    settings: DeviceSettings = DeviceSettings()
    boot_id: str = ""
    """Of the boot in which the plugin answered: what it set up on the machine is gone after another one."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(device.id for device in self.devices)


class DevicePlugin(Protocol):
    """A plugin that is asked. Raises DriverError (`agent.model.csi`)."""

    async def prefer(self, available: tuple[str, ...], must_include: tuple[str, ...], size: int) -> tuple[str, ...]:
        """Which of its devices it would rather give; `must_include` are among the available ones."""

    async def allocate(self, ids: tuple[str, ...]) -> DeviceSettings | None:
        """Make these ready for one container; None: it gave no answer for it."""

    async def pre_start(self, ids: tuple[str, ...]) -> None:
        """A container with these is about to start."""
