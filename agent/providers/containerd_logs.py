"""The containerd provider's pods whose logs are shipped: composition, and what a node without such a pod is spared.

In: pods and their policies. Out: a `Shipper` that follows them, made (and its code loaded) when the first pod has a
sink, or when an earlier agent left something unsent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.pods.log_shipping import PREFIX
from agent.providers.contract import ProviderContext

if TYPE_CHECKING:
    from agent.model.pod import Pod
    from agent.pods.log_shipping.shipper import Shipper
    from agent.pods.worker import PodWorker


class LogShipping:
    def __init__(self, context: ProviderContext, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._context = context
        self._workers = workers
        context.policing.notify(self._policies_changed)
        self._shipper: Shipper | None = None
        self._made = asyncio.Event()

    async def load(self) -> None:
        """Go on with what the record has. Raises Retryable."""
        if self._shipper is None and await self._context.store.list(PREFIX):
            shipper = self._new()
            await shipper.load()
            self._use(shipper)

    def follow(self, pod: Pod, *, ending: bool = False) -> None:
        """It came, or its policies may be others.

        `ending`: what is known of it may be no more than its name, and the record's word of its sink stands.
        """
        meta, sink = pod.metadata, self._context.policing.of(pod).logs
        if sink is not None:
            shipper = self._shipper or self._use(self._new())
            shipper.spool.follow(meta.uid, meta.namespace, meta.name, sink)
            shipper.wake()
        elif self._shipper is not None and not ending:
            self._shipper.spool.leave(meta.uid)

    def _policies_changed(self) -> None:
        for worker in self._workers():
            self.follow(worker.record.pod, ending=worker.is_ending)

    def gone(self, uid: str) -> None:
        """Its worker has ended."""
        if self._shipper is not None:
            self._shipper.spool.gone(uid)

    def claim(self, folder: Path) -> None:
        """Files of this pod's log folder are about to go. Called in a thread."""
        if self._shipper is not None:
            self._shipper.spool.claim(folder)

    async def run(self) -> None:
        await self._made.wait()
        assert self._shipper is not None
        await self._shipper.run()

    def _new(self) -> Shipper:
        from agent.pods.log_shipping.shipper import Shipper
        from agent.pods.log_shipping.spool import Spool

        context, settings = self._context, self._context.settings
        spool = Spool(settings.pod_logs_dir.absolute(), settings.node_name, settings.log_spool_size)
        return Shipper(spool, context.store, context.events, settings.node_name, settings.log_spool_size)

    def _use(self, shipper: Shipper) -> Shipper:
        self._shipper = shipper
        self._made.set()
        return shipper
