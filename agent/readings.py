"""How the agent's gauges are read: each from the part that knows. Wired once, at the start; read when somebody asks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from agent import __version__, own_metrics
from agent.config import Settings
from agent.kube.events import EventRecorder
from agent.kube.rest import Api
from agent.model.record import Origin, PodRecord
from agent.model.status import PodStatus
from agent.pods.controller import PodController
from agent.pods.ports import Events
from agent.pods.publish import Publisher
from agent.store.base import Store
from agent.store.held import HeldStore
from agent.store.opening import local_path, store_address


class Sources(msgspec.Struct, frozen=True):
    node_name: str
    pods: Callable[[], Iterable[tuple[PodRecord, PodStatus | None]]]
    queues: Mapping[str, Callable[[], int]]
    record: Path
    unsaved: Callable[[], int]
    offline_s: Callable[[], float] | None
    """None: there is no API server."""
    is_offline: Callable[[], bool]
    is_foreign: Callable[[], bool]
    """What answers is another cluster's."""


def sources_of(
    settings: Settings,
    store: Store,
    pods: Callable[[], Iterable[tuple[PodRecord, PodStatus | None]]],
    controller: PodController,
    publisher: Publisher | None,
    events: Events,
    api: Api | None,
    foreign: Callable[[], str],
) -> Sources:
    """Of an agent's parts; those that a standalone one lacks have no queue."""
    queues: dict[str, Callable[[], int]] = {"changes": lambda: controller.waiting}
    if publisher is not None:
        queues["statuses"] = lambda: publisher.waiting
    if isinstance(events, EventRecorder):
        queues["events"] = lambda: events.waiting
    return Sources(
        node_name=settings.node_name,
        pods=pods,
        queues=queues,
        record=local_path(settings, store_address(settings)),
        unsaved=lambda: store.unsaved if isinstance(store, HeldStore) else 0,
        offline_s=None if api is None else lambda: api.link.down_s,
        is_offline=lambda: api is not None and not api.link.up,
        is_foreign=lambda: bool(foreign()),
    )


def wire(sources: Sources) -> None:
    own_metrics.NODE_NAME.read = lambda: {(sources.node_name,): 1}
    own_metrics.BUILD.read = lambda: {(__version__,): 1}
    own_metrics.RUNNING_PODS.read = lambda: {(): sum(1 for _, status in sources.pods() if _runs(status))}
    own_metrics.RUNNING_CONTAINERS.read = lambda: _containers(sources.pods())
    own_metrics.DESIRED_PODS.read = lambda: _desired(sources.pods())
    own_metrics.QUEUE_DEPTH.read = lambda: {(name,): length() for name, length in sources.queues.items()}
    own_metrics.JOURNAL_LENGTH.read = lambda: {(): sources.unsaved()}
    own_metrics.RECORD_BYTES.read = lambda: {(): _size(sources.record)}
    if (offline_s := sources.offline_s) is not None:
        own_metrics.OFFLINE.read = lambda: {(): offline_s()}
        own_metrics.OFFLINE_NOW.read = lambda: {(): int(sources.is_offline())}
        own_metrics.FOREIGN_CLUSTER.read = lambda: {(): int(sources.is_foreign())}
    process = psutil.Process()
    own_metrics.PROCESS_MEMORY.read = lambda: {(): process.memory_info().rss}
    own_metrics.PROCESS_CPU.read = lambda: {(): sum(process.cpu_times()[:2])}
    own_metrics.PROCESS_START.read = lambda: {(): process.create_time()}
    own_metrics.PROCESS_FILES.read = lambda: {(): len(os.listdir("/proc/self/fd"))}


def _runs(status: PodStatus | None) -> bool:
    """Something of it runs."""
    return status is not None and any(one.state.running for one in status.all_containers)


def _containers(pods: Iterable[tuple[PodRecord, PodStatus | None]]) -> dict[tuple[str, ...], float]:
    """By the words of a kubelet; one that was not made yet is none."""
    found = Counter({"running": 0, "exited": 0})
    for _, status in pods:
        for one in status.all_containers if status is not None else ():
            if one.state.running:
                found["running"] += 1
            elif one.state.terminated:
                found["exited"] += 1
    return {(state,): count for state, count in found.items()}


def _desired(pods: Iterable[tuple[PodRecord, PodStatus | None]]) -> dict[tuple[str, ...], float]:
    found = Counter(record.origin is Origin.API for record, _ in pods)
    return {("",): found[True], ("true",): found[False]}


def _size(record: Path) -> int:
    total = 0
    for file in (record, record.with_name(record.name + "-wal")):
        with suppress(OSError):
            total += file.stat().st_size
    return total
