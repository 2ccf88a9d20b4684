"""Device plugins that register, tell of their devices, go and come again: over real sockets, with the record behind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.config import Settings
from agent.cri._generated import deviceplugin_pb2 as pb
from agent.errors import Permanent, Retryable
from agent.model.devices import DeviceNode
from agent.model.pod import Pod
from agent.model.status import ResourceHealth, ResourceStatus
from agent.node.device_plugins import FOLDER, SOCKET, DevicePlugins, is_extended_resource
from agent.pods.devices.devices import GRACE_S, NAMES, PATIENCE_S, PREFIX, Devices
from agent.store.base import Delete, Put
from tests.fakes.clock import FakeClock
from tests.fakes.device_plugin import RESOURCE, VARIABLE, FakeDevicePlugin, register, serving
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.pods import make_pod


class Disk(MemoryStore):
    full = False

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if self.full:
            raise Retryable("disk full")
        return await super().batch(changes)


@dataclass
class Lab:
    root: Path
    store: Disk = field(default_factory=Disk)
    clock: FakeClock = field(default_factory=FakeClock)
    boot: str = "boot-1"
    changed: list[set[str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    @asynccontextmanager
    async def agent(self, *known: str) -> AsyncIterator[Devices]:
        """An agent's life, which nothing is done at the end of; `known` are pods that are here from before."""
        self.devices = devices = Devices(self.store, self.clock, self.boot, lambda: None)
        devices.listen(lambda uids: self.changed.append(set(uids)))
        await devices.load(set(known))
        self.plugins = DevicePlugins(Settings("edge-1", root_dir=self.root), devices)
        task = asyncio.create_task(self.plugins.run())
        try:
            await eventually((self.folder / SOCKET).exists)
            yield devices
        finally:
            assert not task.done(), task
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def plugin(self, *ids: str, **more: Any) -> AsyncIterator[FakeDevicePlugin]:
        """Registered, and known with its devices."""
        plugin = FakeDevicePlugin(*ids, **more)
        async with serving(plugin, self.folder / "one.sock"):
            await register(plugin, self.folder, "one.sock")
            await eventually(lambda: self.devices.offered().get(plugin.resource, (0, 0)) == (len(ids), len(ids)))
            yield plugin

    @property
    def offered(self) -> tuple[int, int] | None:
        return self.devices.offered().get(RESOURCE)


@pytest.fixture
def lab() -> Any:
    # pytest's own folders are too deep for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="dp-") as root:
        yield Lab(Path(root))


def pod(uid: str, count: int = 1, inits: tuple[dict[str, Any], ...] = (), **limits: Any) -> Pod:
    return make_pod({"uid": uid, "name": uid}, containers=[container("main", count, **limits)], initContainers=inits)


