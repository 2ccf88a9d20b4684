"""containerd's leases: what a pull or an import brought stays until its lease is deleted, however that ended.

A call that names a lease in its metadata, CRI's PullImage too, makes what it brings that lease's. Without one
containerd makes its own for each pull, and takes what was not finished away with it. Where the runtime is not
containerd, every call here is Permanent("Unimplemented").
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc.aio
import msgspec

from agent.cri._generated import leases_pb2
from agent.cri._generated.leases_pb2_grpc import LeasesStub
from agent.cri.channel import RuntimeChannel
from agent.cri.containerd import NAMESPACE
from agent.cri.faults import fault
from agent.cri.runtime import CALL_DEADLINE_S
from agent.errors import Conflict, EdgeletError, NotFound


class Leased(msgspec.Struct, frozen=True):
    content: tuple[str, ...]
    """Digests of whole blobs."""
    ingests: tuple[str, ...]
    """Names of writes that are not finished."""


class Leases:
    def __init__(self, channel: RuntimeChannel) -> None:
        self._endpoint = channel.endpoint
        self._stub = LeasesStub(channel.grpc)

    async def create(self, lease: str, labels: Mapping[str, str]) -> None:
        """One that is there is fine. It has no end of its own. Raises Retryable, Permanent."""
        request = leases_pb2.CreateRequest(id=lease, labels=labels)
        try:
            await self._stub.Create(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raised = self._fault("Leases.Create", error)
            if not isinstance(raised, Conflict):
                raise raised from error

    async def delete(self, lease: str) -> None:
        """What nothing else holds is collected. One that is not there is fine. Raises Retryable, Permanent."""
        request = leases_pb2.DeleteRequest(id=lease)
        try:
            await self._stub.Delete(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raised = self._fault("Leases.Delete", error)
            if not isinstance(raised, NotFound):
                raise raised from error

    async def labelled(self, label: str) -> frozenset[str]:
        """The leases that have this label. Raises Retryable, Permanent."""
        request = leases_pb2.ListRequest(filters=[f'labels."{label}"'])
        try:
            answer = await self._stub.List(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise self._fault("Leases.List", error) from error
        return frozenset(one.id for one in answer.leases)

    async def held(self, lease: str) -> Leased:
        """Raises Retryable, NotFound, Permanent."""
        request = leases_pb2.ListResourcesRequest(id=lease)
        try:
            answer = await self._stub.ListResources(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise self._fault("Leases.ListResources", error) from error
        found: dict[str, list[str]] = {"content": [], "ingests": []}
        for one in answer.resources:
            found.get(one.type, []).append(one.id)
        return Leased(tuple(found["content"]), tuple(found["ingests"]))

    def _fault(self, method: str, error: grpc.aio.AioRpcError) -> EdgeletError:
        return fault(method, self._endpoint, error)
