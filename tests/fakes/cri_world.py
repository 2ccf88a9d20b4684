"""The state of a runtime in memory, what a test does to it from outside, and the events that tell of it.

`tests.fakes.cri` puts it behind a real socket. Time is the clock's. Nothing runs: a container is running because it was
started, and ends when the test or a call says so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from agent.clock import Clock, SystemClock
from agent.cri._generated import api_pb2 as pb
from agent.cri._generated import event_service_pb2, event_types_pb2
from agent.cri.events import Source
from tests.fakes.waiting import eventually

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
    memory_used: int = 0
    written: int = 0
    ended: Callable[[], None] = lambda: None
    """Called at its end: whoever stops it waits no longer."""


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


class FakeWorld:
    """`event_source` says which of the two event services the runtime has, None for none at all."""

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
        self.config = "{}"
        """Its settings, as its verbose status tells them."""
        self.version = "1.0"
        self._failures: dict[str, _Failure] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._names: dict[str, str] = {}
        self._ids = 0
        self._subscribers: set[asyncio.Queue[Any]] = set()

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
        """Return once `holds()`."""
        await eventually(holds)

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
        container.ended()

    def tell_exit(self, container_id: str) -> None:
        """The half of `exit` that tells the event; also of a sandbox, or of what is gone."""
        held = self.containers.get(container_id)
        self._tell(pb.CONTAINER_STOPPED_EVENT, container_id, held.sandbox_id if held else container_id)

    def tell_start(self, container_id: str) -> None:
        """Tell that it started, once more or late."""
        self._tell(pb.CONTAINER_STARTED_EVENT, container_id, self.containers[container_id].sandbox_id)

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

    # What the calls do to it

    def _now(self) -> int:
        return int(self.clock.wall() * 1_000_000_000)

    def _release(self, holder: str) -> None:
        self._names = {name: by for name, by in self._names.items() if by != holder}

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
                        pod_sandbox_status=sandbox_status(sandbox) if sandbox is not None else None,
                    )
                )
            case Source.CONTAINERD:
                match kind:
                    case pb.CONTAINER_STOPPED_EVENT:
                        exited = event_types_pb2.TaskExit(container_id=container_id, id=container_id)
                        self._publish(self._envelope("/tasks/exit", "containerd.events.TaskExit", exited))
                    case pb.CONTAINER_DELETED_EVENT:
                        deleted = event_types_pb2.ContainerDelete(id=container_id)
                        self._publish(
                            self._envelope("/containers/delete", "containerd.events.ContainerDelete", deleted)
                        )
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
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._subscribers.discard(queue)


def sandbox_state(sandbox: FakeSandbox) -> pb.PodSandboxState:
    return pb.SANDBOX_READY if sandbox.ready else pb.SANDBOX_NOTREADY


def sandbox_status(sandbox: FakeSandbox) -> pb.PodSandboxStatus:
    return pb.PodSandboxStatus(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.created_at,
        network=pb.PodSandboxNetworkStatus(ip=sandbox.ip),
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )
