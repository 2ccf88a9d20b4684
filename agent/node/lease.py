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
from agent.errors import Conflict, EdgeletError, NotFound
from agent.kube.answers import decode_object
from agent.kube.rest import CALL_TIMEOUT_S, Api
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
        self._known: dict[str, Any] | None = None

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
        """One renewal: the usual one is a single PUT."""
        if self._known is None:
            self._known = await self._found_or_made()
            return
        try:
            self._known = await self._put(self._known)
        except (Conflict, NotFound):
            # Somebody changed or removed it: look, and take it again.
            self._known = None
            self._known = await self._found_or_made()

    async def _found_or_made(self) -> dict[str, Any]:
        try:
            found = decode_object(await self._api.get(f"{LEASES}/{self._name}"), "the node's lease")
        except NotFound:
            made = self._renewed({"metadata": {"name": self._name, "namespace": "kube-node-lease"}})
            return decode_object(await self._api.post(LEASES, msgspec.json.encode(made)), "the node's lease")
        return await self._put(found)

    async def _put(self, known: dict[str, Any]) -> dict[str, Any]:
        body = msgspec.json.encode(self._renewed(known))
        timeout_s = NOTICED_WITHIN_S if self._api.reachable else CALL_TIMEOUT_S
        answer = await self._api.put(f"{LEASES}/{self._name}", body, timeout_s=timeout_s)
        return decode_object(answer, "the node's lease")

    def _renewed(self, lease: dict[str, Any]) -> dict[str, Any]:
        metadata = lease["metadata"]
        if uid := self._node_uid():
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": uid}
            metadata = metadata | {"ownerReferences": [owner]}
        spec = (lease.get("spec") or {}) | {
            "holderIdentity": self._name,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": rfc3339_micro(self._clock.wall()),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
