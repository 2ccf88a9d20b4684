"""Ship the logs of pods: one look a second at what was written, one task a sink that sends it.

In: pods with their sinks, and files that are about to go (`Spool`). Out: batches to the sinks, cursors in the record,
events about lines that were lost and sinks that refuse. While a sink is away its lines stay on disk and nothing of them
is in memory. With no pod to follow it does nothing at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec
from loguru import logger

from agent import own_metrics
from agent.errors import Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.pods.log_shipping import PREFIX
from agent.pods.log_shipping.sinks import TOO_LARGE, Carrier, carrier
from agent.pods.log_shipping.spool import BATCH_BYTES, Batch, Loss, Move, PodRow, Spool
from agent.pods.ports import Events
from agent.policies.log_sink import LogSink
from agent.store.base import BATCH_LIMIT, Delete, Put, Store
from agent.store.rows import read_rows

LOOK_S = 1.0
RECORD_S = 5.0
"""Between two writes of cursors: a crash sends again what went since the last."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
REFUSED_PAUSE_S = 60.0
"""A sink that refuses will not take it a moment later either: somebody has to change something."""
LONGEST_WISH_S = 600.0
"""No Retry-After is followed for longer."""
AWAY_S = 60.0
"""A sink that is away for so long is said on the Node."""


class Shipper:
    """Load it with `load` before pods are followed; `run` as long as the agent lives."""

    def __init__(self, spool: Spool, store: Store, events: Events, node_name: str, limit_bytes: int) -> None:
        self.spool = spool
        self._store = store
        self._events = events
        self._node = ObjectReference(kind="Node", name=node_name, uid=node_name)
        self._limit = limit_bytes
        self._more = asyncio.Event()
        self._sinks: dict[LogSink, tuple[_Channel, asyncio.Task[None]]] = {}

    async def load(self) -> None:
        """What the record has of an earlier agent's work. Raises Retryable."""
        rows = await read_rows(self._store, PREFIX, PodRow, "cursor of logs")
        try:
            await asyncio.to_thread(self.spool.load, rows)
        except OSError as error:
            raise Retryable(f"cannot read the spool of logs: {error}") from error
        self._more.set()

    def wake(self) -> None:
        """There is a pod to follow."""
        self._more.set()

    async def run(self) -> None:
        own_metrics.LOG_SPOOL_BYTES.read = lambda: {(): self.spool.held_bytes}
        try:
            async with asyncio.TaskGroup() as tasks:
                recorded_at = time.monotonic()
                while True:
                    self._more.clear()
                    if self.spool.is_idle:
                        await self._record()
                        await self._end_unused()
                        await self._more.wait()
                    try:
                        looked = await asyncio.to_thread(self.spool.look)
                    except OSError as error:
                        logger.error("logs that are to be sent can't be looked at: {}", error)
                        await asyncio.sleep(RECORD_S)
                        continue
                    for loss in looked.lost:
                        self._say_lost(loss, f"the spool has more than {self._limit} bytes")
                    self._set_going(looked.waiting, tasks)
                    if self.spool.has_new or time.monotonic() - recorded_at >= RECORD_S:
                        await self._record()
                        await self._end_unused()
                        recorded_at = time.monotonic()
                    await asyncio.sleep(LOOK_S)
        finally:
            await asyncio.shield(self._record())

    def _set_going(self, sinks: Iterable[LogSink], tasks: asyncio.TaskGroup) -> None:
        for sink in sinks:
            if sink not in self._sinks:
                channel = _Channel(sink, self.spool, self._say_trouble, self._say_lost)
                self._sinks[sink] = channel, tasks.create_task(channel.run(), name=f"logs to {sink.shown}")
            self._sinks[sink][0].news.set()

    async def _end_unused(self) -> None:
        """Sinks that no pod names any more."""
        for sink, (_, task) in list(self._sinks.items()):
            if not self.spool.pods_of(sink):
                del self._sinks[sink]
                task.cancel()
                await asyncio.wait({task})

    async def _record(self) -> None:
        rows = self.spool.changed_rows()
        changes: list[Put | Delete] = [
            Delete(PREFIX + uid) if row is None else Put(PREFIX + uid, msgspec.json.encode(row))
            for uid, row in rows.items()
        ]
        try:
            for start in range(0, len(changes), BATCH_LIMIT):
                await self._store.batch(changes[start : start + BATCH_LIMIT])
        except Retryable as error:
            logger.error("how far logs were sent is not recorded yet: {}", error)
            return
        self.spool.recorded(rows)

    def _say_lost(self, loss: Loss, why: str) -> None:
        own_metrics.LOG_LINES_LOST.inc(by=loss.lines)
        about = ObjectReference(kind="Pod", apiVersion="v1", namespace=loss.namespace, name=loss.pod, uid=loss.uid)
        message = f'{loss.lines} lines of container "{loss.container}" were dropped before they were sent: {why}'
        self._events.record(about, "Warning", "LogsLost", message)
        logger.warning("logs of {}/{}: {}", loss.namespace, loss.pod, message)

    def _say_trouble(self, sink: LogSink, why: str, *, refused: bool) -> None:
        message = f"logs are not taken by {sink.shown}: {why}; they are kept and sent again"
        logger.warning("{}", message)
        if not refused:
            self._events.record(self._node, "Warning", "LogSinkAway", message)
            return
        for uid, namespace, name in self.spool.pods_of(sink):
            about = ObjectReference(kind="Pod", apiVersion="v1", namespace=namespace, name=name, uid=uid)
            self._events.record(about, "Warning", "LogsRefused", message)


