"""A container runtime that lives in memory and speaks CRI on a real unix socket.

Sandboxes and containers behave as containerd's: names are reserved, a stopped container keeps its exit code, removing a
sandbox removes what is in it, events are told. A test drives it from outside (`exit`, `lose_sandbox`, `fail`, `hold`)
and reads what it was asked (`called`): see `tests.fakes.cri_world`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from agent.cri._generated import api_pb2 as pb
from agent.cri._generated import api_pb2_grpc, event_service_pb2, event_service_pb2_grpc
from agent.cri.events import Source
from tests.fakes.cri_world import SIGKILLED, FakeContainer, FakeSandbox, FakeWorld, sandbox_state, sandbox_status

Context = grpc.aio.ServicerContext[Any, Any]


class FakeRuntime(
    FakeWorld,
    api_pb2_grpc.RuntimeServiceServicer,
    api_pb2_grpc.ImageServiceServicer,
    event_service_pb2_grpc.EventsServicer,
):
    """The runtime's services. Calls that it does not have answer UNIMPLEMENTED."""

    # RuntimeService

    async def Version(self, request: pb.VersionRequest, context: Context) -> pb.VersionResponse:
        await self._enter("Version", request, context)
        return pb.VersionResponse(
            version="0.1.0", runtime_name=self.name, runtime_version=self.version, runtime_api_version="v1"
        )

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        await self._enter("Status", request, context)
        conditions = [
            pb.RuntimeCondition(type=kind, status=good, reason="" if good else f"{kind}Lost")
            for kind, good in self.conditions.items()
        ]
        info = {"config": self.config} if request.verbose else {}
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions), info=info)

    async def RuntimeConfig(self, request: pb.RuntimeConfigRequest, context: Context) -> pb.RuntimeConfigResponse:
        await self._enter("RuntimeConfig", request, context)
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    async def RunPodSandbox(self, request: pb.RunPodSandboxRequest, context: Context) -> pb.RunPodSandboxResponse:
        await self._enter("RunPodSandbox", request, context)
        meta = request.config.metadata
        name = f"{meta.name}_{meta.namespace}_{meta.uid}_{meta.attempt}"
        sandbox_id = await self._reserve("sandbox", name, context)
        host = request.config.linux.security_context.namespace_options.network == pb.NODE
        ip = "" if host else f"10.88.0.{self._ids}"
        config = pb.PodSandboxConfig()
        config.CopyFrom(request.config)
        self.sandboxes[sandbox_id] = FakeSandbox(sandbox_id, config, self._now(), ip, request.runtime_handler)
        self._tell(pb.CONTAINER_CREATED_EVENT, sandbox_id, sandbox_id)
        self._tell(pb.CONTAINER_STARTED_EVENT, sandbox_id, sandbox_id)
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)

    async def StopPodSandbox(self, request: pb.StopPodSandboxRequest, context: Context) -> pb.StopPodSandboxResponse:
        await self._enter("StopPodSandbox", request, context)
        sandbox = await self._sandbox(request.pod_sandbox_id, context)
        self._stop_sandbox(sandbox)
        return pb.StopPodSandboxResponse()

    async def RemovePodSandbox(
        self, request: pb.RemovePodSandboxRequest, context: Context
    ) -> pb.RemovePodSandboxResponse:
        await self._enter("RemovePodSandbox", request, context)
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        if sandbox is not None:
            self._stop_sandbox(sandbox)
            for container in self._in_sandbox(sandbox.id):
                self._remove(container)
            del self.sandboxes[sandbox.id]
            self._release(sandbox.id)
            self._tell(pb.CONTAINER_DELETED_EVENT, sandbox.id, sandbox.id)
        return pb.RemovePodSandboxResponse()

    async def PodSandboxStatus(
        self, request: pb.PodSandboxStatusRequest, context: Context
    ) -> pb.PodSandboxStatusResponse:
        await self._enter("PodSandboxStatus", request, context)
        sandbox = await self._sandbox(request.pod_sandbox_id, context)
        return pb.PodSandboxStatusResponse(status=sandbox_status(sandbox))

    async def ListPodSandbox(self, request: pb.ListPodSandboxRequest, context: Context) -> pb.ListPodSandboxResponse:
        await self._enter("ListPodSandbox", request, context)
        wanted = request.filter
        items = []
        for sandbox in self.sandboxes.values():
            state = sandbox_state(sandbox)
            if wanted.id not in ("", sandbox.id) or not _selected(wanted.label_selector, sandbox.config.labels):
                continue
            if wanted.HasField("state") and wanted.state.state != state:
                continue
            items.append(
                pb.PodSandbox(
                    id=sandbox.id,
                    metadata=sandbox.config.metadata,
                    state=state,
                    created_at=sandbox.created_at,
                    labels=sandbox.config.labels,
                    annotations=sandbox.config.annotations,
                    runtime_handler=sandbox.runtime_handler,
                )
            )
        return pb.ListPodSandboxResponse(items=items)

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Context) -> pb.CreateContainerResponse:
        await self._enter("CreateContainer", request, context)
        sandbox = await self._sandbox(request.pod_sandbox_id, context)
        if not sandbox.ready:
            await context.abort(grpc.StatusCode.UNKNOWN, f"sandbox container {sandbox.id!r} is not running")
        image = self._image(request.config.image.image)
        if image is None:
            wanted = request.config.image.image
            await context.abort(grpc.StatusCode.NOT_FOUND, f"failed to resolve image {wanted!r}: not found")
        meta, pod = request.config.metadata, sandbox.config.metadata
        name = f"{meta.name}_{pod.name}_{pod.namespace}_{pod.uid}_{meta.attempt}"
        container_id = await self._reserve("container", name, context)
        config = pb.ContainerConfig()
        config.CopyFrom(request.config)
        self.containers[container_id] = FakeContainer(container_id, sandbox.id, config, image.id, self._now())
        self._tell(pb.CONTAINER_CREATED_EVENT, container_id, sandbox.id)
        return pb.CreateContainerResponse(container_id=container_id)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Context) -> pb.StartContainerResponse:
        await self._enter("StartContainer", request, context)
        container = await self._container(request.container_id, context)
        if container.state != pb.CONTAINER_CREATED:
            state = pb.ContainerState.Name(container.state)
            await context.abort(grpc.StatusCode.UNKNOWN, f"container is in {state} state")
        container.state = pb.CONTAINER_RUNNING
        container.started_at = self._now()
        self._tell(pb.CONTAINER_STARTED_EVENT, container.id, container.sandbox_id)
        return pb.StartContainerResponse()

    async def StopContainer(self, request: pb.StopContainerRequest, context: Context) -> pb.StopContainerResponse:
        await self._enter("StopContainer", request, context)
        container = await self._container(request.container_id, context)
        if container.state == pb.CONTAINER_RUNNING:
            behaviour = self.behaviours[container.config.metadata.name]
            if behaviour.obeys_stop and request.timeout > 0:
                self.exit(container.id, behaviour.stop_exit_code)
            else:
                if request.timeout > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(None) as wait:
                            container.ended = functools.partial(wait.reschedule, 0)
                            await self.clock.sleep(request.timeout)
                    container.ended = _nothing
                if container.state == pb.CONTAINER_RUNNING:
                    self.exit(container.id, SIGKILLED)
        return pb.StopContainerResponse()

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Context) -> pb.RemoveContainerResponse:
        await self._enter("RemoveContainer", request, context)
        container = self.containers.get(request.container_id)
        if container is not None:
            self._remove(container)
        return pb.RemoveContainerResponse()

    async def ListContainers(self, request: pb.ListContainersRequest, context: Context) -> pb.ListContainersResponse:
        await self._enter("ListContainers", request, context)
        wanted = request.filter
        listed = []
        for container in self.containers.values():
            if wanted.id not in ("", container.id) or wanted.pod_sandbox_id not in ("", container.sandbox_id):
                continue
            if wanted.HasField("state") and wanted.state.state != container.state:
                continue
            if not _selected(wanted.label_selector, container.config.labels):
                continue
            listed.append(
                pb.Container(
                    id=container.id,
                    pod_sandbox_id=container.sandbox_id,
                    metadata=container.config.metadata,
                    image=container.config.image,
                    image_ref=container.image_ref,
                    state=container.state,
                    created_at=container.created_at,
                    labels=container.config.labels,
                    annotations=container.config.annotations,
                )
            )
        return pb.ListContainersResponse(containers=listed)

    async def ContainerStatus(self, request: pb.ContainerStatusRequest, context: Context) -> pb.ContainerStatusResponse:
        await self._enter("ContainerStatus", request, context)
        container = await self._container(request.container_id, context)
        return pb.ContainerStatusResponse(status=self._container_status(container))

    async def UpdateContainerResources(
        self, request: pb.UpdateContainerResourcesRequest, context: Context
    ) -> pb.UpdateContainerResourcesResponse:
        await self._enter("UpdateContainerResources", request, context)
        container = await self._container(request.container_id, context)
        container.resources = request.linux
        return pb.UpdateContainerResourcesResponse()

    async def ContainerStats(self, request: pb.ContainerStatsRequest, context: Context) -> pb.ContainerStatsResponse:
        await self._enter("ContainerStats", request, context)
        return pb.ContainerStatsResponse(stats=_stats(await self._container(request.container_id, context)))

    async def ListContainerStats(
        self, request: pb.ListContainerStatsRequest, context: Context
    ) -> pb.ListContainerStatsResponse:
        await self._enter("ListContainerStats", request, context)
        return pb.ListContainerStatsResponse(stats=[_stats(container) for container in self.containers.values()])

    async def ReopenContainerLog(
        self, request: pb.ReopenContainerLogRequest, context: Context
    ) -> pb.ReopenContainerLogResponse:
        await self._enter("ReopenContainerLog", request, context)
        await self._running(request.container_id, context)
        return pb.ReopenContainerLogResponse()

    async def ExecSync(self, request: pb.ExecSyncRequest, context: Context) -> pb.ExecSyncResponse:
        await self._enter("ExecSync", request, context)
        container = await self._running(request.container_id, context)
        results = self.behaviours[container.config.metadata.name].exec_results
        return results.popleft() if results else pb.ExecSyncResponse()

    async def Exec(self, request: pb.ExecRequest, context: Context) -> pb.ExecResponse:
        await self._enter("Exec", request, context)
        await self._running(request.container_id, context)
        return pb.ExecResponse(url=f"http://127.0.0.1:1/exec/{request.container_id}")

    async def Attach(self, request: pb.AttachRequest, context: Context) -> pb.AttachResponse:
        await self._enter("Attach", request, context)
        await self._running(request.container_id, context)
        return pb.AttachResponse(url=f"http://127.0.0.1:1/attach/{request.container_id}")

    async def PortForward(self, request: pb.PortForwardRequest, context: Context) -> pb.PortForwardResponse:
        await self._enter("PortForward", request, context)
        await self._sandbox(request.pod_sandbox_id, context)
        return pb.PortForwardResponse(url=f"http://127.0.0.1:1/portforward/{request.pod_sandbox_id}")

    async def GetContainerEvents(
        self, request: pb.GetEventsRequest, context: Context
    ) -> AsyncIterator[pb.ContainerEventResponse]:
        await self._enter("GetContainerEvents", request, context)
        if self.event_source is not Source.CRI:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method GetContainerEvents")
        async for message in self._stream():
            yield message

    # containerd.services.events.v1.Events

    async def Subscribe(
        self, request: event_service_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[event_service_pb2.Envelope]:
        await self._enter("Subscribe", request, context)
        if self.event_source is not Source.CONTAINERD:
            service = "containerd.services.events.v1.Events"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown service {service}")
        async for message in self._stream():
            yield message

    # ImageService

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        await self._enter("ListImages", request, context)
        wanted = request.filter.image.image
        return pb.ListImagesResponse(images=[i for i in self.images.values() if not wanted or wanted in i.repo_tags])

    async def ImageStatus(self, request: pb.ImageStatusRequest, context: Context) -> pb.ImageStatusResponse:
        await self._enter("ImageStatus", request, context)
        return pb.ImageStatusResponse(image=self._image(request.image.image))

    async def PullImage(self, request: pb.PullImageRequest, context: Context) -> pb.PullImageResponse:
        await self._enter("PullImage", request, context)
        name = request.image.image
        if self.registry is not None and name not in self.registry:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'failed to pull image "{name}": {name}: not found')
        return pb.PullImageResponse(image_ref=self.add_image(name).id)

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Context) -> pb.RemoveImageResponse:
        await self._enter("RemoveImage", request, context)
        image = self._image(request.image.image)
        for tag in image.repo_tags if image is not None else ():
            self.images.pop(tag, None)
        return pb.RemoveImageResponse()

    async def ImageFsInfo(self, request: pb.ImageFsInfoRequest, context: Context) -> pb.ImageFsInfoResponse:
        await self._enter("ImageFsInfo", request, context)
        usage = pb.FilesystemUsage(
            timestamp=self._now(),
            fs_id=pb.FilesystemIdentifier(mountpoint="/"),
            used_bytes=pb.UInt64Value(value=sum(image.size for image in self.images.values())),
        )
        return pb.ImageFsInfoResponse(image_filesystems=[usage])

    # How it is done

    async def _enter(self, method: str, request: Any, context: Context) -> None:
        self.calls.append((method, request))
        if method in self.unserved:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
        failure = self._failures.get(method)
        if failure is not None and failure.times > 0:
            failure.times -= 1
            await context.abort(failure.code, failure.details)
        gate = self._gates.get(method)
        if gate is not None:
            await gate.wait()

    async def _reserve(self, kind: str, name: str, context: Context) -> str:
        if name in self._names:
            holder = self._names[name]
            details = f'failed to reserve {kind} name "{name}": name "{name}" is reserved for "{holder}"'
            await context.abort(grpc.StatusCode.UNKNOWN, details)
        self._ids += 1
        self._names[name] = f"{kind}{self._ids}"
        return self._names[name]

    async def _sandbox(self, sandbox_id: str, context: Context) -> FakeSandbox:
        if sandbox_id not in self.sandboxes:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'sandbox "{sandbox_id}": not found')
        return self.sandboxes[sandbox_id]

    async def _container(self, container_id: str, context: Context) -> FakeContainer:
        if container_id not in self.containers:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'container "{container_id}": not found')
        return self.containers[container_id]

    async def _running(self, container_id: str, context: Context) -> FakeContainer:
        container = await self._container(container_id, context)
        if container.state != pb.CONTAINER_RUNNING:
            state = pb.ContainerState.Name(container.state)
            await context.abort(grpc.StatusCode.UNKNOWN, f"container is in {state} state")
        return container


