"""The containerd provider: one worker a pod, moved by the runtime's events, corrected by a relist.

In: the provider contract's calls. Out: pods in containerd through the CRI, and their status by `notify_pods`. Only
sandboxes and containers with our label are ever touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from msgspec.structs import replace

from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import NotFound, Permanent, Retryable
from agent.model.logs import LogOptions
from agent.model.node import NodeFacts
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.node.ports import NodeImage, RuntimeHealth
from agent.pods.admission.gate import Gate, SettledNode, Verdict
from agent.pods.admission.rules import Offers
from agent.pods.app_armor import app_armor
from agent.pods.devices.devices import Devices
from agent.pods.garbage.kept import KeptPods
from agent.pods.garbage.traces import remove_kept
from agent.pods.image_rewrites import Rewrites
from agent.pods.knowledge import StopCause
from agent.pods.logfiles import LogFiles
from agent.pods.machine import Machine
from agent.pods.on_disk import on_disk
from agent.pods.ports import Attachments, Drivers
from agent.pods.spread import spread_folders, spread_runtime
from agent.pods.status_record import StatusRecord
from agent.pods.user_namespaces import UserNamespaces
from agent.pods.volumes.layout import pods_dir
from agent.pods.worker import PodWorker
from agent.providers.checkpoints import new_archive
from agent.providers.containerd_evictable import ContainerdEvictable, RuntimeParts
from agent.providers.containerd_garbage import Garbage, collecting
from agent.providers.containerd_logs import LogShipping
from agent.providers.containerd_machine import Csi, WorkerParts, apply_registries, build_machine, credential_sources
from agent.providers.containerd_named import NamedPods
from agent.providers.containerd_prefetch import Prefetch
from agent.providers.containerd_relist import RECONNECT_S, ContainerdRelist
from agent.providers.containerd_shutdown import ContainerdShutdown
from agent.providers.contract import PodUpdate, PodUpdates, ProviderContext
from agent.providers.found import FoundPods
from agent.providers.leftovers import Leftovers
from agent.providers.pod_cidr import PodCidr
from agent.providers.runtime_health import HealthReader
from agent.providers.streaming import CommandOutput, Streams

if TYPE_CHECKING:
    from agent.providers.containerd_stats import ContainerdStats

REMEMBERED = 100


class ContainerdProvider:
    """Made by the agent with its `ProviderContext`; `run` must be running before pods are handed to it."""

    supervises_pods = True

    def __init__(self, context: ProviderContext) -> None:
        self._context = context
        self._credentials = credential_sources(context.settings)
        self._logs = LogShipping(context, lambda: self._workers.values())
        self._log_files = LogFiles.of(context.settings, self._logs.claim)
        self._statuses = StatusRecord(context.store)
        self._last: dict[str, PodStatus] = {}
        alone = SettledNode(NodeFacts(context.settings.node_name, allocatable=context.facts.allocatable))
        self._users = UserNamespaces(context.store)
        self._kept = KeptPods(context.store, context.events, context.clock.wall)
        context.policing.notify(self._wake_all)
        pressure = context.pressure
        self._gate = Gate(context.store, context.node or alone, self._preempt, lambda: pressure.now.conditions)
        self._workers: dict[str, PodWorker] = {}
        self._named = NamedPods(self._workers, self._log_files)
        self._found = FoundPods(self._workers, self._gate, self._kept)
        self._ran: dict[str, Mapping[str, int]] = {}
        """Attempts of static pods that are gone, by UID."""
        self._updates: PodUpdates = lambda _: None
        self._open = asyncio.Event()
        self._csi: Csi | None = None
        self._pod_cidr = PodCidr()
        self._prefetch = Prefetch(context)
        self._stats: ContainerdStats | None = None
        self._tasks: asyncio.TaskGroup
        self._machine: Machine
        self._runtime: RuntimeClient
        self._images: ImageClient
        self._health: HealthReader
        self._leftovers: Leftovers
        self._garbage: Garbage

    # ------------------------------------------------------------ the contract

    def notify_pods(self, updates: PodUpdates) -> None:
        self._updates = updates

    def use_csi(self, drivers: Drivers, attachments: Attachments) -> None:
        drivers.listen(self._driver_came)
        self._csi = (drivers, attachments)

    def evictable(self) -> ContainerdEvictable:
        def parts() -> RuntimeParts | None:
            up = self._open.is_set()
            return RuntimeParts(self._machine, self._runtime, self._images) if up else None

        return ContainerdEvictable(self._context.settings, self._workers, self._gate, parts, self)

    def pods_to_end(self) -> ContainerdShutdown:
        return ContainerdShutdown(self._workers, self._gate)

    def use_devices(self, devices: Devices) -> None:
        devices.listen(self._devices_changed)
        self._gate.devices = devices

    async def create_pod(self, record: PodRecord) -> None:
        await self._open.wait()
        worker = self._workers.get(record.uid)
        if worker is not None and worker.is_ending:
            worker.make_way()
            await worker.gone.wait()
            worker = None
        self._logs.follow(record.pod)
        if worker is None:
            await self._kept.make_way(record.uid, partial(remove_kept, self._machine))
            # Two pods of one name must not run together: the new one waits for the end of the old.
            meta = record.pod.metadata
            for lost in self._found.of_name(record):
                await self.delete_pod(lost)
            older = self._named.all_of(meta.namespace, meta.name)
            # A manifest and a pod of the API server are two that only happen to have one name.
            self._work_on(record, [one for one in older if one.record.pod.is_static is record.pod.is_static])
        else:
            worker.update(record)

    async def update_pod(self, record: PodRecord) -> None:
        await self._open.wait()
        if worker := self._workers.get(record.uid):
            worker.update(record)
            self._logs.follow(record.pod)

    async def delete_pod(self, record: PodRecord) -> None:
        await self._open.wait()
        self._logs.follow(record.pod, ending=True)
        if record.is_removed:
            self._gate.leaves(record.uid)
        # One that is only to end waits for nobody: a new pod may have its name by now, and run.
        worker = self._workers.get(record.uid) or self._work_on(record, ())
        worker.update(record)
        asked = record.pod.metadata.deletionGracePeriodSeconds
        worker.stop(StopCause.DELETED, record.pod.spec.terminationGracePeriodSeconds if asked is None else asked)

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        return self._named.find(namespace, name).record

    async def get_pod_status(self, namespace: str, name: str) -> PodStatus:
        status = self._named.find(namespace, name).status
        if status is None:
            raise NotFound(f'pod "{namespace}/{name}" has no status yet')
        return status

    async def get_pods(self) -> tuple[PodRecord, ...]:
        await self._open.wait()
        left = await self._leftovers.records(self._found.known)
        return (*(worker.record for worker in self._workers.values()), *self._found.records(), *left)

    def get_container_logs(self, namespace: str, pod: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        return self._named.log(namespace, pod, container, options)

    async def exec_url(self, namespace: str, pod: str, container: str, command: Sequence[str], streams: Streams) -> str:
        container_id = self._named.running_container(namespace, pod, container)
        return await self._runtime.exec(
            container_id, command, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr, tty=streams.tty
        )

    async def attach_url(self, namespace: str, pod: str, container: str, streams: Streams) -> str:
        container_id = self._named.running_container(namespace, pod, container)
        return await self._runtime.attach(
            container_id, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr, tty=streams.tty
        )

    async def port_forward_url(self, namespace: str, pod: str, ports: Sequence[int]) -> str:
        return await self._runtime.port_forward(self._named.ready_sandbox(namespace, pod), ports)

    async def run_to_end(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandOutput:
        answer = await self._runtime.exec_sync(self._named.running_container(namespace, pod, container), command, None)
        return CommandOutput(answer.exit_code, answer.stdout + answer.stderr)

    async def checkpoint_container(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
        container_id = self._named.running_container(namespace, pod, container)
        archive = await asyncio.to_thread(new_archive, self._context.settings.root_dir, namespace, pod, container)
        await self._runtime.checkpoint_container(container_id, str(archive), timeout_s)
        return str(archive)

    async def health(self) -> RuntimeHealth:
        if not self._open.is_set():
            return RuntimeHealth(down=f"{self._context.settings.container_runtime_endpoint} has not answered yet")
        return self._offering(await self._health.health())

    async def images(self) -> tuple[NodeImage, ...]:
        return await self._health.images() if self._open.is_set() else ()

    async def get_stats_summary(self) -> dict[str, Any]:
        return await self._figures().summary()

    async def get_metrics_resource(self) -> str:
        return await self._figures().resource()

    async def get_metrics_cadvisor(self) -> str:
        return await self._figures().cadvisor()

    async def get_metrics_volumes(self) -> str:
        return await self._figures().volumes()

    async def run(self) -> None:
        self._last = await self._statuses.load()
        await self._kept.load()
        async with RuntimeChannel(self._context.settings.container_runtime_endpoint) as channel:
            self._runtime, self._images = RuntimeClient(channel), ImageClient(channel)
            self._health = HealthReader(self._runtime, self._images, Rewrites(self._context.settings.image_rewrites))
            async with (
                WorkerParts(self._runtime, self._context, self._wake, self._workers.__contains__) as parts,
                asyncio.TaskGroup() as tasks,
            ):
                self._tasks = tasks
                tasks.create_task(self._statuses.run(), name="record statuses")
                tasks.create_task(self._gate.run(), name="record admissions")
                self._machine = machine = await self._when_up(parts)
                self._leftovers = Leftovers(self._runtime, machine.volumes, self._log_files, machine.cgroups)
                shared = (machine, self._runtime, self._images, self._workers.values)
                self._garbage = collecting(self._context, *shared, self._prefetch.kept)
                await apply_registries(self._context, self._runtime, tasks)
                self._open.set()
                tasks.create_task(self._garbage.run(), name="garbage")
                tasks.create_task(self._logs.run(), name="log shipping")
                changed = self._context.health_changed
                relist = ContainerdRelist(self._workers, machine.observer, self._found.take_over, changed)
                tasks.create_task(relist.follow_events(channel, self._runtime), name="runtime events")
                tasks.create_task(relist.run(), name="relist")
                tasks.create_task(self._kept.run(partial(remove_kept, machine)), name="kept pods")
                tasks.create_task(self._pod_cidr.run(self._runtime), name="pods' addresses")
                tasks.create_task(parts.networking.run(), name="kept addresses")
                tasks.create_task(self._prefetch.run(machine, self._images), name="images ahead")
                tasks.create_task(self._spread(), name="the runtime's folders")

    async def reclaim(self) -> None:
        """The disk is short: free what can be freed."""
        if self._open.is_set():
            await self._garbage.reclaim()

    # ------------------------------------------------------------ its own work

    def _figures(self) -> ContainerdStats:
        """Raises Retryable until the runtime has answered once."""
        if not self._open.is_set():
            raise Retryable(f"{self._context.settings.container_runtime_endpoint} has not answered yet")
        if self._stats is None:
            # Many nodes are never asked: they need not hold the code.
            from agent.providers.containerd_stats import ContainerdStats

            parts = (self._machine, self._runtime, self._images, self._workers.values)
            self._stats = ContainerdStats(self._context.settings, *parts)
        return self._stats

    async def _when_up(self, parts: WorkerParts) -> Machine:
        """Wait for the runtime, however long it takes."""
        users = (self._gate, self._users, self._kept)
        make = partial(build_machine, self._context, self._runtime, self._images, self._log_files, parts, *users)
        said = ""
        while True:
            try:
                await self._runtime.version()
                machine = await make(*self._credentials, self._csi)
                observed = self._found.of_ours(await machine.observer.observe_all())
                await self._gate.load(observed, (uid for uid, s in self._last.items() if s.phase.is_terminal))
                with on_disk("cannot make the pods' cgroups"):
                    await asyncio.to_thread(machine.cgroups.prepare, self._gate.burstable_milli_cpu())
                await asyncio.to_thread(spread_folders, pods_dir(self._context.settings.root_dir), 0o750)
                await asyncio.to_thread(spread_folders, self._log_files.pods, 0o755)
                await self._users.load()
                await self._logs.load()
                await self._prefetch.load()
                self._gate.offers = Offers(machine.translate.allowed_sysctls, app_armor=app_armor())
                self._offering(await self._health.health())
                self._found.take_over(observed)
                self._context.health_changed()
                return machine
            except (Retryable, Permanent) as error:
                if str(error) != said:
                    logger.warning("{}; waiting for it", error)
                said = str(error)
                await asyncio.sleep(RECONNECT_S)

    async def _spread(self) -> None:
        """It saves work, and no pod waits for it."""
        with suppress(Retryable, Permanent):
            for one in (await self._images.image_fs_info()).image_filesystems:
                await asyncio.to_thread(spread_runtime, Path(one.fs_id.mountpoint))

    def _work_on(self, record: PodRecord, older: Sequence[PodWorker]) -> PodWorker:
        last = self._last.get(record.uid)
        if last is None and record.is_terminating:
            # Its end may have been told long ago, and somebody's finalizer holds it since: what was said stands.
            last = record.told_status
        worker = PodWorker(record, self._machine, self._context.settings.root_dir, self._updated, last)
        self._found.named(record.uid)
        worker.recall(self._ran.pop(record.uid, {}))
        self._workers[record.uid] = worker
        self._tasks.create_task(self._live(worker, older), name=f"pod {record.pod.full_name}")
        return worker

    async def _live(self, worker: PodWorker, older: Sequence[PodWorker]) -> None:
        for before in older:
            before.make_way()
            await before.gone.wait()
        await self._context.first_word()
        await worker.run()
        uid = worker.record.uid
        del self._workers[uid]
        self._logs.gone(uid)
        if worker.record.pod.is_static:
            # The same manifest put back is the same pod.
            self._ran[uid] = worker.attempts
            if len(self._ran) > REMEMBERED:
                del self._ran[next(iter(self._ran))]
        self._last.pop(uid, None)
        self._statuses.forget(uid)
        self._gate.forget(uid)
        self._context.policing.forget(uid)
        try:
            await self._users.forget(uid)
        except Retryable as error:
            logger.warning("the pod's range of user IDs is not free yet: {}", error)

    def _updated(self, update: PodUpdate) -> None:
        self._statuses.put(update.record.uid, update.status)
        if update.status.phase.is_terminal:
            self._gate.left(update.record.uid)
        self._updates(update)

    def _preempt(self, uid: str, verdict: Verdict) -> None:
        """A pod that nobody has named yet hears it when it is named."""
        if worker := self._workers.get(uid):
            worker.expel(verdict)

    def _offering(self, health: RuntimeHealth) -> RuntimeHealth:
        if not health.down:
            self._users.handlers = frozenset(one.name for one in health.handlers if one.user_namespaces)
            strict_groups = bool(health.supplemental_groups_policy)
            self._gate.offers = replace(self._gate.offers, supplemental_groups_policy=strict_groups)
        return health

    def _wake(self, uid: str) -> None:
        if worker := self._workers.get(uid):
            worker.wake()

    def _wake_all(self) -> None:
        for worker in self._workers.values():
            worker.wake()

    def _driver_came(self) -> None:
        for worker in self._workers.values():
            worker.driver_came()

    def node_changed(self, node: dict[str, Any]) -> None:
        self._pod_cidr.node_changed(node)

    def link_returned(self) -> None:
        if self._open.is_set():
            self._machine.silence.forget()
            self._prefetch.retry()
            for worker in self._workers.values():
                worker.link_returned()

    def addresses_changed(self) -> None:
        self._wake_all()

    def _devices_changed(self, uids: Set[str]) -> None:
        for uid in uids & self._workers.keys():
            self._workers[uid].devices_changed()

    def objects_changed(self, uid: str) -> None:
        """Something that this pod refers to changed."""
        if worker := self._workers.get(uid):
            worker.objects_changed()
