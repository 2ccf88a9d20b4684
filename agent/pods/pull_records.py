"""Who pulled what, over restarts of the agent.

In: pulls as they begin and end. Out: rows `pulled/IMAGE-ID` and `pulling/IMAGE`; and the answer whether a pod may use
an image that is here. A pull that an agent's end broke off stays in the record: its image may be here, and is not
everybody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec
from loguru import logger

from agent.errors import Retryable
from agent.pods.credentials import Credential, SecretSource
from agent.pods.image_access import Grant, Verification, must_be_shown
from agent.pods.images import parse_image
from agent.store.base import Delete, Put, Store

PULLED = "pulled/"
PULLING = "pulling/"


class _Pulled(msgspec.Struct):
    """By the image's name without tag and digest."""

    names: dict[str, Grant] = {}


class PullRecords:
    def __init__(self, store: Store, policy: Verification = Verification.PULLED, allowed: Sequence[str] = ()) -> None:
        self._store = store
        self._policy = policy
        self._allowed = allowed
        self._pulled: dict[str, _Pulled] = {}
        self._pulling: Counter[str] = Counter()
        self._before: dict[str, str] = {}
        """By an image that is being pulled: the id that its name had here already."""
        self._broken_off: set[str] = set()

    async def load(self, present: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Read what is recorded, and forget the images that are not among `present` any more."""
        for row in await self._store.list(PULLED):
            try:
                self._pulled[row.key.removeprefix(PULLED)] = msgspec.json.decode(row.value, type=_Pulled)
            except msgspec.DecodeError as error:
                # An empty one lets nobody in without asking the registry.
                logger.warning("record row {} can't be read: {}", row.key, error)
                self._pulled[row.key.removeprefix(PULLED)] = _Pulled()
        self._broken_off = {row.key.removeprefix(PULLING) for row in await self._store.list(PULLING)}
        if self._pulled and (gone := self._pulled.keys() - set(await present())):
            for image_id in gone:
                del self._pulled[image_id]
            await self._write([Delete(PULLED + image_id) for image_id in gone])

    async def must_pull(
        self, image: str, image_id: str, sources: Callable[[], Awaitable[Iterable[SecretSource]]]
    ) -> bool:
        """Whether the registry has to decide about an image that is here. `sources`: the pod's secrets that fit it."""
        record = self._pulled.get(image_id)
        arriving = image in self._pulling and self._before.get(image) != image_id
        pulled_here = record is not None or arriving or image in self._broken_off
        if not must_be_shown(self._policy, self._allowed, image, pulled_here=pulled_here):
            return False
        grant = record.names.get(parse_image(image).repository) if record is not None else None
        if grant is None:
            return True
        if grant.everyone:
            return False
        source = grant.lets_in(await sources())
        if source is None:
            return True
        await self._grant(image, image_id, source)
        return False

    @asynccontextmanager
    async def pulling(self, image: str, present_id: str = "") -> AsyncIterator[None]:
        """Around a pull: its image is not everybody's though nobody knows yet whose it is.

        What was here before the first of several (`present_id`) is no more and no less somebody's than it was.
        """
        self._pulling[image] += 1
        if self._pulling[image] == 1:
            self._before[image] = present_id
            await self._write([Put(PULLING + image, b"")])
        try:
            yield
        finally:
            self._pulling[image] -= 1
            if not self._pulling[image]:
                del self._pulling[image], self._before[image]
                self._broken_off.discard(image)
                await self._write([Delete(PULLING + image)])

    async def pulled(self, image: str, image_id: str, credential: Credential | None) -> None:
        """It was pulled with that; None: without any."""
        await self._grant(image, image_id, credential.source if credential is not None else None)

    async def removed(self, image_id: str) -> None:
        """The image is not here any more."""
        if self._pulled.pop(image_id, None) is not None:
            await self._write([Delete(PULLED + image_id)])

    async def _grant(self, image: str, image_id: str, source: SecretSource | None) -> None:
        record = self._pulled.setdefault(image_id, _Pulled())
        name = parse_image(image).repository
        before = record.names.get(name)
        after = Grant(everyone=True) if source is None else (before or Grant()).with_secret(source)
        if after != before:
            record.names[name] = after
            await self._write([Put(PULLED + image_id, msgspec.json.encode(record))])

    async def _write(self, changes: Sequence[Put | Delete]) -> None:
        try:
            await self._store.batch(changes)
        except Retryable as error:
            # Known for as long as the agent lives; pods must not wait for the record.
            logger.warning("who pulled an image is not in the record: {}", error)
