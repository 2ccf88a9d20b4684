"""Drivers that come, go, come again or are none: over real sockets, against an API server that keeps objects."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.config import Settings
from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.model.csi import DriverNode
from agent.node.csi_node import NODE_ID_ANNOTATION, CsiNode
from agent.node.device_plugins import DevicePlugins
from agent.node.plugins import FOLDER, Plugins
from agent.pods.devices.devices import Devices
from tests.fakes.apiserver import FakeApiServer, running_api_server
from tests.fakes.clock import FakeClock
from tests.fakes.csi import TOPOLOGY, FakeDriver, driving
from tests.fakes.device_plugin import RESOURCE, FakeDevicePlugin, serving
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S

STORAGE = "/apis/storage.k8s.io/v1"
DRIVER = "hostpath.csi.k8s.io"


@dataclass
class Lab:
    server: FakeApiServer
    api: Api
    root: Path
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.make()

    def make(self) -> Plugins:
        self.plugins = Plugins(self.root, CsiNode(self.api, "edge-1", lambda: str(self.node["metadata"]["uid"])))
        self.plugins.listen(lambda: self.heard.append("changed"))
        return self.plugins

    @asynccontextmanager
    async def running(self, *, registered: bool = True) -> AsyncIterator[Plugins]:
        if registered:
            self.plugins.node_registered()
        task = asyncio.create_task(self.plugins.run())
        try:
            await self.until((self.root / FOLDER).is_dir)
            yield self.plugins
        finally:
            assert not task.done(), task
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110  what holds is on the other side of a socket
                await asyncio.sleep(0.005)

    def driver(self, **more: Any) -> FakeDriver:
        return FakeDriver(self.root / "volumes", **more)

    @property
    def registry(self) -> Path:
        return self.root / FOLDER

    @property
    def node(self) -> dict[str, Any]:
        return self.server.get("nodes", "edge-1") or {}

    @property
    def csi_node(self) -> dict[str, Any] | None:
        return self.server.get("csinodes", "edge-1", "", STORAGE)

    @property
    def drivers(self) -> list[dict[str, Any]]:
        return list((self.csi_node or {"spec": {"drivers": []}})["spec"]["drivers"])

    @property
    def node_ids(self) -> dict[str, str]:
        text = self.node["metadata"].get("annotations", {}).get(NODE_ID_ANNOTATION, "{}")
        return dict(json.loads(text))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_api_server())
        server.put("nodes", "edge-1", metadata={"name": "edge-1", "labels": {"zone": "a"}})
        api = Api(await Credentials.load(server.kubeconfig(tmp_path)))
        stack.push_async_callback(api.close)
        # pytest's own folders are too deep for the path of a socket.
        yield Lab(server, api, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="csi-"))))


async def test_a_driver_that_opens_its_socket_is_known_and_told_of(lab: Lab) -> None:
    driver = lab.driver(max_volumes=5)
    async with lab.running() as plugins, driving(driver, lab.registry):
        await lab.until(lambda: driver.told)
        assert [(status.plugin_registered, status.error) for status in driver.told] == [(True, "")]
        assert plugins.find(DRIVER) is not None
        assert plugins.find("other") is None
        await lab.until(lambda: lab.drivers and TOPOLOGY in lab.node["metadata"]["labels"])
        assert lab.heard == ["changed"]
        assert lab.csi_node is not None
        assert lab.csi_node["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": lab.node["metadata"]["uid"]}
        ]
        assert lab.drivers == [
            {"name": DRIVER, "nodeID": "csi-node-1", "topologyKeys": [TOPOLOGY], "allocatable": {"count": 5}}
        ]
        assert lab.node_ids == {DRIVER: "csi-node-1"}
        assert lab.node["metadata"]["labels"] == {"zone": "a", TOPOLOGY: "csi-node-1"}


async def test_a_driver_whose_socket_goes_is_forgotten_and_its_label_stays(lab: Lab) -> None:
    driver, other = lab.driver(), lab.driver(name="other.csi")
    other.topology = {}
    async with lab.running() as plugins, driving(other, lab.registry):
        await lab.until(lambda: other.told)
        async with driving(driver, lab.registry):
            await lab.until(lambda: driver.told)
            assert {one["name"] for one in lab.drivers} == {DRIVER, "other.csi"}
        await lab.until(lambda: plugins.find(DRIVER) is None and DRIVER not in lab.node_ids)
        assert [one["name"] for one in lab.drivers] == ["other.csi"]
        assert lab.node_ids == {"other.csi": "csi-node-1"}
        assert lab.node["metadata"]["labels"][TOPOLOGY] == "csi-node-1"


async def test_a_plugin_that_was_replaced_is_asked_again(lab: Lab) -> None:
    async with lab.running():
        async with driving(lab.driver(), lab.registry):
            await lab.until(lambda: lab.drivers)
        newer = lab.driver(node_id="csi-node-2")
        newer.topology = {}
        async with driving(newer, lab.registry):
            await lab.until(lambda: newer.told)
            assert [one["nodeID"] for one in lab.drivers] == ["csi-node-2"]
            assert lab.node_ids == {DRIVER: "csi-node-2"}


async def test_after_a_restart_of_the_agent_every_plugin_is_asked_again_and_nothing_is_written_twice(lab: Lab) -> None:
    driver = lab.driver()
    async with AsyncExitStack() as stack:
        async with lab.running():
            await stack.enter_async_context(driving(driver, lab.registry))
            await lab.until(lambda: len(driver.told) == 1)
        before = len([request for request in lab.server.requests if request.method != "GET"])
        lab.make()
        async with lab.running() as plugins:
            await lab.until(lambda: len(driver.told) == 2)
            assert plugins.find(DRIVER) is not None
        assert len([request for request in lab.server.requests if request.method != "GET"]) == before


async def test_a_changed_node_id_replaces_the_entry_that_the_api_server_lets_nobody_change(lab: Lab) -> None:
    csi = CsiNode(lab.api, "edge-1", lambda: str(lab.node["metadata"]["uid"]))
    await csi.install("d", DriverNode("one"))
    await csi.install("d", DriverNode("two", 3))
    assert lab.drivers == [{"name": "d", "nodeID": "two", "topologyKeys": [], "allocatable": {"count": 3}}]
    written = [request.body["spec"]["drivers"] for request in lab.server.seen("PUT", "csinodes")]
    assert [[one["nodeID"] for one in drivers] for drivers in written] == [[], ["two"]]


async def test_a_node_that_was_made_anew_gets_its_drivers_back(lab: Lab) -> None:
    driver = lab.driver()
    async with lab.running() as plugins, driving(driver, lab.registry):
        await lab.until(lambda: driver.told)
        lab.server.remove("nodes", "edge-1", "")
        made = lab.server.put("nodes", "edge-1", metadata={"name": "edge-1"})
        plugins.node_registered()
        uid = made["metadata"]["uid"]
        await lab.until(lambda: lab.csi_node and lab.csi_node["metadata"]["ownerReferences"][0]["uid"] == uid)
        assert [one["name"] for one in lab.drivers] == [DRIVER]
        assert lab.node_ids == {DRIVER: "csi-node-1"}


async def test_pods_may_use_a_driver_before_the_api_server_knows_of_it(lab: Lab) -> None:
    driver = lab.driver()
    async with lab.running(registered=False) as plugins, driving(driver, lab.registry):
        await lab.until(lambda: plugins.find(DRIVER))
        assert driver.told == []
        assert lab.csi_node is None
        plugins.node_registered()
        await lab.until(lambda: driver.told)
        assert lab.drivers


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "DevicePlugin"}, "no handler registered for plugin type: DevicePlugin"),
        ({"type": "DevicePlugin"}, "device plugins are not supported by this node's provider"),
        ({"type": "Unheard"}, "no handler registered for plugin type: Unheard"),
        ({"versions": ["2.0", "0.3"]}, "None of the versions specified ['2.0', '0.3'] are supported"),
        ({"versions": []}, "None of the versions"),
        ({"name": "../../etc"}, "no name of a driver"),
        ({"node_id": ""}, "names no node id"),
        ({"topology": {"zone": "b"}}, 'driver reported "zone":"b" but existing label is "zone":"a"'),
    ],
)
async def test_what_is_no_driver_for_this_node_hears_why(lab: Lab, change: dict[str, Any], said: str) -> None:
    driver = lab.driver()
    for name, value in change.items():
        setattr(driver, name, value)
    async with lab.running() as plugins, driving(driver, lab.registry, "some-reg.sock"):
        await lab.until(lambda: driver.told)
        assert driver.told[0].plugin_registered is False
        assert said in driver.told[0].error
        assert plugins.find(driver.name) is None
    assert lab.drivers == []


async def test_the_second_driver_of_a_name_is_refused(lab: Lab) -> None:
    first, second = lab.driver(), lab.driver(node_id="csi-node-2")
    async with lab.running(), driving(first, lab.registry):
        await lab.until(lambda: first.told)
        async with driving(second, lab.registry, "second.sock"):
            await lab.until(lambda: second.told)
    assert "already registered" in second.told[0].error
    assert first.told[0].plugin_registered


async def test_a_driver_that_is_not_ready_yet_is_asked_until_it_is(lab: Lab) -> None:
    driver = lab.driver()
    driver.failures["NodeGetInfo"] = (grpc.StatusCode.UNAVAILABLE, "starting")
    async with lab.running() as plugins, driving(driver, lab.registry):
        await lab.until(lambda: driver.told)
        assert "code = Unavailable desc = starting" in driver.told[0].error
        assert plugins.find(DRIVER) is None
        driver.failures.clear()
        await lab.until(lambda: driver.told[-1].plugin_registered)
        assert plugins.find(DRIVER) is not None


async def test_files_and_hidden_sockets_are_no_plugins(lab: Lab) -> None:
    driver = lab.driver(name=".hidden")
    async with lab.running() as plugins:
        (lab.registry / "plain").touch()
        async with driving(driver, lab.registry):
            await asyncio.sleep(0.05)
    assert driver.told == []
    assert plugins.find(".hidden") is None


def test_an_agent_without_plugins_does_not_load_what_speaks_to_them() -> None:
    script = (
        "import agent.run, agent.providers.containerd, sys;"
        "print([m for m in sys.modules if 'csi_pb2' in m or 'registration_pb2' in m or m.startswith('agent.csi.')])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


async def test_a_device_plugin_that_opens_a_socket_is_handed_on_and_goes_with_it(lab: Lab) -> None:
    devices = Devices(MemoryStore(), FakeClock(), "boot-1", lambda: None)
    handed = DevicePlugins(Settings("edge-1", root_dir=lab.root), devices)
    lab.plugins = Plugins(lab.root, CsiNode(lab.api, "edge-1", lambda: ""), handed)
    plugin = FakeDevicePlugin("a", "b")
    task = asyncio.create_task(handed.run())
    async with lab.running(registered=False):
        async with serving(plugin, lab.registry / "widgets-reg.sock"):
            await lab.until(lambda: plugin.told)
            assert [(status.plugin_registered, status.error) for status in plugin.told] == [(True, "")]
            await lab.until(lambda: devices.offered() == {RESOURCE: (2, 2)})
        await lab.until(lambda: devices.offered() == {RESOURCE: (2, 0)})
        plugin.told.clear()
        plugin.versions = ["v1alpha1"]
        async with serving(plugin, lab.registry / "widgets-reg.sock"):
            await lab.until(lambda: plugin.told)
            assert "v1beta1, is not among plugin supported versions [v1alpha1]" in plugin.told[0].error
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
