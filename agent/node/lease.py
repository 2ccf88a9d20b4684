"""The Node's Lease: a small object renewed every ten seconds, by which the control plane knows that this node lives.

In: the Node's name and UID, and the clock. Out: a Lease in the namespace kube-node-lease, held by this node and owned
by its Node. A renewal that fails is tried again within moments: four missed ones and the node counts as lost.
Source: the Kubernetes page "Nodes" (heartbeats) and the Lease API.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from loguru import logger

from agent.clock import Clock, rfc3339_micro
from agent.errors import EdgeletError, NotFound
from agent.kube.answers import decode_object
from agent.kube.rest import CALL_TIMEOUT_S, MERGE_PATCH, Api
from agent.node.backoff import Backoff

RENEW_EVERY_S = 10.0
DURATION_S = 40
NOTICED_WITHIN_S = 4.5
"""The first renewal that gets no answer tells that the link is dead: with the pause before it, within 15 s."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class LeaseKeeper:
    def __init__(self, api: Api, node_name: str, node_uid: Callable[[], str], clock: Clock) -> None:
        self._api = api
        self._name = node_name
        self._node_uid = node_uid
        self._clock = clock
        self._owner: str | None = None
        """UID of the Node that owns the lease; None: whether there is a lease is not known."""

    async def run(self) -> None:
        """Renew for ever."""
        backoff = Backoff()
        said = ""
        while True:
            try:
                await self.renew()
            except EdgeletError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("the node's lease was not renewed: {}", error)
                await self._api.link.pause(backoff.next(), self._clock.sleep)
                continue
            if said:
                said = ""
                logger.info("the node's lease is renewed again")
            backoff.reset()
            # A fleet that was started at once must not renew at once for ever.
            await self._clock.sleep(RENEW_EVERY_S * random.uniform(0.96, 1.0))  # noqa: S311

    async def renew(self) -> None:
        """One renewal: the usual one is a PATCH of what a renewal is, a third of the bytes of the whole object."""
        owner = self._node_uid()
        if self._owner == owner:
            try:
                await self._api.request(
                    "PATCH",
                    f"{LEASES}/{self._name}",
                    body=msgspec.json.encode({"spec": self._spec()}),
                    content_type=MERGE_PATCH,
                    timeout_s=NOTICED_WITHIN_S if self._api.reachable else CALL_TIMEOUT_S,
                )
                return
            except NotFound:
                self._owner = None
        await self._take(owner)
        self._owner = owner

    async def _take(self, owner: str) -> None:
        """Make it, or make it ours. Raises Conflict where somebody changes it meanwhile: the next try sees that."""
        try:
            found = decode_object(await self._api.get(f"{LEASES}/{self._name}"), "the node's lease")
        except NotFound:
            found = {"metadata": {"name": self._name, "namespace": "kube-node-lease"}}
        made = "uid" not in found["metadata"]
        if owner:
            found["metadata"]["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": owner}
            ]
        found |= {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "spec": (found.get("spec") or {}) | self._spec(),
        }
        if made:
            await self._api.post(LEASES, msgspec.json.encode(found))
        else:
            await self._api.put(f"{LEASES}/{self._name}", msgspec.json.encode(found))

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._name,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": rfc3339_micro(self._clock.wall()),
        }
