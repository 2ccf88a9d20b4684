"""A container runtime that lives in memory and speaks CRI on a real unix socket.

Sandboxes and containers behave as containerd's: names are reserved, a stopped container keeps its exit code, removing a
sandbox removes what is in it, events are told. A test drives it from outside (`exit`, `lose_sandbox`, `fail`, `hold`)
and reads what it was asked (`calls`). Time is the clock's. Nothing runs: a container is running because it was started.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from agent.clock import Clock, SystemClock
from agent.cri._generated import api_pb2 as pb
from agent.cri._generated import api_pb2_grpc, event_service_pb2, event_service_pb2_grpc, event_types_pb2
from agent.cri.events import Source

Context = grpc.aio.ServicerContext[Any, Any]

SIGKILLED = 137


@dataclass(slots=True)
class FakeSandbox:
    id: str
    config: pb.PodSandboxConfig
    created_at: int
    ip: str
    runtime_handler: str = ""
    ready: bool = True


@dataclass(slots=True)
class FakeContainer:
    id: str
    sandbox_id: str
    config: pb.ContainerConfig
    image_ref: str
    created_at: int
    state: pb.ContainerState = pb.CONTAINER_CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: pb.LinuxContainerResources | None = None


@dataclass(slots=True)
class _Failure:
    code: grpc.StatusCode
    details: str
    times: int


@dataclass(slots=True)
class Behaviour:
    """How the containers of one name behave. Set it before they are started or stopped."""

    obeys_stop: bool = True
    """False: it ignores the stop signal and is killed at the end of the grace."""
    stop_exit_code: int = 0
    exec_results: deque[pb.ExecSyncResponse] = field(default_factory=deque)
    """Answers of ExecSync, in order; none left: an empty success."""


class FakeRuntime(
    api_pb2_grpc.RuntimeServiceServicer, api_pb2_grpc.ImageServiceServicer, event_service_pb2_grpc.EventsServicer
):
    """The runtime. `event_source` says which of the two event services it has, None for none at all."""

    def __init__(self, clock: Clock | None = None, event_source: Source | None = Source.CRI) -> None:
        self.clock: Clock = clock or SystemClock()
        self.event_source = event_source
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.containers: dict[str, FakeContainer] = {}
        self.images: dict[str, pb.Image] = {}
        self.registry: set[str] | None = None
        """Images that can be pulled; None: every image."""
        self.conditions: dict[str, bool] = {"RuntimeReady": True, "NetworkReady": True}
        self.behaviours: defaultdict[str, Behaviour] = defaultdict(Behaviour)
        self.calls: list[tuple[str, Any]] = []
        """Every call that came in, with its request."""
        self.unserved: set[str] = set()
        """Calls that answer UNIMPLEMENTED."""
        self.name = "fake"
        self._failures: dict[str, _Failure] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._names: dict[str, str] = {}
        self._ids = 0
        self._subscribers: set[asyncio.Queue[Any]] = set()
        self._changed = asyncio.Event()

    # What a test does to it

    def fail(self, method: str, code: grpc.StatusCode, details: str = "as the test wishes", times: int = 1) -> None:
        """Let the next `times` calls of `method` fail, before they do anything."""
        self._failures[method] = _Failure(code, details, times)

    def hold(self, method: str) -> asyncio.Event:
        """Calls of `method` wait until the returned event is set."""
        return self._gates.setdefault(method, asyncio.Event())

    def called(self, method: str) -> list[Any]:
        """The requests of every call of `method`."""
        return [request for name, request in self.calls if name == method]

    async def reached(self, method: str, count: int = 1) -> None:
        """Return once `method` was called that often."""
        await self.until(lambda: len(self.called(method)) >= count)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`; looked at whenever a call comes in or a stream begins or ends."""
        async with asyncio.timeout(10):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def add_image(self, name: str) -> pb.Image:
        """The node has the image, as if pulled. Its id is made of its name."""
        user = pb.Int64Value(value=0)
        image = pb.Image(
            id=f"sha256:{name}", repo_tags=[name], repo_digests=[f"{name}@sha256:{name}"], size=1, uid=user
        )
        self.images[name] = image
        return image

    def container(self, name: str) -> FakeContainer:
        """The newest container of that name."""
        return [c for c in self.containers.values() if c.config.metadata.name == name][-1]

    def exit(self, container_id: str, exit_code: int = 0, reason: str = "", *, message: str = "") -> None:
        """The container's process ends by itself."""
        self.record_exit(container_id, exit_code, reason, message=message)
        self.tell_exit(container_id)

    def record_exit(self, container_id: str, exit_code: int = 0, reason: str = "", *, message: str = "") -> None:
        """The half of `exit` that changes what CRI answers."""
        container = self.containers[container_id]
        container.state = pb.CONTAINER_EXITED
        container.finished_at = self._now()
        container.exit_code = exit_code
        container.reason = reason or ("Completed" if exit_code == 0 else "Error")
        container.message = message

    def tell_exit(self, container_id: str) -> None:
        """The half of `exit` that tells the event."""
        self._tell(pb.CONTAINER_STOPPED_EVENT, container_id, self.containers[container_id].sandbox_id)

    def tell_exec_exit(self, container_id: str) -> None:
        """A command that ran in the container ended. CRI says nothing of it, containerd's own service does."""
        if self.event_source is Source.CONTAINERD:
            body = event_types_pb2.TaskExit(container_id=container_id, id="an-exec")
            self._publish(self._envelope("/tasks/exit", "containerd.events.TaskExit", body))

    def lose_sandbox(self, sandbox_id: str) -> None:
        """The sandbox's own process dies, and with it every container: what a reboot leaves."""
        for container in self._in_sandbox(sandbox_id):
            if container.state == pb.CONTAINER_RUNNING:
                self.exit(container.id, 255, "Unknown")
        self.sandboxes[sandbox_id].ready = False
        self._tell(pb.CONTAINER_STOPPED_EVENT, sandbox_id, sandbox_id)

    def break_streams(self) -> None:
        """End every event stream, as a stopping runtime does."""
        self._publish(None)

    @property
    def subscriptions(self) -> int:
        """How many read the events now."""
        return len(self._subscribers)

    # RuntimeService

    async def Version(self, request: pb.VersionRequest, context: Context) -> pb.VersionResponse:
        await self._enter("Version", request, context)
        return pb.VersionResponse(
            version="0.1.0", runtime_name=self.name, runtime_version="1.0", runtime_api_version="v1"
        )

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        await self._enter("Status", request, context)
        conditions = [
            pb.RuntimeCondition(type=kind, status=good, reason="" if good else f"{kind}Lost")
            for kind, good in self.conditions.items()
        ]
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions))

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
        return pb.PodSandboxStatusResponse(status=_sandbox_status(sandbox))

    async def ListPodSandbox(self, request: pb.ListPodSandboxRequest, context: Context) -> pb.ListPodSandboxResponse:
        await self._enter("ListPodSandbox", request, context)
        wanted = request.filter
        items = []
        for sandbox in self.sandboxes.values():
            state = _sandbox_state(sandbox)
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
                    await self.clock.sleep(request.timeout)
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
        self._changed.set()
        if method in self.unserved:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
        failure = self._failures.get(method)
        if failure is not None and failure.times > 0:
            failure.times -= 1
            await context.abort(failure.code, failure.details)
        gate = self._gates.get(method)
        if gate is not None:
            await gate.wait()

    def _now(self) -> int:
        return int(self.clock.wall() * 1_000_000_000)

    async def _reserve(self, kind: str, name: str, context: Context) -> str:
        if name in self._names:
            holder = self._names[name]
            details = f'failed to reserve {kind} name "{name}": name "{name}" is reserved for "{holder}"'
            await context.abort(grpc.StatusCode.UNKNOWN, details)
        self._ids += 1
        self._names[name] = f"{kind}{self._ids}"
        return self._names[name]

    def _release(self, holder: str) -> None:
        self._names = {name: by for name, by in self._names.items() if by != holder}

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

    def _image(self, name: str) -> pb.Image | None:
        return next((i for i in self.images.values() if name == i.id or name in [*i.repo_tags, *i.repo_digests]), None)

    def _in_sandbox(self, sandbox_id: str) -> list[FakeContainer]:
        return [c for c in self.containers.values() if c.sandbox_id == sandbox_id]

    def _stop_sandbox(self, sandbox: FakeSandbox) -> None:
        for container in self._in_sandbox(sandbox.id):
            if container.state == pb.CONTAINER_RUNNING:
                self.exit(container.id, SIGKILLED)
        if sandbox.ready:
            sandbox.ready = False
            self._tell(pb.CONTAINER_STOPPED_EVENT, sandbox.id, sandbox.id)

    def _remove(self, container: FakeContainer) -> None:
        if container.state == pb.CONTAINER_RUNNING:
            self.exit(container.id, SIGKILLED)
        del self.containers[container.id]
        self._release(container.id)
        self._tell(pb.CONTAINER_DELETED_EVENT, container.id, container.sandbox_id)

    def _container_status(self, container: FakeContainer) -> pb.ContainerStatus:
        resources = container.resources or container.config.linux.resources
        return pb.ContainerStatus(
            id=container.id,
            metadata=container.config.metadata,
            state=container.state,
            created_at=container.created_at,
            started_at=container.started_at,
            finished_at=container.finished_at,
            exit_code=container.exit_code,
            image=container.config.image,
            image_ref=container.image_ref,
            reason=container.reason,
            message=container.message,
            labels=container.config.labels,
            annotations=container.config.annotations,
            mounts=container.config.mounts,
            log_path=container.config.log_path,
            resources=pb.ContainerResources(linux=resources),
        )

    # Events

    def _tell(self, kind: pb.ContainerEventType, container_id: str, sandbox_id: str) -> None:
        match self.event_source:
            case Source.CRI:
                sandbox = self.sandboxes.get(sandbox_id)
                self._publish(
                    pb.ContainerEventResponse(
                        container_id=container_id,
                        container_event_type=kind,
                        created_at=self._now(),
                        pod_sandbox_status=_sandbox_status(sandbox) if sandbox is not None else None,
                    )
                )
            case Source.CONTAINERD:
                types = event_types_pb2
                topic, name, body = {
                    pb.CONTAINER_CREATED_EVENT: (
                        "/containers/create",
                        "ContainerCreate",
                        types.ContainerCreate(id=container_id),
                    ),
                    pb.CONTAINER_STARTED_EVENT: (
                        "/tasks/start",
                        "TaskStart",
                        types.TaskStart(container_id=container_id),
                    ),
                    pb.CONTAINER_STOPPED_EVENT: (
                        "/tasks/exit",
                        "TaskExit",
                        types.TaskExit(container_id=container_id, id=container_id),
                    ),
                    pb.CONTAINER_DELETED_EVENT: (
                        "/containers/delete",
                        "ContainerDelete",
                        types.ContainerDelete(id=container_id),
                    ),
                }[kind]
                self._publish(self._envelope(topic, f"containerd.events.{name}", body))
            case None:
                pass

    def _envelope(self, topic: str, type_url: str, body: Any) -> event_service_pb2.Envelope:
        seconds, nanos = divmod(self._now(), 1_000_000_000)
        return event_service_pb2.Envelope(
            timestamp=Timestamp(seconds=seconds, nanos=nanos),
            namespace="k8s.io",
            topic=topic,
            event=AnyMessage(type_url=type_url, value=body.SerializeToString()),
        )

    def _publish(self, message: Any) -> None:
        for queue in self._subscribers:
            queue.put_nowait(message)

    async def _stream(self) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._subscribers.add(queue)
        self._changed.set()
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._subscribers.discard(queue)
            self._changed.set()


def _selected(selector: Any, labels: Any) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _sandbox_state(sandbox: FakeSandbox) -> pb.PodSandboxState:
    return pb.SANDBOX_READY if sandbox.ready else pb.SANDBOX_NOTREADY


def _sandbox_status(sandbox: FakeSandbox) -> pb.PodSandboxStatus:
    return pb.PodSandboxStatus(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=_sandbox_state(sandbox),
        created_at=sandbox.created_at,
        network=pb.PodSandboxNetworkStatus(ip=sandbox.ip),
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )


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
