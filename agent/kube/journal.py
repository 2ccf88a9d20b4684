"""The backlog of events on disk: what happened while cut off is told after the return, also by a later agent.

In: the backlog and which of it changed. Out: rows below `journal/`, written together a moment later and removed once
told. While the API server answers nothing is written: an event is told within moments, and is worth no disk.
"""

from __future__ import annotations

import msgspec
from loguru import logger

from agent.errors import Retryable
from agent.kube.backlog import Backlog
from agent.kube.correlate import Event
from agent.store.base import BATCH_LIMIT, Delete, Put, Store

PREFIX = "journal/"
GATHER_S = 0.5


class Journal:
    def __init__(self, store: Store, backlog: Backlog) -> None:
        self._store = store
        self._backlog = backlog

    async def load(self) -> None:
        """Into the backlog, ahead of what is in it. Raises Retryable."""
        recorded: dict[int, Event] = {}
        for row in await self._store.list(PREFIX):
            try:
                recorded[int(row.key.removeprefix(PREFIX))] = msgspec.json.decode(row.value, type=Event)
            except (msgspec.DecodeError, ValueError) as error:
                logger.warning("record row {} is no event and is left alone: {}", row.key, error)
        self._backlog.recall(recorded)
        self._backlog.recorded = set(recorded)
        self._backlog.changed -= self._backlog.recorded

    async def write(self, *, new: bool) -> None:
        """Bring the rows up to date; without `new` only those that exist. A record that refuses is tried again."""
        changed, self._backlog.changed = self._backlog.changed, set()
        written = self._backlog.recorded
        writes: list[Put | Delete] = []
        for number in sorted(changed):
            event = self._backlog.get(number)
            if event is not None and (new or number in written):
                writes.append(Put(_row(number), msgspec.json.encode(event)))
            elif event is not None:
                self._backlog.changed.add(number)
            elif number in written:
                writes.append(Delete(_row(number)))
        try:
            for start in range(0, len(writes), BATCH_LIMIT):
                await self._store.batch(writes[start : start + BATCH_LIMIT])
        except Retryable as error:
            self._backlog.changed |= changed
            logger.error("events are not recorded yet: {}", error)
            return
        for write in writes:
            number = int(write.key.removeprefix(PREFIX))
            written.add(number) if isinstance(write, Put) else written.discard(number)


def _row(number: int) -> str:
    return f"{PREFIX}{number:012d}"
