"""The provider as the agent uses it, over a runtime on the real wire: events, relists, restarts, names and orphans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.config import Settings
from agent.cri._generated import api_pb2 as pb
from agent.cri.events import Source
from agent.errors import NotFound, Permanent, Retryable
from agent.model.logs import LogOptions
from agent.model.observed import ObservedPod
from agent.model.record import Origin, PodRecord
from agent.model.status import Terminated
from agent.providers.containerd import ContainerdProvider
from agent.providers.contract import MachineFacts, PodUpdate, ProviderContext
from tests.fakes.cri import FakeRuntime, serve_at, serving
from tests.fakes.skipped_time import SkippedTime, quiet, with_skipped_time
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.scene import NODE, TEST_CGROUPS, FakeEvents, FakeObjects, FakeTokens, record


@dataclass
class Node:
    """One machine: its runtime and record outlive the agents that come and go on it."""

    folder: Path
    endpoint: str
    cri: FakeRuntime
    time: SkippedTime
    store: MemoryStore = field(default_factory=MemoryStore)
    objects: FakeObjects = field(default_factory=FakeObjects)
    events: FakeEvents = field(default_factory=FakeEvents)
    updates: list[PodUpdate] = field(default_factory=list)
    health_changes: int = 0
    node_told: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.node_told.set()

    def _health_changed(self) -> None:
        self.health_changes += 1

    def make(self) -> ContainerdProvider:
        settings = Settings(
            node_name=NODE,
            container_runtime_endpoint=self.endpoint,
            root_dir=self.folder / "root",
            pod_logs_dir=self.folder / "pods-logs",
            container_log_links_dir=self.folder / "links",
            cgroup_root=TEST_CGROUPS,
            resolv_conf=None,
            cluster_dns=("10.96.0.10",),
        )
        provider = ContainerdProvider(
            ProviderContext(
                settings=settings,
                store=self.store,
                objects=self.objects,
                tokens=FakeTokens(self.time),
                events=self.events,
                facts=MachineFacts(1 << 30, {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "110"}),
                node_ips=("10.0.0.1",),
                health_changed=self._health_changed,
                first_word=self.node_told.wait,
            )
        )
        provider.notify_pods(self.updates.append)
        return provider

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[ContainerdProvider]:
        provider = self.make()
        life = asyncio.ensure_future(provider.run())
        try:
            yield provider
        finally:
            if life.done():
                life.result()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    async def listening(self) -> None:
        """The first agent has subscribed to events, and has taken the look at everything that follows."""
        await eventually(lambda: self.health_changes >= 2)  # once it was up, and then when the subscription held
        await quiet()

    def phase(self, uid: str = "u-1") -> str:
        return next((u.status.phase for u in reversed(self.updates) if u.record.uid == uid), "")

    def gone(self, uid: str = "u-1") -> bool:
        return any(update.gone for update in self.updates if update.record.uid == uid)

    async def running(self, provider: ContainerdProvider, wanted: PodRecord | None = None) -> PodRecord:
        wanted = wanted or record()
        await provider.create_pod(wanted)
        await eventually(lambda: self.phase(wanted.uid) == "Running")
        return wanted

    def restarts(self) -> int:
        return self.updates[-1].status.containerStatuses[0].restartCount


@asynccontextmanager
async def node(folder: Path, event_source: Source | None = Source.CRI) -> AsyncIterator[Node]:
    time = SkippedTime()
    cri = FakeRuntime(time, event_source)
    async with serving(cri) as endpoint:
        yield Node(folder, endpoint, cri, time)


def deleted(uid: str = "u-1", grace_s: int = 30, **meta: Any) -> PodRecord:
    when = "2024-01-01T00:00:00Z"
    return record({"uid": uid, "deletionTimestamp": when, "deletionGracePeriodSeconds": grace_s, **meta})


# ------------------------------------------------------------ events and relists


@pytest.mark.parametrize("source", [Source.CRI, Source.CONTAINERD])
@with_skipped_time
async def test_an_exit_is_heard_of_from_either_event_source(tmp_path: Path, source: Source) -> None:
    async with node(tmp_path, source) as n, n.agent() as provider:
        await n.running(provider)
        await n.cri.until(lambda: n.cri.subscriptions == 1)
        n.cri.exit(n.cri.container("main").id, 1)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_without_an_event_source_exits_are_looked_for_every_second(tmp_path: Path) -> None:
    async with node(tmp_path, None) as n, n.agent() as provider:
        await n.running(provider)
        await n.cri.reached("Subscribe")
        await quiet()
        n.cri.exit(n.cri.container("main").id, 1)
        await quiet()
        assert n.restarts() == 0
        n.time.skip(1)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_an_exit_that_no_event_told_is_found_by_the_relist(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        n.cri.record_exit(n.cri.container("main").id, 1)
        n.time.skip(20)
        await quiet()
        assert n.restarts() == 0
        n.time.skip(11)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_an_exit_that_a_busy_runtime_tells_long_before_it_shows_it_is_looked_for_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cri.events._SETTLE_DELAYS_S", (0.001, 0.001))
    async with node(tmp_path, Source.CONTAINERD) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        n.cri.tell_exit(n.cri.container("main").id)
        for seconds in (1.1, 1.1, 60):  # 100 MiB on their way to a slow card
            await quiet()
            n.time.skip(seconds)
        await quiet()
        assert n.restarts() == 0
        n.cri.record_exit(n.cri.container("main").id, 1)
        ended = n.time.monotonic()
        n.time.skip(1.1)
        await eventually(lambda: n.restarts() == 1)
        assert n.time.monotonic() - ended < 3


@with_skipped_time
async def test_an_exit_that_is_told_before_the_runtime_has_noted_the_start_is_looked_for_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cri.events._SETTLE_DELAYS_S", (0.001, 0.001))
    async with node(tmp_path, Source.CONTAINERD) as n, n.agent() as provider:
        starts = n.cri.hold("StartContainer")
        await provider.create_pod(record())
        await n.listening()
        await n.cri.reached("StartContainer")
        looks = len(n.cri.called("ListContainers"))
        n.cri.tell_exit(n.cri.container("main").id)
        await n.cri.reached("ListContainers", looks + 3)  # for the event twice, and then for the relist
        starts.set()
        await eventually(lambda: n.phase() == "Running")
        n.cri.record_exit(n.cri.container("main").id, 1)
        ended = n.time.monotonic()
        n.time.skip(1.1)
        await eventually(lambda: n.restarts() == 1)
        assert n.time.monotonic() - ended < 3


@pytest.mark.parametrize("source", list(Source))
@with_skipped_time
async def test_an_exit_during_the_start_of_another_container_is_seen_without_the_relist(
    tmp_path: Path, source: Source
) -> None:
    async with node(tmp_path, source) as n, n.agent() as provider:
        both = [{"name": name, "image": "busybox"} for name in ("main", "other")]
        await n.running(provider, record(containers=both))
        await n.listening()
        starts = n.cri.hold("StartContainer")
        n.cri.exit(n.cri.container("other").id, 1)
        await n.cri.reached("StartContainer", 3)
        n.cri.exit(n.cri.container("main").id, 1)
        await quiet()
        assert n.restarts() == 0
        starts.set()
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_what_happened_while_events_were_lost_is_seen_when_they_are_back(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        n.cri.break_streams()
        await n.cri.until(lambda: n.cri.subscriptions == 0)
        n.cri.exit(n.cri.container("main").id, 1)
        await quiet()
        n.time.skip(0.5)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_while_events_cannot_be_had_exits_are_looked_for_every_second(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        n.cri.fail("GetContainerEvents", grpc.StatusCode.UNAVAILABLE, times=1000)
        n.cri.break_streams()
        await n.cri.until(lambda: n.cri.subscriptions == 0)
        await quiet()
        n.cri.exit(n.cri.container("main").id, 1)
        await quiet()
        n.time.skip(1)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_an_event_stream_that_ends_with_an_odd_error_is_opened_again(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.cri.until(lambda: n.cri.subscriptions == 1)
        n.cri.fail("GetContainerEvents", grpc.StatusCode.INTERNAL, "stream terminated")
        n.cri.break_streams()
        await n.cri.reached("GetContainerEvents", 1)
        for _ in range(2):
            await quiet()
            n.time.skip(0.5)
        await n.cri.until(lambda: n.cri.subscriptions == 1)
        n.cri.exit(n.cri.container("main").id, 1)
        await eventually(lambda: n.restarts() == 1)


@with_skipped_time
async def test_our_own_starts_told_as_events_make_no_more_work(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        before = len(n.cri.calls)
        n.cri.tell_start(n.cri.container("main").id)
        await quiet()
        assert len(n.cri.calls) == before


@with_skipped_time
async def test_a_runtime_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    cri = FakeRuntime(SkippedTime())
    n = Node(tmp_path, f"unix://{tmp_path}/cri.sock", cri, SkippedTime())
    async with n.agent() as provider:
        made = asyncio.ensure_future(provider.create_pod(record()))
        await quiet()
        assert (await provider.health()).down != ""
        assert not made.done()
        server = await serve_at(cri, n.endpoint)
        n.time.skip(1)
        try:
            await eventually(made.done)
            await eventually(lambda: n.phase() == "Running")
            assert n.health_changes > 0
            assert (await provider.health()).down == ""
        finally:
            await server.stop(None)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN])
@pytest.mark.parametrize("call", ["Version", "Status", "ListPodSandbox", "ListContainers", "ContainerStatus"])
@with_skipped_time
async def test_a_runtime_that_is_not_well_yet_at_the_start_is_waited_for(
    tmp_path: Path, call: str, code: grpc.StatusCode
) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider)
        n.cri.unserved.add("RuntimeConfig")
        before = len(n.cri.called(call))
        n.cri.fail(call, code, "the plugin is being loaded")
        async with n.agent() as provider:
            await n.cri.reached(call, before + 1)
            assert "has not answered yet" in (await provider.health()).down
            await quiet()
            n.time.skip(0.5)
            assert [found.uid for found in await provider.get_pods()] == ["u-1"]


@with_skipped_time
async def test_a_restarted_runtime_is_found_again(tmp_path: Path) -> None:
    cri = FakeRuntime(SkippedTime())
    n = Node(tmp_path, f"unix://{tmp_path}/cri.sock", cri, SkippedTime())
    server = await serve_at(cri, n.endpoint)
    async with n.agent() as provider:
        await n.running(provider)
        await server.stop(None)
        await eventually(lambda: cri.subscriptions == 0)
        assert "unavailable" in (await provider.health()).down
        cri.record_exit(cri.container("main").id, 1)
        server = await serve_at(cri, n.endpoint)
        try:
            for _ in range(40):
                n.time.skip(1)
                await quiet()
                if n.restarts() == 1:
                    break
            assert n.restarts() == 1
        finally:
            await server.stop(None)


# ------------------------------------------------------------ pods by UID and name


@with_skipped_time
async def test_a_pod_is_found_by_its_name(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        assert (await provider.get_pod("shop", "web")).uid == "u-1"
        assert (await provider.get_pod_status("shop", "web")).phase == "Running"
        assert [found.uid for found in await provider.get_pods()] == ["u-1"]
        with pytest.raises(NotFound):
            await provider.get_pod("shop", "other")


@with_skipped_time
async def test_a_new_pod_of_the_same_name_waits_for_the_end_of_the_old(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        n.cri.behaviours["main"].obeys_stop = False
        await n.running(provider)
        await provider.delete_pod(deleted())
        await n.cri.reached("StopContainer")
        await provider.create_pod(record({"uid": "u-2"}))
        await quiet()
        assert len(n.cri.sandboxes) == 1
        assert (await provider.get_pod("shop", "web")).uid == "u-2"
        n.time.skip(31)
        await eventually(lambda: n.phase("u-2") == "Running")
        assert [sandbox.config.metadata.uid for sandbox in n.cri.sandboxes.values()] == ["u-2"]


@with_skipped_time
async def test_a_pod_that_is_deleted_while_it_waits_for_its_name_never_runs(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        n.cri.behaviours["main"].obeys_stop = False
        await n.running(provider)
        await provider.delete_pod(deleted())
        await n.cri.reached("StopContainer")
        await provider.create_pod(record({"uid": "u-2"}))
        await provider.delete_pod(deleted("u-2"))
        n.time.skip(31)
        await eventually(lambda: n.gone("u-2"))
        assert len(n.cri.called("RunPodSandbox")) == 1


@with_skipped_time
async def test_a_manifest_that_is_put_back_with_its_uid_runs_after_the_old_is_gone(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await provider.delete_pod(record())
        await provider.create_pod(record())
        assert n.gone()
        await eventually(lambda: n.phase() == "Running")
        assert [sandbox.ready for sandbox in n.cri.sandboxes.values()] == [True]
        assert len(await provider.get_pods()) == 1


@with_skipped_time
async def test_the_restart_count_of_a_manifest_that_is_put_back_goes_on(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        manifest = PodRecord.decode(record().raw, Origin.FILE)
        await n.running(provider, manifest)
        await provider.delete_pod(manifest)
        await provider.create_pod(manifest)
        await eventually(lambda: n.phase() == "Running" and n.restarts() == 1)


@with_skipped_time
async def test_an_asked_grace_period_counts_more_than_the_specs(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await provider.delete_pod(deleted(grace_s=7))
        await eventually(n.gone)
        assert [request.timeout for request in n.cri.called("StopContainer")] == [7]


@with_skipped_time
async def test_the_status_of_a_gone_pod_leaves_the_record(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await quiet()
        n.time.skip(1)
        await eventually(lambda: "status/u-1" in n.store.rows)
        await provider.delete_pod(deleted())
        await eventually(lambda: not n.cri.sandboxes)
        await quiet()
        n.time.skip(1)
        await eventually(lambda: "status/u-1" not in n.store.rows)


# ------------------------------------------------------------ restarts of the agent, orphans


@with_skipped_time
async def test_an_end_that_was_told_before_a_finalizer_held_the_pod_is_told_as_it_was(tmp_path: Path) -> None:
    end: dict[str, Any] = {
        "exitCode": 3,
        "reason": "Error",
        "finishedAt": "2024-01-01T00:00:10Z",
        "containerID": "containerd://1",
    }
    was = {"name": "main", "image": "busybox", "state": {"terminated": end}, "restartCount": 2}
    held = record(
        {"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "finalizers": ["shop/audit"]},
        {"phase": "Failed", "containerStatuses": [was]},
    )
    async with node(tmp_path) as n, n.agent() as provider:
        await provider.delete_pod(held)
        await eventually(lambda: n.gone())
        told = n.updates[-1].status
        assert (told.phase, told.containerStatuses[0].restartCount) == ("Failed", 2)
        assert told.containerStatuses[0].state.terminated == Terminated(**end)


@with_skipped_time
async def test_pods_are_known_at_once_and_looked_at_once_the_node_is_told(tmp_path: Path) -> None:
    async with node(tmp_path) as lab:
        lab.node_told.clear()
        async with lab.agent() as provider:
            await provider.create_pod(record())
            await quiet()
            assert [one.uid for one in await provider.get_pods()] == ["u-1"]
            assert not lab.updates
            lab.node_told.set()
            await eventually(lambda: lab.phase() == "Running")


async def test_a_restarted_agent_takes_running_pods_over_as_they_are(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider)
        calls = len(n.cri.calls)
        n.updates.clear()
        async with n.agent() as provider:
            assert [found.uid for found in await provider.get_pods()] == ["u-1"]
            await n.running(provider)
            assert len(await provider.get_pods()) == 1
        moves = {"RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "PullImage"}
        assert not moves & {name for name, _ in n.cri.calls[calls:]}


@with_skipped_time
async def test_a_pod_that_nobody_names_is_found_and_can_be_ended(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider)
        n.updates.clear()
        n.events.all.clear()
        async with n.agent() as provider:
            (orphan,) = await provider.get_pods()
            assert (orphan.uid, orphan.pod.full_name) == ("u-1", "shop/web")
            await provider.delete_pod(orphan)
            await eventually(lambda: not n.cri.sandboxes)
            await eventually(lambda: not list((tmp_path / "pods-logs").iterdir()))
            assert set(n.events.reasons) == {"Killing"}
            await quiet()
            n.time.skip(1)
            await eventually(lambda: not [key for key in n.store.rows if not key.startswith("pulled/")])
        assert len(n.cri.called("StopContainer")) == 1


@with_skipped_time
async def test_what_waits_for_a_registry_is_pulled_when_the_network_is_back(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        n.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "dial tcp: connection refused")
        async with n.agent() as provider:
            provider.link_returned()  # before the runtime has answered
            await provider.create_pod(record())
            await eventually(lambda: len(n.cri.called("PullImage")) == 1 and bool(n.events.messages("Failed")))
            provider.link_returned()
            await eventually(lambda: n.phase() == "Running")


KEPT: dict[str, Any] = {"annotations": {"edgelet.io/keep-for": "1h"}}


@with_skipped_time
async def test_a_kept_pod_is_nobodys_orphan_also_after_a_restart_and_goes_when_the_disk_is_short(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider, record(KEPT))
            await provider.delete_pod(deleted(**KEPT))
            await eventually(lambda: n.gone() and not provider._workers)
            assert await provider.get_pods() == ()
            await n.running(provider, record({"uid": "u-2"}))  # its name is free
        async with n.agent() as provider:
            await n.running(provider, record({"uid": "u-2"}))
            provider._found.take_over(await provider._machine.observer.observe_all())
            assert [found.uid for found in await provider.get_pods()] == ["u-2"]
            assert sorted(box.config.metadata.uid for box in n.cri.sandboxes.values()) == ["u-1", "u-2"]
            await provider.reclaim()
            assert [box.config.metadata.uid for box in n.cri.sandboxes.values()] == ["u-2"]
            assert [row for row in n.store.rows if row.startswith("kept/")] == []


@with_skipped_time
async def test_a_manifest_that_is_put_back_is_not_held_up_by_what_is_kept_of_it(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, record(KEPT))
        await provider.delete_pod(deleted(**KEPT))
        await eventually(lambda: n.gone() and not provider._workers)
        await n.running(provider, record(KEPT))
        assert [box.ready for box in n.cri.sandboxes.values()] == [True]
        assert [c.state for c in n.cri.containers.values()] == [pb.CONTAINER_RUNNING]


@with_skipped_time
async def test_what_a_gone_pod_left_on_disk_is_found_and_taken_down(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        folder = provider._context.settings.root_dir / "pods/u-9"
        (folder / "volumes/kubernetes.io~empty-dir/data").mkdir(parents=True)
        (left,) = [found for found in await provider.get_pods() if found.uid != "u-1"]
        assert (left.uid, left.origin) == ("u-9", Origin.FILE)
        await provider.delete_pod(left)
        await eventually(lambda: not folder.exists())
        await eventually(lambda: "u-9" not in provider._workers)
        assert [found.uid for found in await provider.get_pods()] == ["u-1"]
        assert not [call for call in n.cri.calls if call[0] == "StopContainer"]


@with_skipped_time
async def test_what_only_the_runtime_knows_ends_before_a_new_pod_of_its_name_begins(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider)
        async with n.agent() as provider:
            n.cri.calls.clear()
            await n.running(provider, record({"uid": "u-2"}))
            assert [s.config.metadata.uid for s in n.cri.sandboxes.values()] == ["u-2"]
            moved = [name for name, _ in n.cri.calls if name in ("RemovePodSandbox", "RunPodSandbox")]
            assert moved == ["RemovePodSandbox", "RunPodSandbox"]
            assert (await provider.get_pod("shop", "web")).uid == "u-2"


@with_skipped_time
async def test_a_pod_that_ends_while_everything_is_looked_at_is_no_orphan(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        await n.listening()
        observer, read, go_on = provider._machine.observer, asyncio.Event(), asyncio.Event()
        look = observer.observe_all

        async def slow_look() -> Mapping[str, ObservedPod]:
            found = await look()
            read.set()
            await go_on.wait()
            return found

        observer.observe_all = slow_look  # type: ignore[method-assign]
        n.time.skip(31)
        await read.wait()
        await provider.delete_pod(deleted())
        await eventually(lambda: not provider._workers)
        go_on.set()
        await quiet()
        assert await provider.get_pods() == ()


@with_skipped_time
async def test_foreign_sandboxes_are_nobodys_pods(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        meta = pb.PodSandboxMetadata(name="theirs", namespace="default", uid="k-1")
        labels = {"io.kubernetes.pod.uid": "k-1", "io.kubernetes.pod.name": "theirs"}
        request = pb.RunPodSandboxRequest(config=pb.PodSandboxConfig(metadata=meta, labels=labels))
        async with grpc.aio.insecure_channel(n.endpoint) as channel:
            await channel.unary_unary(
                "/runtime.v1.RuntimeService/RunPodSandbox",
                request_serializer=pb.RunPodSandboxRequest.SerializeToString,
                response_deserializer=pb.RunPodSandboxResponse.FromString,
            )(request)
        async with n.agent() as provider:
            assert await provider.get_pods() == ()


# ------------------------------------------------------------ logs and bugs


@with_skipped_time
async def test_logs_of_what_has_not_started_are_refused(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        n.cri.hold("PullImage")
        await provider.create_pod(record())
        await n.cri.reached("PullImage")
        with pytest.raises(Permanent, match=r'container "main" in pod "web" is waiting to start: ContainerCreating'):
            provider.get_container_logs("shop", "web", "main", LogOptions())


@with_skipped_time
async def test_logs_are_read_from_the_runs_file(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        (tmp_path / "pods-logs/shop_web_u-1/main/0.log").write_text("2024-01-01T00:00:00.000000000Z stdout F hello\n")
        read = [part async for part in provider.get_container_logs("shop", "web", "main", LogOptions())]
        assert b"".join(read) == b"hello\n"


@with_skipped_time
async def test_a_bug_in_one_pods_worker_ends_the_agent(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        provider = n.make()
        life = asyncio.ensure_future(provider.run())
        n.objects.error = ValueError("a bug")
        await provider.create_pod(record(volumes=[{"name": "c", "configMap": {"name": "x"}}]))
        await eventually(life.done)
        with pytest.raises(ExceptionGroup) as ended:
            life.result()
        assert ended.group_contains(ValueError, match="a bug")


@with_skipped_time
async def test_a_folder_that_cannot_be_listed_is_an_error_of_the_pod(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await provider.get_pods()
        (tmp_path / "root/pods").rmdir()
        (tmp_path / "root/pods").write_text("not a folder")
        with pytest.raises(Retryable, match="cannot look for the pod's volumes"):
            await provider.create_pod(record())
        (tmp_path / "root/pods").unlink()
        await n.running(provider)


# ------------------------------------------------------------ admission


def asking(uid: str, cpu: str, **spec: Any) -> PodRecord:
    main = {"name": "main", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}
    return record({"uid": uid, "name": uid}, containers=[main], **spec)


@with_skipped_time
async def test_a_pod_that_does_not_fit_fails_and_nothing_of_it_is_made(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, asking("a", "1500m"))
        await provider.create_pod(asking("b", "1"))
        await eventually(lambda: n.phase("b") == "Failed")
        status = n.updates[-1].status
        why = "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        assert (status.reason, status.message) == ("OutOfcpu", f"Pod was rejected: {why}")
        assert n.events.messages("OutOfcpu") == [why]
        assert status.containerStatuses == ()
        assert len(n.cri.sandboxes) == 1


@with_skipped_time
async def test_a_killed_agent_judges_nobody_twice(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider, asking("a", "1500m"))
            await provider.create_pod(asking("b", "1"))
            await eventually(lambda: n.phase("b") == "Failed")
        n.store.rows = {key: row for key, row in n.store.rows.items() if not key.startswith("status/")}
        n.updates.clear()
        async with n.agent() as provider:
            # Now the other one comes first.
            await provider.create_pod(asking("b", "1"))
            await provider.create_pod(asking("a", "1500m"))
            await eventually(lambda: n.phase("a") == "Running" and n.phase("b") == "Failed")
            await provider.delete_pod(deleted("b", name="b"))
            await eventually(lambda: n.gone("b"))
        last = next(u.status for u in reversed(n.updates) if u.record.uid == "b")
        assert (last.phase, last.reason, last.containerStatuses) == ("Failed", "OutOfcpu", ())


@pytest.mark.parametrize("stamped", [True, False])
@with_skipped_time
async def test_a_pod_that_nobody_has_any_more_makes_room_before_it_has_ended(tmp_path: Path, stamped: bool) -> None:
    """Without grace its last state has a moment of deletion, where it was not seen to be deleted it has none."""
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, asking("a", "1500m"))
        ended = n.cri.hold("StopContainer")
        await provider.delete_pod(deleted("a", grace_s=0, name="a") if stamped else asking("a", "1500m"))
        await n.cri.reached("StopContainer")
        assert not n.gone("a")
        await n.running(provider, asking("b", "1500m"))
        ended.set()
        await eventually(lambda: n.gone("a"))


@with_skipped_time
async def test_a_pod_that_ended_makes_room_and_one_that_is_deleted_too(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, asking("a", "1500m", restartPolicy="Never"))
        n.cri.exit(n.cri.container("main").id, 0)
        await eventually(lambda: n.phase("a") == "Succeeded")
        await n.running(provider, asking("b", "1500m"))
        await provider.delete_pod(deleted("b", name="b"))
        await eventually(lambda: n.gone("b"))
        await n.running(provider, asking("c", "1500m"))


@with_skipped_time
async def test_a_critical_pod_takes_the_room_of_another(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, asking("a", "1500m"))
        await n.running(provider, asking("b", "1", priority=2_000_000_000))
        assert n.phase("a") == "Failed"
        last = next(u.status for u in reversed(n.updates) if u.record.uid == "a")
        assert (last.reason, last.message) == ("Preempting", "Preempted in order to admit critical pod")
        disrupted = last.condition("DisruptionTarget")
        assert disrupted is not None
        assert (disrupted.status, disrupted.reason) == ("True", "TerminationByKubelet")
        await provider.delete_pod(deleted("a", name="a"))
        await eventually(lambda: n.gone("a"))
        last = next(u.status for u in reversed(n.updates) if u.record.uid == "a")
        assert last.reason == "Preempting"
        assert last.condition("DisruptionTarget") is not None
        assert n.events.messages("Preempting") == ["Preempted in order to admit critical pod"]


@with_skipped_time
async def test_what_was_decided_of_a_pod_that_nobody_names_any_more_is_forgotten_with_it(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await provider.create_pod(asking("b", "3"))
            await eventually(lambda: n.phase("b") == "Failed")
        async with n.agent() as provider:
            (orphan,) = await provider.get_pods()
            assert orphan.uid == "b"
            await provider.delete_pod(orphan)
            await eventually(lambda: n.gone("b"))
            await eventually(lambda: "admission/b" not in n.store.rows)
            assert await provider.get_pods() == ()
