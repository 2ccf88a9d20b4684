"""The pod resources API on a socket of this machine: which container has which device. Monitoring of accelerators asks.

In: the pods of this node with their statuses, and their devices. Out: List, GetAllocatableResources and Get of v1, and
List of v1alpha1, whose messages are a part of v1's. No container has CPUs or memory to itself (the policies none), and
there is no dynamic resource allocation: these fields stay empty. Nothing of the API is loaded before the first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.node.device_plugins import RETRY_S, listen
from agent.pods.devices.devices import Devices

if TYPE_CHECKING:
    from agent.cri._generated import podresources_pb2 as pb

FOLDER: Final = "pod-resources"
SOCKET: Final = "kubelet.sock"
CALLS_A_SECOND: Final = 100
BURST: Final = 10

Pods = Callable[[], Iterable[tuple[PodRecord, PodStatus | None]]]


class RateLimit:
    """So many calls a second, after the first `burst`."""

    def __init__(self, clock: Clock, per_second: float, burst: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._at = clock.monotonic()

    def allows(self) -> bool:
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class PodResources:
    """`run` is its one task."""

    def __init__(self, settings: Settings, pods: Pods, devices: Devices, clock: Clock) -> None:
        self._socket = settings.root_dir.absolute() / FOLDER / SOCKET
        self._pods = pods
        self._devices = devices
        self._limit = RateLimit(clock, CALLS_A_SECOND, BURST)

    async def run(self) -> None:
        """Until cancelled. A socket that can't be had is tried again; nothing else depends on it."""
        said = ""
        while True:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(tuple(self._handlers()))
            try:
                await asyncio.to_thread(self._socket.parent.mkdir, 0o750, parents=True, exist_ok=True)
                listen(server, self._socket)
                await server.start()
                await asyncio.Event().wait()
            except (OSError, RuntimeError) as error:
                if str(error) != said:
                    logger.warning("the pod resources API is not served: {}", error)
                said = str(error)
            finally:
                await server.stop(None)
            await asyncio.sleep(RETRY_S)

    def _handlers(self) -> Iterator[Any]:
        v1 = {"List": self._list, "GetAllocatableResources": self._allocatable, "Get": self._get}
        for service, methods in (
            ("v1.PodResourcesLister", v1),
            ("v1alpha1.PodResourcesLister", {"List": self._list}),
        ):
            handlers = {name: grpc.unary_unary_rpc_method_handler(self._limited(m)) for name, m in methods.items()}
            yield grpc.method_handlers_generic_handler(service, handlers)

    def _limited(self, method: Any) -> Any:
        async def limited(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if not self._limit.allows():
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
            answer: bytes = await method(request, context)
            return answer

        return limited

    async def _list(self, _request: bytes, _context: Any) -> bytes:
        from agent.cri._generated import podresources_pb2 as pb

        active = (record.pod for record, status in self._pods() if status is None or not status.phase.is_terminal)
        return pb.ListPodResourcesResponse(pod_resources=map(self._of_pod, active)).SerializeToString()

    async def _get(self, request: bytes, context: Any) -> bytes:
        from agent.cri._generated import podresources_pb2 as pb

        asked = pb.GetPodResourcesRequest.FromString(request)
        name, namespace = asked.pod_name, asked.pod_namespace
        named = (record.pod for record, _ in self._pods())
        metas = ((pod, pod.metadata) for pod in named)
        found = next((pod for pod, meta in metas if (meta.namespace, meta.name) == (namespace, name)), None)
        if found is None:
            await context.abort(grpc.StatusCode.UNKNOWN, f"pod {name} in namespace {namespace} not found")
            return b""
        return pb.GetPodResourcesResponse(pod_resources=self._of_pod(found)).SerializeToString()

    async def _allocatable(self, _request: bytes, _context: Any) -> bytes:
        from agent.cri._generated import podresources_pb2 as pb

        devices = [
            one for resource, device in self._devices.allocatable() for one in _told(resource, device.id, device.numa)
        ]
        return pb.AllocatableResourcesResponse(devices=devices).SerializeToString()

    def _of_pod(self, pod: Pod) -> pb.PodResources:
        from agent.cri._generated import podresources_pb2 as pb

        names = (
            *(container.name for container in pod.spec.initContainers if container.is_sidecar),
            *(container.name for container in pod.spec.containers),
        )
        grants = self._devices.grants(pod.uid)
        containers = [
            pb.ContainerResources(
                name=name,
                devices=[
                    one
                    for grant in grants
                    if grant.container == name
                    for device in grant.devices
                    for one in _told(grant.resource, device.id, device.numa)
                ],
            )
            for name in names
        ]
        return pb.PodResources(name=pod.metadata.name, namespace=pod.metadata.namespace, containers=containers)


def _told(resource: str, device: str, numa: tuple[int, ...]) -> Iterator[pb.ContainerDevices]:
    """Once for each NUMA node that it is near to, as a kubelet tells it."""
    from agent.cri._generated import podresources_pb2 as pb

    if not numa:
        yield pb.ContainerDevices(resource_name=resource, device_ids=[device])
    for node in numa:
        near = pb.TopologyInfo(nodes=[pb.NUMANode(ID=node)])
        yield pb.ContainerDevices(resource_name=resource, device_ids=[device], topology=near)