class _Channel:
    """One sink's task: take a batch, send it, go on; while it is away wait, and hold nothing."""

    def __init__(
        self, sink: LogSink, spool: Spool, say: Callable[..., None], say_lost: Callable[[Loss, str], None]
    ) -> None:
        self.news = asyncio.Event()
        self._sink = sink
        self._spool = spool
        self._say = say
        self._say_lost = say_lost
        self._limit = BATCH_BYTES
        self._carrier: Carrier = carrier(sink)
        self._unsure: deque[tuple[float, tuple[Move, ...]]] = deque()
        """What was sent, and when (monotonic), of which the sink may have nothing yet; oldest first."""
        self._pause_s = FIRST_PAUSE_S
        self._away_since: float | None = None
        self._said = False

    async def run(self) -> None:
        try:
            while True:
                await self._wait()
                if not await self._settle():
                    continue
                while batch := await self._next():
                    await self._send(batch)
                    if not await self._settle():
                        break
        finally:
            await self._carrier.close()

    async def _wait(self) -> None:
        """For news, or until something that was sent may count as taken."""
        due = self._unsure[0][0] + self._carrier.uncertain_s - time.monotonic() if self._unsure else None
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due)):
                await self.news.wait()
        self.news.clear()

    async def _settle(self) -> bool:
        """Whether what was sent is on its way to be taken; if not, it is sent again."""
        if self._unsure and not self._carrier.is_well():
            self._unsure.clear()
            await asyncio.to_thread(self._spool.back, self._sink)
            self.news.set()
            return False
        now = time.monotonic()
        certain: list[Move] = []
        while self._unsure and self._unsure[0][0] + self._carrier.uncertain_s <= now:
            certain += self._unsure.popleft()[1]
        if certain:
            await asyncio.to_thread(self._spool.confirm, certain)
        return True

    async def _next(self) -> Batch | None:
        return await asyncio.to_thread(self._spool.batch, self._sink, self._carrier.encode, self._limit)

    async def _send(self, batch: Batch) -> None:
        try:
            if batch.messages:
                await self._carrier.send(batch.messages)
        except (Retryable, Permanent) as error:
            self._unsure.clear()
            await asyncio.to_thread(self._spool.back, self._sink)
            if isinstance(error, Permanent) and error.reason == TOO_LARGE:
                await self._take_less(batch)
                return
            del batch
            await asyncio.sleep(self._pause(error))
            return
        await asyncio.to_thread(self._spool.sent, batch.moves)
        self._unsure.append((time.monotonic(), batch.moves))
        own_metrics.LOG_LINES_SENT.inc(self._sink.kind, by=len(batch.messages))
        if self._away_since is not None:
            logger.info("logs are taken by {} again", self._sink.shown)
        self._away_since, self._said, self._pause_s = None, False, FIRST_PAUSE_S
        self._limit = min(self._limit * 2, BATCH_BYTES)

    async def _take_less(self, refused: Batch) -> None:
        """Half as much at the next try. A line that is refused alone stands in the way of all others: it goes."""
        if len(refused.messages) > 1:
            self._limit = max(1, min(self._limit, sum(map(len, refused.messages))) // 2)
            return
        for loss in await asyncio.to_thread(self._spool.skip, refused.moves):
            self._say_lost(loss, f"{self._sink.shown} takes no line of that length")

    def _pause(self, error: Retryable | Permanent) -> float:
        """Seconds until the next try. Says what has to be said, once."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            logger.warning("logs are not taken by {}: {}", self._sink.shown, error)
        refused = isinstance(error, Permanent)
        if not self._said and (refused or now - self._away_since >= AWAY_S):
            self._said = True
            self._say(self._sink, str(error), refused=refused)
        pause = self._pause_s * random.uniform(0.75, 1.0)  # noqa: S311
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        if refused:
            return REFUSED_PAUSE_S
        wish = error.after if isinstance(error, Retryable) else None
        return pause if wish is None else max(pause, min(wish, LONGEST_WISH_S))
