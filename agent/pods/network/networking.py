"""What a pod's policies ask of its network, made ready before each of its sandboxes.

In: the pod and the policies that hold for it. Out: an address that is kept for it, or a warning on the pod where the
runtime's network can't do what is asked. The runtime is asked about its network only for pods that have such a policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.pods.policing import Policing
from agent.pods.ports import Events
from agent.policies.fixed_ip import FIXED_IP
from agent.store.base import Store

if TYPE_CHECKING:
    from agent.pods.network.fixed_ips import FixedIps
    from agent.pods.network.pod_network import PodNetwork

KEPT = "fixed-ip/"
"""Where the record has kept addresses."""
HANDED_OVER = Path("/run/edgelet/fixed-ip")
"""One file for each pod that has a fixed address, named by its UID: CNI arguments for the plugin "static"."""


class TellsStatus(Protocol):
    async def status(self, *, verbose: bool = False) -> api_pb2.StatusResponse:
        """Raises Retryable, Permanent."""


class PodNetworking:
    """One for a node. `load` comes before the first pod."""

    def __init__(
        self,
        runtime: TellsStatus,
        policing: Policing,
        events: Events,
        store: Store,
        node_name: str,
        is_here: Callable[[str], bool],
        retention_s: float,
        wall: Callable[[], float],
        handed_over: Path = HANDED_OVER,
    ) -> None:
        """As `FixedIps`."""
        self._runtime = runtime
        self._policing = policing
        self._events = events
        self._store = store
        self._node_name = node_name
        self._is_here = is_here
        self._retention_s = retention_s
        self._wall = wall
        self._handed_over = handed_over
        self._kept: FixedIps | None = None
        self._needed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Raises Retryable."""
        if await self._store.list(KEPT):
            await self._fixed_ips()

    async def prepare(self, pod: Pod) -> None:
        """Raises Permanent where the pod has to wait for its address, or Retryable."""
        policies = self._policing.of(pod)
        limited = policies.ingress_bandwidth is not None or policies.egress_bandwidth is not None
        if policies.fixed_ip is None and self._kept is not None:
            await self._kept.give_up(pod)
        if pod.spec.hostNetwork or not (limited or policies.fixed_ip is not None):
            return
        try:
            network = await self._network()
        except Permanent as error:
            self._warn(pod, limited, policies.fixed_ip is not None, str(error), str(error))
            return
        if network is None:
            return  # no pod gets a network now: the runtime says why
        named = f"the pod network {network.name}"
        unlimited = limited and not network.limits_bandwidth
        not_kept = policies.fixed_ip is not None and not network.range_sets
        self._warn(pod, unlimited, not_kept, f"{named} has no plugin that limits it", f"{named} is not this agent's")
        if policies.fixed_ip is None or not_kept:
            return
        try:
            await (await self._fixed_ips()).keep(pod, policies.fixed_ip, network)
        except Permanent as error:
            raise Permanent(error.reason, f"{FIXED_IP.annotation}: {error}") from error

    async def run(self) -> None:
        """For as long as the agent lives."""
        await self._needed.wait()
        await (await self._fixed_ips()).run()

    async def _network(self) -> PodNetwork | None:
        """None while the runtime has none. Raises Permanent where it is not known what it can do."""
        from agent.pods.network.pod_network import pod_network

        info = (await self._runtime.status(verbose=True)).info
        if "cniconfig" not in info:
            raise Permanent("", "the runtime does not tell what its network can do")
        return pod_network(info["cniconfig"])

    async def _fixed_ips(self) -> FixedIps:
        """Most nodes keep no address, and need not hold the code."""
        async with self._turn:
            if self._kept is None:
                from agent.pods.network.fixed_ips import FixedIps
                from agent.pods.network.leases import Leases

                leases = Leases(self._node_name, self._handed_over)
                made = FixedIps(self._store, leases, self._is_here, self._retention_s, self._wall)
                await made.load()
                self._kept = made
                self._needed.set()
            return self._kept

    def _warn(self, pod: Pod, unlimited: bool, not_kept: bool, why_unlimited: str, why_not_kept: str) -> None:
        about = ObjectReference.of(pod)
        if unlimited:
            message = f"the pod's bandwidth is not limited: {why_unlimited}"
            self._events.record(about, "Warning", "BandwidthUnsupported", message)
        if not_kept:
            message = f"the pod gets any address: {why_not_kept}"
            self._events.record(about, "Warning", "FixedIpUnsupported", message)