def container(name: str, count: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": {RESOURCE: str(count)}}, **more}


def ids(devices: Devices, uid: str, name: str = "main") -> set[str]:
    return {one.id for grant in devices.grants(uid) if grant.container == name for one in grant.devices}


async def refusal(devices: Devices, wanted: Pod) -> str:
    with pytest.raises(Permanent) as refused:
        await devices.allocate(wanted)
    assert refused.value.reason == "UnexpectedAdmissionError"
    return str(refused.value)


async def test_a_plugin_s_devices_go_to_pods_until_there_are_none(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b") as plugin:
        for uid in ("p", "q"):
            await devices.allocate(pod(uid))
        assert (ids(devices, "p"), ids(devices, "q")) == ({"a"}, {"b"})
        assert await refusal(devices, pod("r")) == (
            f"requested number of devices unavailable for {RESOURCE}. Requested: 1, Available: 0"
        )
        assert devices.grants("r") == ()
        assert [list(call.container_requests[0].devices_ids) for call in plugin.said(pb.AllocateRequest)] == [
            ["a"],
            ["b"],
        ]
        main = pod("p").spec.containers[0]
        settings = await devices.prepare(pod("p"), main)
        assert settings is not None
        assert settings.env == {VARIABLE: "a"}
        assert settings.nodes == (DeviceNode("/dev/a", "/dev/null", "rw"),)
        devices.free("p")
        await devices.allocate(pod("r"))
        assert ids(devices, "r") == {"a"}


async def test_a_pod_that_asks_for_no_device_has_nothing_to_do_with_it(lab: Lab) -> None:
    async with lab.agent() as devices:
        plain = make_pod(containers=[{"name": "main", "image": "i", "resources": {"limits": {"cpu": "1"}}}])
        await devices.allocate(plain)
        await devices.allocate(pod("nobody-has-it"))
        assert await devices.prepare(plain, plain.spec.containers[0]) is None
        assert lab.store.writes == []


async def test_init_containers_hand_their_devices_on_and_sidecars_keep_them(lab: Lab) -> None:
    inits = (container("first", 1), container("beside", 1, restartPolicy="Always"))
    async with lab.agent() as devices, lab.plugin("a", "b"):
        await devices.allocate(pod("p", inits=inits))
        assert ids(devices, "p", "first") == ids(devices, "p", "beside") == {"a"}
        assert ids(devices, "p", "main") == {"b"}


async def test_a_pod_gets_all_that_it_asks_for_or_nothing(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b"):
        both = make_pod({"uid": "p"}, containers=[container("one", 1), container("two", 2)])
        assert "Requested: 2, Available: 1" in await refusal(devices, both)
        await devices.allocate(pod("q", 2))
        assert ids(devices, "q") == {"a", "b"}


async def test_a_device_that_turns_bad_is_not_given_and_its_pod_keeps_it(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b") as plugin:
        await devices.allocate(pod("p"))
        plugin.turn("a", "Unhealthy")
        await eventually(lambda: lab.offered == (2, 1))
        assert lab.changed == [{"p"}]
        assert devices.health("p") == {
            "main": (ResourceStatus(name=RESOURCE, resources=(ResourceHealth(resourceID="a", health="Unhealthy"),)),)
        }
        assert await devices.prepare(pod("p"), pod("p").spec.containers[0]) is not None
        await devices.allocate(pod("q"))
        assert "Requested: 1, Available: 0" in await refusal(devices, pod("r"))
        plugin.turn("a", "Healthy")
        plugin.turn("b", None)
        await eventually(lambda: lab.offered == (1, 1))
        assert devices.health("q")["main"][0].resources[0].health == "Healthy"


async def test_a_plugin_that_goes_leaves_its_pods_alone_and_is_forgotten_in_time(lab: Lab) -> None:
    async with lab.agent() as devices:
        async with lab.plugin("a", "b"):
            await devices.allocate(pod("p"))
        await eventually(lambda: lab.offered == (2, 0))
        assert ids(devices, "p") == {"a"}
        assert await devices.prepare(pod("p"), pod("p").spec.containers[0]) is not None
        assert (await refusal(devices, pod("q"))).startswith("no healthy devices present")
        async with lab.plugin("a", "b"):
            await devices.allocate(pod("q"))
            assert ids(devices, "q") == {"b"}
        await eventually(lambda: lab.offered == (2, 0))
        await lab.clock.advance(GRACE_S + 1)
        assert lab.offered == (0, 0)
        assert await refusal(devices, pod("r")) == f"cannot allocate unregistered device {RESOURCE}"
        devices.free("p")
        devices.free("q")
        assert not devices.counts(RESOURCE)  # from now on the Node's own zero says it


async def test_a_plugin_that_comes_again_takes_the_place_of_the_one_before(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b"):
        newer = FakeDevicePlugin("b", "c", "d")
        async with serving(newer, lab.folder / "two.sock"):
            await register(newer, lab.folder, "two.sock")
            await eventually(lambda: lab.offered == (3, 3))
            await devices.allocate(pod("p", 3))
            assert len(newer.said(pb.AllocateRequest)) == 1


async def test_what_was_given_outlives_the_agent(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b"):
        await devices.allocate(pod("p"))
        await devices.allocate(pod("gone"))
        await eventually(lambda: NAMES in lab.store.rows)
    async with lab.agent("p") as devices:
        assert lab.offered == (0, 0)
        assert ids(devices, "p") == {"a"}
        assert ids(devices, "gone") == set()
        await eventually(lambda: PREFIX + "gone" not in lab.store.rows)
        waiting = asyncio.create_task(devices.allocate(pod("q")))
        async with lab.plugin("a", "b"):
            # It came before the plugin did, which registers anew at each start of the agent.
            await waiting
            assert ids(devices, "q") == {"b"}
            assert "Available: 0" in await refusal(devices, pod("r"))


async def test_nobody_waits_long_for_a_plugin_that_does_not_come_again(lab: Lab) -> None:
    async with lab.agent(), lab.plugin("a"):
        await eventually(lambda: NAMES in lab.store.rows)
    async with lab.agent() as devices:
        await lab.clock.advance(PATIENCE_S)
        assert (await refusal(devices, pod("p"))).startswith("no healthy devices present")


async def test_after_another_boot_the_plugin_makes_a_pod_s_devices_ready_again(lab: Lab) -> None:
    main = pod("p").spec.containers[0]
    async with lab.agent() as devices, lab.plugin("a", "b"):
        await devices.allocate(pod("p"))
    lab.boot = "boot-2"
    async with lab.agent("p") as devices:
        with pytest.raises(Permanent, match=f"waiting for the device plugin of {RESOURCE} to offer a again") as waits:
            await devices.prepare(pod("p"), main)
        assert waits.value.reason == "CreateContainerConfigError"
        lab.changed.clear()
        async with lab.plugin("b", "a") as plugin:
            assert lab.changed == [{"p"}]
            plugin.answer.envs["NEW"] = "1"
            for _ in range(2):
                settings = await devices.prepare(pod("p"), main)
                assert settings is not None
                assert settings.env == {VARIABLE: "a", "NEW": "1"}
            assert len(plugin.said(pb.AllocateRequest)) == 1


async def test_a_pod_that_ran_without_a_record_gets_devices_with_its_next_container(lab: Lab) -> None:
    async with lab.agent("p") as devices, lab.plugin("a"):
        assert await devices.prepare(pod("p"), pod("p").spec.containers[0]) is not None
        assert PREFIX + "p" in lab.store.rows


async def test_a_plugin_is_asked_what_it_would_rather_give_and_told_before_each_start(lab: Lab) -> None:
    options = pb.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)
    async with lab.agent() as devices, lab.plugin("a", "b", "c", options=options) as plugin:
        plugin.preferred = ["c", "b"]
        await devices.allocate(pod("p", 2))
        assert ids(devices, "p") == {"b", "c"}
        [asked] = plugin.said(pb.PreferredAllocationRequest)
        [one] = asked.container_requests
        assert (list(one.available_deviceIDs), list(one.must_include_deviceIDs), one.allocation_size) == (
            ["a", "b", "c"],
            [],
            2,
        )
        assert plugin.said(pb.PreStartContainerRequest) == []
        await devices.prepare(pod("p", 2), pod("p", 2).spec.containers[0])
        [started] = plugin.said(pb.PreStartContainerRequest)
        assert list(started.devices_ids) == ["b", "c"]
        plugin.failures["PreStartContainer"] = (grpc.StatusCode.INTERNAL, "reset failed")
        with pytest.raises(Permanent) as failed:
            await devices.prepare(pod("p", 2), pod("p", 2).spec.containers[0])
        assert str(failed.value) == (
            "device plugin PreStartContainer rpc failed with err: rpc error: code = Internal desc = reset failed"
        )


async def test_a_plugin_that_refuses_gives_nothing_and_holds_nothing(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a") as plugin:
        plugin.failures["Allocate"] = (grpc.StatusCode.UNKNOWN, "it is broken")
        assert await refusal(devices, pod("p")) == "rpc error: code = Unknown desc = it is broken"
        plugin.failures.clear()
        await devices.allocate(pod("q"))


async def test_two_pods_at_once_never_get_the_same_device_and_a_slow_plugin_stops_no_other(lab: Lab) -> None:
    options = pb.DevicePluginOptions(get_preferred_allocation_available=True)
    async with lab.agent() as devices, lab.plugin("a", "b", options=options) as plugin:
        plugin.preferred = ["a"]
        plugin.held["Allocate"] = asyncio.Event()
        both = [asyncio.create_task(devices.allocate(pod(uid))) for uid in ("p", "q")]
        await eventually(lambda: len(plugin.said(pb.AllocateRequest)) == 2)
        other = FakeDevicePlugin("x", resource="example.com/other")
        async with serving(other, lab.folder / "other.sock"):
            await register(other, lab.folder, "other.sock")
            await eventually(lambda: devices.offered().get("example.com/other") == (1, 1))
            limits = {"limits": {"example.com/other": 1}}
            await devices.allocate(make_pod({"uid": "s"}, containers=[{"name": "main", "resources": limits}]))
        third = asyncio.create_task(devices.allocate(pod("r")))
        with pytest.raises(Permanent, match="Available: 0"):
            await third
        plugin.held["Allocate"].set()
        await asyncio.gather(*both)
        assert ids(devices, "p") | ids(devices, "q") == {"a", "b"}


async def test_a_pod_that_is_told_to_end_meanwhile_leaves_its_devices_to_others(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a") as plugin:
        plugin.held["Allocate"] = asyncio.Event()
        begun = asyncio.create_task(devices.allocate(pod("p")))
        await eventually(lambda: plugin.said(pb.AllocateRequest))
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
        plugin.held.clear()
        await devices.allocate(pod("q"))
        assert ids(devices, "q") == {"a"}


async def test_a_grant_that_cannot_be_recorded_is_none(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a"):
        lab.store.full = True
        with pytest.raises(Retryable, match="disk full"):
            await devices.allocate(pod("p"))
        lab.store.full = False
        await devices.allocate(pod("q"))
        assert ids(devices, "q") == {"a"}


async def test_numa_nodes_stay_with_a_device(lab: Lab) -> None:
    async with lab.agent() as devices, lab.plugin("a", "b", numa={"a": 1}):
        await devices.allocate(pod("p", 2))
        assert {one.id: one.numa for one in devices.grants("p")[0].devices} == {"a": (1,), "b": ()}


@pytest.mark.parametrize(
    ("resource", "version", "said"),
    [
        (RESOURCE, "v1alpha1", 'requested API version "v1alpha1" is not supported by kubelet'),
        ("widget", "v1beta1", 'the ResourceName "widget" is invalid'),
        ("kubernetes.io/widget", "v1beta1", "is invalid"),
        (RESOURCE, "v1beta1", "failed to get device plugin options: rpc error: code = Unavailable"),
    ],
)
async def test_a_plugin_that_can_t_be_taken_hears_why(lab: Lab, resource: str, version: str, said: str) -> None:
    async with lab.agent() as devices:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await register(FakeDevicePlugin(resource=resource), lab.folder, "nobody.sock", version)
        assert said in (refused.value.details() or "")
        assert refused.value.code() is grpc.StatusCode.UNKNOWN
        assert devices.offered() == {}


async def test_sockets_of_before_are_removed_at_the_start_and_files_stay(lab: Lab) -> None:
    lab.folder.mkdir()
    for name in ("stale.sock", SOCKET):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(lab.folder / name))
    (lab.folder / "notes").touch()
    before = (lab.folder / SOCKET).stat().st_ino, (lab.folder / SOCKET).stat().st_ctime_ns
    async with lab.agent():
        await eventually(lambda: not (lab.folder / "stale.sock").exists())
        await eventually((lab.folder / SOCKET).exists)
        now = (lab.folder / SOCKET).stat()
        assert (now.st_ino, now.st_ctime_ns) != before
        assert (lab.folder / "notes").exists()


async def test_a_folder_that_is_too_deep_for_a_socket_is_said_and_stops_nothing(lab: Lab) -> None:
    deep = lab.root / ("x" * 120)
    plugins = DevicePlugins(
        Settings("edge-1", root_dir=lab.root, device_plugin_dir=deep),
        Devices(lab.store, lab.clock, "", lambda: None),
    )
    task = asyncio.create_task(plugins.run())
    await eventually(deep.is_dir)
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("example.com/widget", True),
        ("nvidia.com/gpu.shared", True),
        ("a/b", True),
        ("widget", False),
        ("node.kubernetes.io/widget", False),
        ("requests.example.com/widget", False),
        ("Example.com/widget", False),
        ("example.com/", False),
        ("example.com/a/b", False),
        ("example.com/" + "x" * 64, False),
        ("x" * 245 + "/w", False),
    ],
)
def test_which_names_a_plugin_may_give(name: str, good: bool) -> None:
    assert is_extended_resource(name) is good


def test_nothing_of_the_api_is_loaded_before_a_plugin_comes() -> None:
    code = "import sys, agent.run; sys.exit(any('deviceplugin_pb2' in name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0
