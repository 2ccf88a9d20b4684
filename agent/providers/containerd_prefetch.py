"""The containerd provider's images that are there before a pod needs them. Composition; `agent.pods.prefetch` does it.

In: the settings, the Node's annotation, the folder of bundles. Out: kept images, and what the Node says of them. What
pulls and what imports is loaded when there is something to pull or to import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import TYPE_CHECKING

from loguru import logger

from agent.cri.images import ImageClient
from agent.errors import EdgeletError
from agent.model.objects import ObjectReference
from agent.node.facts import go_architecture
from agent.option_prefetch import image_name
from agent.pods.image_rewrites import Rewrites
from agent.pods.machine import Machine
from agent.pods.policing import INVALID
from agent.pods.prefetch.pins import Pins
from agent.providers.contract import ProviderContext
from agent.said_once import SaidOnce

if TYPE_CHECKING:
    from agent.pods.prefetch.bundle_import import Importer
    from agent.pods.prefetch.bundles import Bundles
    from agent.pods.prefetch.prefetcher import Prefetcher

ANNOTATION = "edgelet.io/prefetch"


class Prefetch:
    def __init__(self, context: ProviderContext) -> None:
        settings = context.settings
        self._context = context
        self._pins = Pins(context.store, settings.prefetch, Rewrites(settings.image_rewrites))
        self._about = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        self._faults = SaidOnce[str]()
        self._news = asyncio.Event()
        self._prefetcher: Prefetcher | None = None
        self._bundles: Bundles | None = None

    def kept(self) -> Set[str]:
        return self._pins.names

    def retry(self) -> None:
        """What failed may do better now."""
        if self._prefetcher is not None:
            self._prefetcher.retry()

    async def load(self) -> None:
        """Before anything is collected. Raises Retryable."""
        await self._pins.load()
        self._pins.node_names(self._named())
        if self._context.node_policies is not None:
            self._context.node_policies.notify(self._news.set)

    async def run(self, machine: Machine, images: ImageClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_bundles(images), name="image bundles")
            if self._pins.wanted:
                self._begin(tasks, machine, images)
            else:
                await self._unmark(images)
                if not self._pins.bundles:
                    self._tell()  # what an agent before this one told is over
            while True:
                await self._news.wait()
                self._news.clear()
                self._pins.node_names(self._named())
                if self._prefetcher is not None:
                    self._prefetcher.wake()
                elif self._pins.wanted:
                    self._begin(tasks, machine, images)

    def _named(self) -> tuple[str, ...]:
        """What the annotation names; what is no image's name is said and passed over."""
        policies, found, faults = self._context.node_policies, [], []
        for word in (policies.now.prefetch if policies is not None else None) or ():
            try:
                found.append(image_name(word))
            except ValueError as error:
                faults.append(f"annotation {ANNOTATION} names what does not count: {error}")
        for fault in self._faults.new(faults):
            self._context.events.record(self._about, "Warning", INVALID, fault)
        return tuple(found)

    def _begin(self, tasks: asyncio.TaskGroup, machine: Machine, images: ImageClient) -> None:
        from agent.cri.content import ContentStore
        from agent.cri.image_import import ImageImport
        from agent.cri.leases import Leases
        from agent.pods.prefetch.prefetcher import Prefetcher, Rules

        context, channel = self._context, images.channel
        self._prefetcher = Prefetcher(
            machine,
            images,
            ContentStore(channel),
            Leases(channel),
            ImageImport(channel),
            self._pins,
            Rules(context.settings.prefetch_rate, context.settings.prefetch_window),
            context.clock,
            self._about,
            lambda: context.pressure.now.disk,
            self._tell,
        )
        tasks.create_task(self._prefetcher.run(), name="prefetched images")

    async def _follow_bundles(self, images: ImageClient) -> None:
        from agent.pods.prefetch.bundles import Bundles

        settings = self._context.settings
        self._bundles = Bundles(
            settings.image_bundles or settings.root_dir / "images",
            images,
            lambda: _importer(images),
            self._pins,
            self._context.events,
            self._about,
            self._tell,
        )
        await self._bundles.run()

    async def _unmark(self, images: ImageClient) -> None:
        """What settings named before this start, and name no more."""
        from agent.cri.image_import import ImageImport

        try:
            await self._pins.mark(ImageImport(images.channel))
        except EdgeletError as error:
            logger.debug("images keep their labels until the next start: {}", error)

    def _tell(self) -> None:
        from agent.pods.prefetch.told import ANNOTATION as STATUS
        from agent.pods.prefetch.told import told

        of_images = self._prefetcher.statuses if self._prefetcher is not None else ()
        of_bundles = self._bundles.statuses if self._bundles is not None else ()
        self._context.annotate(STATUS, told(of_images, of_bundles))


def _importer(images: ImageClient) -> Importer:
    import platform

    from agent.cri.content import ContentStore
    from agent.cri.image_import import ImageImport
    from agent.cri.leases import Leases
    from agent.pods.prefetch.bundle_import import Importer

    channel = images.channel
    architecture = go_architecture(platform.machine())
    return Importer(images, ContentStore(channel), Leases(channel), ImageImport(channel), architecture)
