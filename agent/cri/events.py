"""The ends of containers, as they happen: one stream of small frozen events, whichever source the runtime has.

The source is found by asking: CRI's GetContainerEvents (containerd 1.7 and later), else containerd's own event service
on the same socket (1.6), else Permanent "Unimplemented", and the caller must relist every second. An event is a hint to
look at the pod. When a stopped or deleted event comes out, the runtime's own answers show it already, or the event says
that they don't yet. The stream never reconnects: it ends with Retryable, and the caller subscribes and lists anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import grpc.aio
import msgspec
from loguru import logger
from msgspec.structs import replace

from agent.cri._generated import api_pb2 as pb
from agent.cri._generated import event_service_pb2, event_types_pb2
from agent.cri._generated.api_pb2_grpc import RuntimeServiceStub
from agent.cri._generated.event_service_pb2_grpc import EventsStub
from agent.cri.channel import RuntimeChannel, raise_if_closed
from agent.cri.faults import UNIMPLEMENTED, fault
from agent.cri.runtime import RuntimeClient
from agent.errors import NotFound, Permanent, Retryable

Request = TypeVar("Request")
Message = TypeVar("Message")


class Kind(StrEnum):
    """What is created and started is no news to who asked for it: of seven events of a pod four, which are not read."""

    STOPPED = "stopped"
    DELETED = "deleted"


class Source(StrEnum):
    """In the order in which they are tried."""

    CRI = "CRI GetContainerEvents"
    CONTAINERD = "containerd's event service"


class RuntimeEvent(msgspec.Struct, frozen=True):
    """`container_id` is the sandbox's own id where the event tells of a sandbox."""

    kind: Kind
    container_id: str
    sandbox_id: str | None
    """None where the source does not say: containerd's event service never does, CRI not once the sandbox is gone."""
    pod_uid: str | None
    at_ns: int
    """Unix nanoseconds of the runtime's clock."""
    shown: bool = True
    """False: the runtime is so busy that its answers do not tell of it yet; no other event will say when they do."""


class Known(Protocol):
    """What the reader of the events knows of the runtime's sandboxes and containers."""

    def is_ending(self, object_id: str) -> bool:
        """The reader is having it stopped or removed: no end of it is news, for the answer tells it."""

    def is_sandbox(self, object_id: str) -> bool | None:
        """None where the reader never saw it."""


Subscribed = Callable[[Source], None]
"""Called when a subscription holds: what a list made from now on does not show, the stream will tell.

Called again in the rare case that a source refuses late and the next one takes over: list again.
"""

_CRI_KINDS: Final = {
    pb.CONTAINER_STOPPED_EVENT: Kind.STOPPED,
    pb.CONTAINER_DELETED_EVENT: Kind.DELETED,
}
_TOPICS: Final = ("/tasks/exit", "/containers/delete")
_CRI_NAMESPACE: Final = "k8s.io"
_ALIVE: Final = (pb.CONTAINER_CREATED, pb.CONTAINER_RUNNING)
_REFUSAL_S: Final = 0.02
_SETTLE_DELAYS_S: Final = (0.005,) * 10 + (0.025,) * 10 + (0.1,) * 7  # containerd 1.6 usually needs 20 to 30 ms


async def runtime_events(
    channel: RuntimeChannel, runtime: RuntimeClient, known: Known, subscribed: Subscribed | None = None
) -> AsyncGenerator[RuntimeEvent, None]:
    """Events from now on. Use `contextlib.aclosing`, and keep reading: a slow reader holds the runtime itself up.

    Raises Retryable when the stream breaks or ends, Permanent "Unimplemented" where the runtime has no event source.
    """
    for source in Source:

        def live(source: Source = source) -> None:
            logger.bind(endpoint=channel.endpoint).info("Runtime events come from {}", source)
            if subscribed is not None:
                subscribed(source)

        try:
            async with aclosing(_open(source, channel, runtime, known, live)) as events:
                async for event in events:
                    yield event
        except Permanent as refusal:
            if refusal.reason != UNIMPLEMENTED:
                raise
        else:
            raise Retryable(f"the runtime at {channel.endpoint} ended the stream of events")
    raise Permanent(UNIMPLEMENTED, f"the runtime at {channel.endpoint} serves no container events")


