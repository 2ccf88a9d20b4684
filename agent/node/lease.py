"""The Node's Lease: a small object renewed every twenty seconds, by which the control plane knows that this node lives.

In: the Node's name and UID, the lease's duration, and the clock. Out: a Lease in the namespace kube-node-lease, held by
this node and owned by its Node. It is renewed when half of its duration is over: a renewal that fails is tried again
within moments, until the link is back and then at once, so a cut of as long as the other half is not noticed by the
control plane. A link that failed is not trusted for a while: there it is renewed at each quarter, as a kubelet's.
Source: the Kubernetes page "Nodes" (heartbeats: 40 s) and the Lease API.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
from loguru import logger

from agent.clock import Clock, rfc3339_micro, sleep_unless
from agent.errors import EdgeletError, NotFound, Retryable
from agent.kube.answers import MAGIC, decode_object
from agent.kube.rest import CALL_TIMEOUT_S, MERGE_PATCH, PROTOBUF, Api
from agent.node.backoff import Backoff

SHARE = 0.5
"""Of its duration, until the lease is renewed; of what is left of it a retry has as much as before."""
SHARE_IN_DOUBT = 0.25
IN_DOUBT_S = 600.0
"""After a call that had no answer, for so long: links that fail once fail again."""
NOTICED_WITHIN_S = 4.5
"""A renewal that gets no answer tells that the link is dead, where nothing told it before."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class LeaseKeeper:
    def __init__(
        self,
        api: Api,
        node_name: str,
        node_uid: Callable[[], str],
        duration_s: int,
        clock: Clock,
        owned_anew: asyncio.Event,
    ) -> None:
        """`owned_anew` is set when `node_uid` gives another: that Node is alive from its first moment."""
        self._api = api
        self._name = node_name
        self._node_uid = node_uid
        self._duration_s = duration_s
        self._clock = clock
        self._owned_anew = owned_anew
        self._owner: str | None = None
        """UID of the Node that owns the lease; None: whether there is a lease is not known."""
        self._fresh = True
        """It was written as a whole, and no renewal was made since."""
        self._doubted_at = -IN_DOUBT_S
        api.link.on_loss(self._doubt)

    async def run(self) -> None:
        """Renew for ever."""
        backoff = Backoff()
        said = ""
        while True:
            self._owned_anew.clear()  # before the UID is read
            try:
                await self.renew()
            except EdgeletError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("the node's lease was not renewed: {}", error)
                self._doubt()
                await self._api.link.pause(backoff.next(), self._clock.sleep)
                continue
            if said:
                said = ""
                logger.info("the node's lease is renewed again")
            backoff.reset()
            # A fleet that was started at once must not renew at once for ever.
            pause_s = self._pause_s() * random.uniform(1.0, 1.04)  # noqa: S311
            await sleep_unless(self._owned_anew, self._clock.sleep(pause_s))

    def _doubt(self) -> None:
        self._doubted_at = self._clock.monotonic()

    def _pause_s(self) -> float:
        in_doubt = self._clock.monotonic() - self._doubted_at < IN_DOUBT_S
        return self._duration_s * (SHARE_IN_DOUBT if in_doubt else SHARE)

    async def renew(self) -> None:
        """One renewal: the usual one is a PATCH of the time, and answered in the shortest form there is."""
        owner = self._node_uid()
        if self._owner == owner:
            try:
                answer = await self._api.request(
                    "PATCH",
                    f"{LEASES}/{self._name}",
                    body=msgspec.json.encode(self._renewal()),
                    content_type=MERGE_PATCH,
                    accept=PROTOBUF,
                    timeout_s=NOTICED_WITHIN_S if self._api.reachable else CALL_TIMEOUT_S,
                )
                self._fresh = False
                if self._is_ours(answer):
                    return
            except NotFound:
                pass
            self._owner = None
        await self._take(owner)
        self._owner, self._fresh = owner, True

    def _renewal(self) -> dict[str, Any]:
        renewal: dict[str, Any] = {"spec": {"renewTime": rfc3339_micro(self._clock.wall())}}
        if self._fresh:
            # The API server notes who set which field, which makes every answer twice as long. A patch may take the
            # notes away, and an object without them gets none any more but by a server-side apply.
            renewal["metadata"] = {"managedFields": [{}]}
        return renewal

    def _is_ours(self, answer: bytes) -> bool:
        """Whether others left alone what a renewal does not send. Raises Retryable."""
        if not answer.startswith(MAGIC):
            # Whoever answers knows JSON only.
            found = decode_object(answer, "the node's lease").get("spec") or {}
            return (found.get("holderIdentity"), found.get("leaseDurationSeconds")) == (self._name, self._duration_s)
        from agent.kube import packed

        try:
            spec = packed.lease(answer).spec
        except ValueError as error:
            raise Retryable(f"the node's lease: the answer is none: {error}") from error
        return (spec.holderIdentity, spec.leaseDurationSeconds) == (self._name, self._duration_s)

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
            "leaseDurationSeconds": self._duration_s,
            "renewTime": rfc3339_micro(self._clock.wall()),
        }
