"""One node's pod workers over a runtime in memory on a real socket, with time moved by hand and nothing of root's.

Made with `async with scene(folder) as s`. Workers live in the scene's task group: a bug in one fails the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent.cri._generated import api_pb2
from agent.cri.arrivals import Arrivals
from agent.cri.channel import RuntimeChannel
from agent.cri.image_import import ImageImport
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import EdgeletError, NotFound
from agent.model.node import NodeFacts
from agent.model.objects import ObjectReference, Service, Token
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import ContainerStatus, PodStatus
from agent.pods.admission.gate import Gate, SettledNode, Verdict
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.cgroups import CgroupDriver
from agent.pods.downward import NodeContext
from agent.pods.garbage.kept import KeptPods
from agent.pods.hooks import Hooks
from agent.pods.last_words import last_words
from agent.pods.logfiles import LogFiles
from agent.pods.machine import Machine
from agent.pods.observe import Observer
from agent.pods.ports import ObjectKey
from agent.pods.probes.attempt import Attempts
from agent.pods.probes.http import HttpGetter
from agent.pods.probes.prober import Prober
from agent.pods.pull_records import PullRecords
from agent.pods.pulls import PullGate
from agent.pods.scripts.allowed import ScriptRules
from agent.pods.scripts.empty_image import EmptyImage
from agent.pods.scripts.mountpoints import Mountpoints
from agent.pods.scripts.scripts import Scripts
from agent.pods.silence import Silence
from agent.pods.translate.context import TranslateContext
from agent.pods.turns import StartTurns
from agent.pods.user_namespaces import UserNamespaces
from agent.pods.volumes.pod_volumes import PodVolumes
from agent.pods.worker import PodWorker
from agent.providers.contract import PodUpdate
from agent.rush import Rush
from tests.fakes.cri import FakeRuntime, serving
from tests.fakes.skipped_time import SkippedTime
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.volumes.fake_mounts import FakeMounts

NODE = "node-1"
TEST_CGROUPS = "/edgelet-unit-tests"
"""No such cgroup exists anywhere: what a test ends and removes there is nothing."""
NODE_FACTS = NodeFacts(
    NODE,
    labels={"kubernetes.io/os": "linux", "disk": "ssd"},
    allocatable={"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "pods": "10"},
)
MOVES = (
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "PullImage",
)


def record(meta: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> PodRecord:
    """Pod shop/web (uid u-1) as it comes from the API server, with one container `main` of image busybox."""
    return PodRecord.decode(
        msgspec.json.encode(
            {
                "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", **(meta or {})},
                "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
                "status": status or {},
            }
        )
    )


def container_record(meta: dict[str, Any] | None = None, **fields: Any) -> PodRecord:
    """A pod whose only container has these fields."""
    return record(meta, containers=[{"name": "main", "image": "busybox", **fields}])


class FakeObjects:
    """ConfigMaps and Secrets by key; `error` is raised instead."""

    def __init__(self) -> None:
        self.held: dict[ObjectKey, bytes] = {}
        self.error: Exception | None = None
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.retained: dict[str, tuple[ObjectKey, ...]] = {}

    def put(self, kind: Any, name: str, **content: Any) -> None:
        meta = {"name": name, "namespace": "shop"}
        self.held[ObjectKey(kind, "shop", name)] = msgspec.json.encode({"metadata": meta, **content})

    async def get(self, key: ObjectKey) -> bytes:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        if key not in self.held:
            raise NotFound(f'{key.kind} "{key.name}" not found')
        return self.held[key]

    def retain(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        self.retained[pod_uid] = tuple(keys)

    def release(self, pod_uid: str) -> None:
        self.retained.pop(pod_uid, None)

    async def services(self, namespace: str) -> tuple[Service, ...]:
        return ()


class FakeTokens:
    def __init__(self, time: SkippedTime) -> None:
        self._time = time
        self.issued = 0
        self.life_s = 3600.0
        self.forgotten: list[str] = []
        self.error: EdgeletError | None = None

    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:
        self.issued += 1
        return Token(f"token-{self.issued}", self._time.wall() + self.life_s)

    async def forget(self, pod_uid: str) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.forgotten.append(pod_uid)


class FakeEvents:
    def __init__(self) -> None:
        self.all: list[tuple[str, str, str, str]] = []

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        self.all.append((kind, reason, message, about.fieldPath))

    def messages(self, reason: str) -> list[str]:
        return [message for _, found, message, _ in self.all if found == reason]

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _, _ in self.all]


@dataclass
class Scene:
    cri: FakeRuntime
    machine: Machine
    time: SkippedTime
    root: Path
    objects: FakeObjects
    tokens: FakeTokens
    events: FakeEvents
    mounts: FakeMounts
    tasks: asyncio.TaskGroup
    workers: dict[str, PodWorker] = field(default_factory=dict)
    updates: list[PodUpdate] = field(default_factory=list)
    lives: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, wanted: PodRecord | None = None, last: PodStatus | None = None) -> PodWorker:
        """A worker for the pod, running."""
        worker = self.make(wanted, last)
        self.run(worker)
        return worker

    def make(self, wanted: PodRecord | None = None, last: PodStatus | None = None) -> PodWorker:
        wanted = wanted or record()
        worker = PodWorker(wanted, self.machine, self.root, self.updates.append, last)
        self.workers[wanted.uid] = worker
        return worker

    def run(self, worker: PodWorker) -> asyncio.Task[None]:
        life = self.tasks.create_task(worker.run())
        self.lives.append(life)
        return life

    async def running(self, wanted: PodRecord | None = None, last: PodStatus | None = None) -> PodWorker:
        """The same, once it is at rest with everything of the pod running."""
        worker = self.start(wanted, last)
        await self.until(lambda: bool(worker.status) and self.phase == "Running")
        return worker

    async def killed_agent(self) -> None:
        """The workers end as by SIGKILL: nothing of the pods is touched. A new scene's memory starts empty."""
        for life in self.lives:
            life.cancel()
        await asyncio.gather(*self.lives, return_exceptions=True)
        self.lives.clear()
        self.workers.clear()
        self.machine.prober.close()
        self.machine.observer = Observer(self.machine.runtime, NODE, last_words)

    async def until(self, holds: Any) -> None:
        await eventually(holds)

    def skip(self, seconds: float) -> None:
        self.time.skip(seconds)

    def volume(self, kind: str, name: str) -> Path:
        """The folder of a volume of pod u-1."""
        return self.root / "pods/u-1/volumes" / f"kubernetes.io~{kind}" / name

    def is_running(self, name: str) -> bool:
        own = [c for c in self.cri.containers.values() if c.config.metadata.name == name]
        return bool(own) and own[-1].state == api_pb2.CONTAINER_RUNNING

    def exit(self, name: str, exit_code: int = 0) -> None:
        """The newest container of that name ends, and its pod's worker hears of it."""
        ended = self.cri.container(name)
        self.cri.exit(ended.id, exit_code)
        for worker in self.workers.values():
            worker.wake()

    @property
    def phase(self) -> str:
        return self.updates[-1].status.phase if self.updates else ""

    @property
    def moves(self) -> list[str]:
        """The calls that changed something, in their order."""
        return [method for method, _ in self.cri.calls if method in MOVES]

    def main(self, name: str = "main") -> ContainerStatus:
        """The status of that container as last told."""
        status = self.updates[-1].status
        both = (*status.initContainerStatuses, *status.containerStatuses)
        return next(c for c in both if c.name == name)

    def waits(self, name: str = "main") -> str:
        """The waiting reason last told."""
        if not self.updates:
            return ""
        waiting = self.main(name).state.waiting
        return waiting.reason if waiting else ""

    def told_waits(self) -> list[str]:
        """Every waiting reason that was told, in order, repetitions left out."""
        told: list[str] = []
        for update in self.updates:
            waiting = update.status.containerStatuses[0].state.waiting
            if waiting and (not told or told[-1] != waiting.reason):
                told.append(waiting.reason)
        return told

    @property
    def gone(self) -> bool:
        return bool(self.updates) and self.updates[-1].gone


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    time = SkippedTime()
    cri = FakeRuntime(time)
    objects, tokens, events, mounts = FakeObjects(), FakeTokens(time), FakeEvents(), FakeMounts()
    root = folder / "root"
    workers: dict[str, PodWorker] = {}

    def wake(uid: str) -> None:
        if worker := workers.get(uid):
            worker.wake()

    def preempt(uid: str, verdict: Verdict) -> None:
        if worker := workers.get(uid):
            worker.expel(verdict)

    store = MemoryStore()
    async with (
        serving(cri) as endpoint,
        RuntimeChannel(endpoint) as channel,
        HttpGetter() as http,
        asyncio.TaskGroup() as tasks,
    ):
        runtime, images = RuntimeClient(channel), ImageClient(channel)
        logs = LogFiles(folder / "pods-logs", folder / "links")
        machine = Machine(
            runtime=runtime,
            images=images,
            observer=Observer(runtime, NODE, last_words),
            objects=objects,
            tokens=tokens,
            events=events,
            volumes=PodVolumes(root, mounts),
            prober=Prober(tasks, Attempts(runtime, http), events, wake, monotonic=time.monotonic),
            hooks=Hooks(runtime, http, events),
            log_files=logs,
            scripts=Scripts(ScriptRules(False, (), ()), EmptyImage(images, ImageImport(channel)), Mountpoints(root)),
            users=UserNamespaces(store),
            gate=Gate(store, SettledNode(NODE_FACTS), preempt),
            translate=TranslateContext(
                node_name=NODE,
                memory_capacity_bytes=1 << 30,
                node_ips=("10.0.0.1",),
                cluster_dns=("10.96.0.10",),
                pod_logs_dir=str(logs.pods),
            ),
            node=NodeContext(NODE, ("10.0.0.1",)),
            cgroups=CgroupTree(CgroupDriver.CGROUPFS, TEST_CGROUPS, mount=folder / "cgroups"),
            starts=StartTurns(4, Rush()),
            pulls=PullGate(5, 0, 1),
            silence=Silence(Arrivals(channel), time.monotonic),
            access=PullRecords(MemoryStore()),
            kept=KeptPods(store, events, time.wall),
            monotonic=time.monotonic,
            wall=time.wall,
            since=lambda unix_s: max(0.0, time.wall() - unix_s),
            age=lambda unix_ns: max(0.0, time.wall() - unix_ns / 1e9),
        )
        made = Scene(cri, machine, time, root, objects, tokens, events, mounts, tasks, workers)
        try:
            yield made
        finally:
            await made.killed_agent()