def _open(
    source: Source, channel: RuntimeChannel, runtime: RuntimeClient, known: Known, live: Callable[[], None]
) -> AsyncGenerator[RuntimeEvent, None]:
    match source:
        case Source.CRI:
            events = RuntimeServiceStub(channel.grpc).GetContainerEvents(pb.GetEventsRequest())
            return _read(source, events, from_cri, channel, runtime, known, live)
        case Source.CONTAINERD:
            filters = [f'namespace=={_CRI_NAMESPACE},topic=="{topic}"' for topic in _TOPICS]
            envelopes = EventsStub(channel.grpc).Subscribe(event_service_pb2.SubscribeRequest(filters=filters))
            return _read(source, envelopes, from_containerd, channel, runtime, known, live)


async def _read(
    source: Source,
    call: grpc.aio.UnaryStreamCall[Request, Message],
    translate: Callable[[Message], RuntimeEvent | None],
    channel: RuntimeChannel,
    runtime: RuntimeClient,
    known: Known,
    live: Callable[[], None],
) -> AsyncGenerator[RuntimeEvent, None]:
    try:
        if await _holds(call, runtime):
            live()
        async for message in call:
            event = translate(message)
            if event is None or known.is_ending(event.container_id):
                continue
            if source is Source.CONTAINERD:
                event = replace(event, shown=await _is_shown_soon(runtime, event, known))
            yield event
    except grpc.aio.AioRpcError as error:
        raise fault(source, channel.endpoint, error) from error
    except asyncio.CancelledError:
        raise_if_closed(source, channel.endpoint)
        raise
    finally:
        call.cancel()


async def _holds(call: grpc.aio.UnaryStreamCall[Request, Message], runtime: RuntimeClient) -> bool:
    """Neither source answers before its first event: wait a round trip of another call, and a moment for a refusal."""
    refused = asyncio.Event()
    call.add_done_callback(lambda _: refused.set())
    await runtime.ping()
    try:
        async with asyncio.timeout(_REFUSAL_S):
            await refused.wait()
    except TimeoutError:
        return True
    return False


def from_cri(message: pb.ContainerEventResponse) -> RuntimeEvent | None:
    """CRI's event as ours; None for what is no end."""
    kind = _CRI_KINDS.get(message.container_event_type)
    if kind is None:
        return None
    sandbox = message.pod_sandbox_status
    uid = sandbox.metadata.uid or None
    return RuntimeEvent(kind, message.container_id, sandbox.id or None, uid, message.created_at)


def from_containerd(envelope: event_service_pb2.Envelope) -> RuntimeEvent | None:
    """containerd's event as ours; None for what does not tell the end of a container of CRI's."""
    if envelope.namespace != _CRI_NAMESPACE:
        return None
    body = envelope.event.value
    match envelope.topic:
        case "/tasks/exit":
            task = event_types_pb2.TaskExit.FromString(body)
            if task.id not in ("", task.container_id):
                return None  # a command that was run in the container ended, not the container
            kind, container_id = Kind.STOPPED, task.container_id
        case "/containers/delete":
            kind, container_id = Kind.DELETED, event_types_pb2.ContainerDelete.FromString(body).id
        case _:
            return None
    at = envelope.timestamp
    return RuntimeEvent(kind, container_id, None, None, at.seconds * 1_000_000_000 + at.nanos)


async def _is_shown_soon(runtime: RuntimeClient, event: RuntimeEvent, known: Known) -> bool:
    """Wait until CRI shows what containerd told: its CRI plugin hears of it at the same time as we, and acts after.

    A reader sent too early would see a running container. Waiting holds later events up, but they settle in the same
    milliseconds. A second is enough for all but a machine that starts everything at once.
    """
    for delay in _SETTLE_DELAYS_S:
        try:
            if await _is_shown(runtime, event, known):
                return True
        except (NotFound, Permanent):
            return True
        await asyncio.sleep(delay)
    return False


async def _is_shown(runtime: RuntimeClient, event: RuntimeEvent, known: Known) -> bool:
    """Asks for the status of what is surely there. Else it lists, though that is dear where there are many pods:

    containerd writes an error into its log whenever the status of what is not there is asked. Raises NotFound.
    """
    stopped, object_id = event.kind is Kind.STOPPED, event.container_id
    match known.is_sandbox(object_id) if stopped else None:
        case True:
            return (await runtime.pod_sandbox_status(object_id)).status.state != pb.SANDBOX_READY
        case False:
            return (await runtime.container_status(object_id)).status.state not in _ALIVE
    for container in await runtime.list_containers(pb.ContainerFilter(id=object_id)):
        # One that ended before its start was noted is still as it was created.
        return stopped and container.state not in _ALIVE
    for sandbox in await runtime.list_pod_sandbox(pb.PodSandboxFilter(id=object_id)):
        return stopped and sandbox.state != pb.SANDBOX_READY
    return True
