"""What the runtime's CNI network can do for a pod, read from the configuration that it has loaded. Pure.

In: "cniconfig" of containerd's verbose status, the same in 1.6 and 2. Out: whether it limits bandwidth, and the ranges
that addresses can be kept in: only where its addresses come from our plugin over host-local (`scripts/cni`).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import Permanent

OWN_IPAM = "edgelet-ipam"
LIMITS_BY_ITSELF = frozenset({"cilium-cni"})
"""Plugins that read the pod's annotations themselves, and declare no capability for it."""
LEASES = Path("/var/lib/cni/networks")
"""host-local's own default."""

Address = IPv4Address | IPv6Address


class _Range(msgspec.Struct):
    subnet: str
    rangeStart: str = ""
    rangeEnd: str = ""
    gateway: str = ""


class _Ipam(msgspec.Struct):
    """Ours, and so host-local's; another plugin may mean something else by these words."""

    ranges: list[list[_Range]]
    dataDir: str = ""


class _Plugin(msgspec.Struct):
    type: str = ""
    capabilities: dict[str, Any] | None = None
    ipam: Any = None


class _Loaded(msgspec.Struct):
    Source: str


class _Conflist(msgspec.Struct):
    Name: str
    Plugins: list[_Loaded]


class _Network(msgspec.Struct):
    Config: _Conflist
    IFName: str = ""


class _CniConfig(msgspec.Struct):
    Networks: list[_Network] | None = None


class AddressRange(msgspec.Struct, frozen=True):
    """Addresses of one subnet, `first` and `last` among them."""

    subnet: IPv4Network | IPv6Network
    first: Address
    last: Address
    gateway: Address

    def __contains__(self, address: Address) -> bool:
        return (
            address.version == self.subnet.version
            and int(self.first) <= int(address) <= int(self.last)
            and address != self.gateway
        )

    def downwards(self) -> Iterator[Address]:
        """From the last: host-local gives from the first, so that it is long before the two meet."""
        for number in range(int(self.last), int(self.first) - 1, -1):
            if (address := type(self.first)(number)) != self.gateway:
                yield address


class PodNetwork(msgspec.Struct, frozen=True):
    name: str
    limits_bandwidth: bool = False
    range_sets: tuple[tuple[AddressRange, ...], ...] = ()
    """A pod gets one address of each set. Empty: no address can be kept."""
    leases: Path = msgspec.field(default=LEASES)
    """host-local's folder of this network: one file for each address in use, its first line says whose."""

    def range_of(self, address: Address) -> AddressRange | None:
        return next((one for ranges in self.range_sets for one in ranges if address in one), None)

    @property
    def subnets(self) -> str:
        return ", ".join(str(one.subnet) for ranges in self.range_sets for one in ranges)


def pod_network(cniconfig: str) -> PodNetwork | None:
    """The network that pods get; None while the runtime has loaded none. Raises Permanent where it makes no sense."""
    try:
        loaded = msgspec.json.decode(cniconfig or "{}", type=_CniConfig)
        for network in loaded.Networks or []:
            plugins = [msgspec.json.decode(plugin.Source, type=_Plugin) for plugin in network.Config.Plugins]
            if plugins and plugins[0].type != "loopback":
                return _network(network.Config.Name, plugins)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Permanent("", f"the runtime's CNI network cannot be read: {error}") from error
    return None


def _network(name: str, plugins: list[_Plugin]) -> PodNetwork:
    limits = any((one.capabilities or {}).get("bandwidth") or one.type in LIMITS_BY_ITSELF for one in plugins)
    told = plugins[0].ipam
    if not isinstance(told, dict) or told.get("type") != OWN_IPAM:
        return PodNetwork(name, limits)
    ipam = msgspec.convert(told, _Ipam)
    sets = tuple(tuple(_range(one) for one in ranges) for ranges in ipam.ranges)
    return PodNetwork(name, limits, sets, (Path(ipam.dataDir) if ipam.dataDir else LEASES) / name)


def _range(told: _Range) -> AddressRange:
    """With host-local's defaults: all of the subnet but its own address and broadcast, its first host the gateway."""
    subnet = ip_network(told.subnet, strict=False)
    make = type(subnet.network_address)
    first = ip_address(told.rangeStart) if told.rangeStart else make(int(subnet.network_address) + 1)
    broadcast = subnet.version == 4
    last = ip_address(told.rangeEnd) if told.rangeEnd else make(int(subnet.broadcast_address) - broadcast)
    gateway = ip_address(told.gateway) if told.gateway else make(int(subnet.network_address) + 1)
    return AddressRange(subnet, first, last, gateway)
