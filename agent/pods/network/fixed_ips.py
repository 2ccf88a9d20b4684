"""Which pod keeps which address (`edgelet.io/fixed-ip`): in the record before it is used, the pod's name's until it has
been away for long enough.

In: pods that ask for one, before each of their sandboxes, and which pods are here. Out: rows `fixed-ip/NAMESPACE/NAME`,
and what `leases` makes of them. The name is the owner, not the UID: a StatefulSet's pod made again is the same to
whoever knows its address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Permanent
from agent.model.pod import Pod
from agent.pods.network.leases import Leases
from agent.pods.network.networking import KEPT
from agent.pods.network.pod_network import PodNetwork
from agent.pods.on_disk import on_disk
from agent.policies.fixed_ip import FixedIp
from agent.store.base import Store
from agent.store.rows import read_rows


class Kept(msgspec.Struct, frozen=True):
    """One row of the record."""

    addresses: tuple[str, ...]
    """One of each range set of the network."""
    leases: str
    """host-local's folder of the network."""
    uid: str
    """Of the pod that had it last."""
    away_since: float | None = None
    """Unix seconds, as far as the node knows the time; None: the pod is here."""


class FixedIps:
    """One for a node. `load` comes first."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        is_here: Callable[[str], bool],
        retention_s: float,
        wall: Callable[[], float],
    ) -> None:
        """`is_here`: the pod of this UID is not gone yet. `retention_s`: how long an address waits for its pod."""
        self._store = store
        self._leases = leases
        self._is_here = is_here
        self._retention_s = retention_s
        self._wall = wall
        self._kept: dict[str, Kept] = {}
        self._recalled: set[Path] = set()
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Raises Retryable."""
        self._kept = await read_rows(self._store, KEPT, Kept, "kept address")
        await asyncio.to_thread(self._hold_all)

    def _hold_all(self) -> None:
        """host-local's folder may have been cleared, and pods that keep no address start next."""
        for owner, kept in self._kept.items():
            for address in kept.addresses:
                try:
                    self._leases.hold(Path(kept.leases), address, owner)
                except (Permanent, OSError) as error:
                    logger.warning("address {} can't be kept for pod {}: {}", address, owner, error)

    async def keep(self, pod: Pod, wanted: FixedIp, network: PodNetwork) -> None:
        """The pod's next sandbox gets its own address. Raises Permanent where it can't, or Retryable."""
        async with self._turn:
            await self._recall(network)
            addresses = await self._addresses(pod, wanted, network)
            with on_disk("cannot hand an address over"):
                await asyncio.to_thread(self._leases.hand_over, network, addresses, pod.uid)

    async def _addresses(self, pod: Pod, wanted: FixedIp, network: PodNetwork) -> tuple[str, ...]:
        owner, asked = _owner(pod), ip_address(wanted.address) if wanted.address else None
        kept = self._kept.get(owner)
        if kept is not None and kept.uid != pod.uid and self._is_here(kept.uid):
            raise Permanent("", f"{', '.join(kept.addresses)} is in use by another pod of this name")
        if kept is not None and not _fits(kept, wanted, network):
            await self._free(owner)
            kept = None
        if kept is None:
            if wanted.address:
                await self._inherit(pod.metadata.namespace, wanted.address)
            with on_disk("cannot take an address"):
                addresses = await asyncio.to_thread(self._leases.take, network, asked, owner)
            try:
                await self._put(owner, Kept(addresses, str(network.leases), pod.uid))
            except BaseException:
                await asyncio.to_thread(self._leases.free, network.leases, addresses, owner)
                raise
        else:
            addresses = kept.addresses
            with on_disk("cannot take an address"):
                for address in addresses:
                    await asyncio.to_thread(self._leases.hold, network.leases, address, owner)
            if kept.uid != pod.uid or kept.away_since is not None:
                await self._put(owner, Kept(addresses, kept.leases, pod.uid))
        return addresses

    async def give_up(self, pod: Pod) -> None:
        """The pod does not ask for an address any more. Raises Retryable."""
        async with self._turn:
            kept = self._kept.get(_owner(pod))
            if kept is not None and (kept.uid == pod.uid or not self._is_here(kept.uid)):
                await self._free(_owner(pod))

    async def run(self) -> None:
        """Free what waited for too long, for as long as the agent lives."""
        every = min(60.0, max(1.0, self._retention_s / 10))
        while True:
            await asyncio.sleep(every)
            try:
                async with self._turn:
                    await self.look()
            except EdgeletError as error:
                logger.warning("kept addresses are not looked at: {}", error)

    async def look(self) -> None:
        """Raises Retryable."""
        now = self._wall()
        for owner, kept in tuple(self._kept.items()):
            if self._is_here(kept.uid):
                if kept.away_since is not None:
                    await self._put(owner, msgspec.structs.replace(kept, away_since=None))
            elif kept.away_since is None:
                with on_disk("cannot take an address back"):
                    await asyncio.to_thread(self._leases.take_back, kept.uid)
                await self._put(owner, msgspec.structs.replace(kept, away_since=now))
            elif now - kept.away_since >= self._retention_s:
                logger.info("address {} of pod {} is free: it was away for long", ", ".join(kept.addresses), owner)
                await self._free(owner)

    async def _recall(self, network: PodNetwork) -> None:
        """Addresses that are taken and of which a record that was lost knows nothing are still their owners'."""
        if network.leases in self._recalled:
            return
        with on_disk("cannot look for kept addresses"):
            held = await asyncio.to_thread(lambda: list(self._leases.held(network.leases)))
        unknown: dict[str, tuple[str, ...]] = {}
        for address, owner in sorted(held):
            if owner not in self._kept:
                unknown[owner] = (*unknown.get(owner, ()), address)
        for owner, addresses in unknown.items():
            await self._put(owner, Kept(addresses, str(network.leases), "", self._wall()))
        self._recalled.add(network.leases)

    async def _inherit(self, namespace: str, address: str) -> None:
        """An address that is written out is its namespace's: a Deployment's next pod has another name.

        Raises Permanent.
        """
        for owner, kept in tuple(self._kept.items()):
            if address not in kept.addresses:
                continue
            if owner.partition("/")[0] != namespace or self._is_here(kept.uid):
                raise Permanent("", f"{address} is kept for pod {owner}")
            await self._free(owner)

    async def _put(self, owner: str, kept: Kept) -> None:
        await self._store.put(KEPT + owner, msgspec.json.encode(kept))
        self._kept[owner] = kept

    async def _free(self, owner: str) -> None:
        kept = self._kept[owner]
        await self._store.delete(KEPT + owner)
        self._kept.pop(owner, None)
        with on_disk("cannot free an address"):
            await asyncio.to_thread(self._leases.free, Path(kept.leases), kept.addresses, owner)
            await asyncio.to_thread(self._leases.take_back, kept.uid)


def _owner(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _fits(kept: Kept, wanted: FixedIp, network: PodNetwork) -> bool:
    """It is in the network as that is now, and is what is asked for."""
    here = all(network.range_of(ip_address(address)) is not None for address in kept.addresses)
    complete = len(kept.addresses) == len(network.range_sets)
    same = not wanted.address or wanted.address in kept.addresses
    return Path(kept.leases) == network.leases and here and complete and same
