"""Events, as a kubelet posts them: queued at once, correlated, told to the API server when it listens.

In: what happened to which object. Out: v1 Events by POST, and by PATCH of the count for what happened before. Nothing
waits for this and nothing fails by it: while the API server is away they wait in a bounded backlog, which is in the
record too, and are told after its return in their order, with their own times and not all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from loguru import logger

from agent.clock import Clock, sleep_unless
from agent.errors import Conflict, NotFound, Permanent, Retryable
from agent.kube.backlog import Backlog
from agent.kube.correlate import Correlator, Event
from agent.kube.journal import GATHER_S, Journal
from agent.kube.rest import METADATA, Api
from agent.model.objects import ObjectReference
from agent.model.status import timestamp
from agent.rush import Rush
from agent.store.base import Store

COMPONENT = "kubelet"
"""Users and the upstream tests filter by it."""
REPLAY_BURST = 50
REPLAY_EVERY_S = 0.05
"""Between two events of a backlog longer than the burst."""
RETRY_INITIAL_S = 0.5
RETRY_MAXIMUM_S = 30.0


class EventRecorder:
    """Fits `agent.pods.ports.Events`. One owner runs `run`; `record` works before that too."""

    def __init__(
        self, api: Api, node_name: str, clock: Clock, store: Store | None = None, rush: Rush | None = None
    ) -> None:
        """Without a store what waits is lost with the process. While the rush lasts only warnings are told."""
        self._api = api
        self._node = node_name
        self._clock = clock
        self._rush = rush or Rush(clock.monotonic)
        self._urgent = asyncio.Event()
        """Set while the backlog has a warning, and at the end."""
        self._draining = False
        self._correlator = Correlator()
        self._backlog = Backlog(ObjectReference(kind="Node", name=node_name, uid=node_name))
        self._journal = Journal(store, self._backlog) if store is not None else None
        self._news = asyncio.Event()
        self._to_record = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_name = 0

    @property
    def backlog(self) -> tuple[Event, ...]:
        """Not told yet, in the order in which they will be."""
        return tuple(self._backlog)

    def record(
        self,
        about: ObjectReference,
        kind: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str] | None = None,
        at: float | None = None,
    ) -> None:
        """Queue an event (`kind` Normal or Warning). Never blocks, never raises.

        `at` (Unix seconds) is when it happened, where that was before now: it is told in its place among what waits.
        """
        _log(about, kind, reason, message)
        wall = self._clock.wall() if at is None else at
        event = self._correlator.observe(about, kind, reason, message, wall, self._clock.monotonic())
        if not self._api.reachable:
            self._to_record.set()
        if event is None:
            if not self._api.reachable:
                self._backlog.count_unsaid(about, kind, reason, wall)
                self._idle.clear()
                self._news.set()
            return
        if annotations:
            event.annotations = dict(annotations)
        if event.queued:
            self._backlog.touched(event)
            return
        self._backlog.append(event) if at is None else self._backlog.insert(event)
        if kind == "Warning":
            self._urgent.set()
        self._idle.clear()
        self._news.set()

    def forget(self, uid: str) -> None:
        """The object is gone: nothing of it will happen again. What waits is told."""
        self._correlator.forget(uid)

    @property
    def waiting(self) -> int:
        return len(self._backlog)

    async def run(self) -> None:
        """Post, one after the other, for ever."""
        if self._journal is None:
            await self._tell_all()
            return
        try:
            await self._journal.load()
        except Retryable as error:
            logger.warning("events of before the start are not told: {}", error)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell_all(), name="tell events")
                tasks.create_task(self._keep(self._journal), name="record events")
        finally:
            # What was not told is told by the next agent.
            await asyncio.shield(self._journal.write(new=True))

    async def _keep(self, journal: Journal) -> None:
        while True:
            await self._to_record.wait()
            await self._clock.sleep(GATHER_S)
            self._to_record.clear()
            await journal.write(new=not self._api.reachable)

    async def _tell_all(self) -> None:
        delay = RETRY_INITIAL_S
        told = 0
        while True:
            while len(self._backlog):
                await self._let_starts_go_first()
                number, event = self._backlog.first()
                # Before the request: a try that is repeated, also after a restart, is the same event.
                event.name = event.name or self._new_name(event.about.name)
                count = event.count
                try:
                    await self._tell(event)
                except Retryable as error:
                    self._to_record.set()
                    await self._api.link.pause(max(delay, error.after or 0.0), self._clock.sleep)
                    delay = min(delay * 2, RETRY_MAXIMUM_S)
                    continue
                delay = RETRY_INITIAL_S
                if event.count == count and self._backlog.get(number) is event:
                    self._backlog.done(number)
                    if self._backlog.changed:
                        self._to_record.set()
                told += 1
                if told > REPLAY_BURST:
                    await self._clock.sleep(REPLAY_EVERY_S)
            told = 0
            if not self._draining:
                self._urgent.clear()
            self._idle.set()
            self._news.clear()
            await self._news.wait()

    async def _let_starts_go_first(self) -> None:
        """A request for each step of a start takes the processor from the next one, here and where it is answered."""
        while not self._urgent.is_set() and (hold_s := self._rush.hold_s) > 0:
            await sleep_unless(self._urgent, self._clock.sleep(hold_s))

    async def drain(self) -> None:
        """Return once everything queued is told; the caller sets the deadline, `run` must be running."""
        self._draining = True
        self._urgent.set()
        await self._idle.wait()

    async def _tell(self, event: Event) -> None:
        namespace = event.about.namespace or "default"
        path = f"/api/v1/namespaces/{namespace}/events"
        try:
            if event.posted:
                try:
                    await self._api.patch(f"{path}/{event.name}", self._counted(event), accept=METADATA)
                    return
                except NotFound:
                    # The API server forgets events after an hour: say it anew, with its count.
                    event.posted, event.name = False, ""
            event.name = event.name or self._new_name(event.about.name)
            try:
                await self._api.post(path, self._body(event, namespace), accept=METADATA)
            except Conflict:
                # An earlier POST went through and only its answer was lost.
                logger.debug("event {}/{} exists already", namespace, event.name)
            event.posted = True
        except (NotFound, Permanent) as error:
            # Its namespace is gone or going.
            logger.debug("event {} of {}/{} is refused: {}", event.reason, namespace, event.about.name, error)

    def _new_name(self, about: str) -> str:
        """The object's name and nanoseconds in hexadecimal; never the same twice."""
        self._last_name = max(int(self._clock.wall() * 1e9), self._last_name + 1)
        return f"{about}.{self._last_name:016x}"

    def _counted(self, event: Event) -> bytes:
        return msgspec.json.encode(
            {"count": event.count, "lastTimestamp": timestamp(event.last_at), "message": event.message}
        )

    def _body(self, event: Event, namespace: str) -> bytes:
        return msgspec.json.encode(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": event.name, "namespace": namespace, **_annotations(event)},
                "involvedObject": {"apiVersion": event.about.apiVersion, **msgspec.to_builtins(event.about)},
                "type": event.kind,
                "reason": event.reason,
                "message": event.message,
                "source": {"component": COMPONENT, "host": self._node},
                "reportingComponent": COMPONENT,
                "reportingInstance": self._node,
                "firstTimestamp": timestamp(event.first_at),
                "lastTimestamp": timestamp(event.last_at),
                "count": event.count,
            }
        )


def _annotations(event: Event) -> dict[str, dict[str, str]]:
    return {"annotations": event.annotations} if event.annotations else {}


class LoggedEvents:
    """Standalone: the log is the only reader."""

    def record(
        self,
        about: ObjectReference,
        kind: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str] | None = None,  # noqa: ARG002  they are for tools, which read no log
    ) -> None:
        _log(about, kind, reason, message, level="INFO")


def _log(about: ObjectReference, kind: str, reason: str, message: str, level: str = "DEBUG") -> None:
    name = f"{about.namespace}/{about.name}" if about.namespace else about.name
    logger.bind(**{about.kind.lower(): name}).log("WARNING" if kind == "Warning" else level, "{}: {}", reason, message)