def _stats(container: FakeContainer) -> pb.ContainerStats:
    return pb.ContainerStats(
        attributes=pb.ContainerAttributes(id=container.id, metadata=container.config.metadata),
        memory=pb.MemoryUsage(usage_bytes=pb.UInt64Value(value=container.memory_used)),
        writable_layer=pb.FilesystemUsage(used_bytes=pb.UInt64Value(value=container.written)),
    )


def _selected(selector: Any, labels: Any) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


@asynccontextmanager
async def serving(runtime: FakeRuntime) -> AsyncIterator[str]:
    """Serve it on a socket of its own; gives the endpoint. At the end every open call is cut."""
    with tempfile.TemporaryDirectory(prefix="cri-") as folder:
        endpoint = f"unix://{folder}/cri.sock"
        server = await serve_at(runtime, endpoint)
        try:
            yield endpoint
        finally:
            await server.stop(None)


async def serve_at(runtime: FakeRuntime, endpoint: str) -> grpc.aio.Server:
    """Serve it at a chosen endpoint, for tests that stop and start the runtime. The caller stops the server."""
    server = grpc.aio.server()
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(runtime, server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(runtime, server)
    event_service_pb2_grpc.add_EventsServicer_to_server(runtime, server)
    server.add_insecure_port(endpoint)
    await server.start()
    return server


def _nothing() -> None:
    pass
