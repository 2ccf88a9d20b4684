"""Which images are kept though nothing uses them: those that are pulled ahead, and those of bundles.

In: what settings, the Node and bundles name. Out: names that no collection of images takes, also right after a restart
and while cut off: what bundles brought and what is marked in the runtime are in the record, as the Node's word is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec
from loguru import logger

from agent.cri.containerd import PINNED
from agent.errors import Permanent, Retryable
from agent.pods.garbage.image_plan import full_names, held_names
from agent.pods.image_rewrites import NO_REWRITES, Rewrites
from agent.pods.images import parse_image
from agent.store.base import Store
from agent.store.rows import read_rows

KEY = "prefetch/images"
BUNDLES = "prefetch/bundles/"


class Labels(Protocol):
    async def label(self, name: str, labels: Mapping[str, str]) -> bool: ...


class _Recorded(msgspec.Struct, omit_defaults=True):
    marked: tuple[str, ...] = ()
    """Images that carry the runtime's label by us."""


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file as it was when it was taken or refused."""

    size: int
    mtime_ns: int
    images: tuple[str, ...] = ()
    error: str = ""
    """Not empty: it was refused, and is not tried again as it is."""


class Pins:
    def __init__(self, store: Store, settings: Collection[str], rewrites: Rewrites = NO_REWRITES) -> None:
        self._store = store
        self._rewrites = rewrites
        self._settings = tuple(settings)
        self._node: tuple[str, ...] = ()
        self._marked: set[str] = set()
        self._bundles: dict[str, Bundle] = {}
        self._names: frozenset[str] = frozenset()
        self._runtime_names: set[str] = set()
        """As containerd has them."""

    async def load(self) -> None:
        """Raises Retryable. What can't be read is found out anew."""
        if (row := await self._store.get(KEY)) is not None:
            try:
                recorded = msgspec.json.decode(row.value, type=_Recorded)
                self._marked = set(recorded.marked)
            except msgspec.DecodeError as error:
                logger.warning("record row {} can't be read: {}", row.key, error)
        self._bundles = await read_rows(self._store, BUNDLES, Bundle, "bundle")
        self._changed()

    @property
    def wanted(self) -> tuple[str, ...]:
        """Images to pull ahead, as they were written, each once: the settings' first."""
        return tuple(dict.fromkeys((*self._settings, *self._node)))

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """By file name."""
        return self._bundles

    @property
    def names(self) -> frozenset[str]:
        """All that is kept, by all the names that the runtime may have it under."""
        return self._names

    def node_names(self, images: tuple[str, ...]) -> None:
        """What the Node names now, or named when it was last seen."""
        self._node = images
        self._changed()

    async def put_bundle(self, file: str, bundle: Bundle) -> None:
        self._bundles[file] = bundle
        self._changed()
        await self._record(BUNDLES + file, msgspec.json.encode(bundle))

    async def drop_bundle(self, file: str) -> None:
        """The file is gone: its images may go."""
        if self._bundles.pop(file, None) is not None:
            self._changed()
            try:
                await self._store.delete(BUNDLES + file)
            except Retryable as error:
                logger.warning("a bundle that is gone is still in the record: {}", error)

    async def mark(self, images: Labels) -> None:
        """Label in the runtime what is here of what is kept, and take the label off what is kept no more.

        A re-pull takes it off too. Raises Retryable. A runtime that has no such labels is left alone: the agent keeps
        its images either way.
        """
        before = set(self._marked)
        try:
            for name in sorted(self._runtime_names):
                if await images.label(name, PINNED):
                    self._marked.add(name)
            for name in sorted(self._marked - self._runtime_names):
                await images.label(name, dict.fromkeys(PINNED, ""))
                self._marked.discard(name)
        except Permanent as error:
            logger.debug("images are not marked in the runtime: {}", error)
        if self._marked != before:
            await self._write()

    def _changed(self) -> None:
        of_bundles = [image for bundle in self._bundles.values() for image in bundle.images]
        names = {name for image in self.wanted for name in held_names(image, self._rewrites)}
        self._names = frozenset(names.union(*map(full_names, of_bundles)))
        pulled = [one for image in self.wanted for one in (image, self._rewrites.name(image))]
        self._runtime_names = {str(parse_image(image)) for image in (*pulled, *of_bundles)}

    async def _write(self) -> None:
        await self._record(KEY, msgspec.json.encode(_Recorded(tuple(sorted(self._marked)))))

    async def _record(self, key: str, value: bytes) -> None:
        try:
            await self._store.put(key, value)
        except Retryable as error:
            logger.warning("which images are kept is not in the record: {}", error)
