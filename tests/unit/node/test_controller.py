from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent.errors import Retryable
from agent.kube.credentials import Credentials
from agent.kube.rest import PROTOBUF, Api
from agent.node.attached import AttachedVolumes
from agent.node.controller import NodeController
from agent.node.ports import RuntimeCondition
from agent.node.pressure import Pressure
from tests.fakes.apiserver import FakeApiServer, Request, running_api_server
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually
from tests.unit.node.machine import FACTS, HEALTH, SETTINGS, FakeEvents, FakeRuntime

LEASES = "/apis/coordination.k8s.io/v1"
RENEWED_S = 21
"""After so long the lease is renewed."""


class Lab:
    """A controller against a fake API server, with time held still."""

    def __init__(self, server: FakeApiServer, api: Api) -> None:
        self.server = server
        self.api = api
        self.clock = FakeClock()
        self.runtime = FakeRuntime()
        self.events = FakeEvents()
        self.facts = FACTS
        self.pressure = Pressure()
        self.settings = SETTINGS
        self.controller = self.make()

    def make(self, configure: Any = None, **more: Any) -> NodeController:
        self.controller = NodeController(
            self.api,
            self.settings,
            self.runtime,
            self.events,
            self.clock,
            configure=configure,
            **more,
            read_machine=lambda _: self.facts,
            pressure=lambda: self.pressure,
        )
        return self.controller

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.controller.run())
        try:
            yield
        finally:
            assert not task.done(), task
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], object]) -> None:
        """Real time passes here only as long as loopback needs."""
        await eventually(holds)

    async def quiet(self) -> None:
        """Long enough for whatever was woken to be done with it: counted in turns, for a busy machine is late."""
        for _ in range(15):
            await asyncio.sleep(0.001)

    @property
    def node(self) -> dict[str, Any]:
        return self.server.get("nodes", "edge-1") or {}

    @property
    def ready(self) -> tuple[str, str, str]:
        found = [one for one in self.node.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    @property
    def lease(self) -> dict[str, Any]:
        return self.server.get("leases", "edge-1", "kube-node-lease", LEASES) or {}

    @property
    def renewals(self) -> list[Request]:
        return self.server.seen("PATCH", "/leases/edge-1")

    @property
    def reports(self) -> int:
        return len(self.server.seen("PATCH", "/api/v1/nodes/edge-1/status"))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running_api_server() as server:
        api = Api(await Credentials.load(server.kubeconfig(tmp_path)))
        try:
            yield Lab(server, api)
        finally:
            await api.close()


async def test_a_new_node_is_made_ready_with_one_request(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    assert lab.ready[0] == "True"
    assert lab.node["metadata"]["labels"]["kubernetes.io/hostname"] == "edge-1"
    assert lab.node["metadata"]["annotations"] == {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    assert lab.node["status"]["capacity"]["cpu"] == "4"
    assert lab.node["status"]["images"][0]["sizeBytes"] == 4_000_000
    assert len(lab.server.seen("POST", "/api/v1/nodes")) == 1
    assert lab.reports == 0
    assert lab.events.reasons[:1] == ["Starting"]
    assert "NodeReady" in lab.events.reasons


async def test_a_node_of_before_keeps_what_others_gave_it(lab: Lab) -> None:
    gone = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "no word"}
    lab.server.put(
        "nodes",
        "edge-1",
        metadata={"labels": {"team": "blue", "site": "old"}, "annotations": {"ttl": "0"}},
        spec={"unschedulable": True, "taints": [{"key": "t", "effect": "NoSchedule"}]},
        status={
            "capacity": {"example.com/gpu": "2", "cpu": "1"},
            "conditions": [{"type": "NetworkUnavailable", "status": "False"}, gone],
            "addresses": [{"type": "InternalIP", "address": "10.9.9.9"}, {"type": "ExternalIP", "address": "1.2.3.4"}],
        },
    )
    lab.settings = replace(SETTINGS, node_labels={"site": "new"})
    lab.make()
    async with lab.running():
        await lab.until(lambda: lab.ready[0] == "True")
    labels = lab.node["metadata"]["labels"]
    assert (labels["team"], labels["site"], labels["kubernetes.io/arch"]) == ("blue", "new", "arm64")
    assert lab.node["metadata"]["annotations"]["ttl"] == "0"
    assert lab.node["spec"] == {"unschedulable": True, "taints": [{"key": "t", "effect": "NoSchedule"}]}
    assert lab.node["status"]["capacity"]["example.com/gpu"] == "2"
    assert lab.node["status"]["capacity"]["cpu"] == "4"
    assert "NetworkUnavailable" in [one["type"] for one in lab.node["status"]["conditions"]]
    assert [one["type"] for one in lab.node["status"]["addresses"]] == ["InternalIP", "Hostname"]
    assert lab.server.seen("POST", "/api/v1/nodes") == []


async def test_labels_that_are_right_already_cost_no_request(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    lab.make()
    async with lab.running():
        await lab.until(lambda: lab.reports == 1)
    assert [request.path for request in lab.server.seen("PATCH")] == ["/api/v1/nodes/edge-1/status"]


async def test_a_runtime_that_goes_away_shows_at_once_and_its_return_too(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.ready[0] == "True")
        lab.runtime.error = Retryable("connection refused")
        lab.controller.poke()
        await lab.until(lambda: lab.ready[0] == "False")
        assert lab.ready[1:] == ("KubeletNotReady", "container runtime is down: connection refused")
        assert lab.node["status"]["nodeInfo"]["containerRuntimeVersion"] == "containerd://2.1.4"
        assert lab.node["status"]["images"]
        lab.runtime.error = None
        lab.controller.poke()
        await lab.until(lambda: lab.ready[0] == "True")
        # Told after the status was taken, so a moment after the status itself is seen.
        told = ["NodeReady", "NodeNotReady", "NodeReady"]
        await lab.until(lambda: [reason for reason in lab.events.reasons if "Ready" in reason] == told)


async def test_an_agent_that_starts_again_does_not_turn_its_node_not_ready_while_it_connects(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    since = [one["lastTransitionTime"] for one in lab.node["status"]["conditions"]]
    lab.runtime.error = Retryable("has not answered yet")
    lab.make()
    async with lab.running():
        await lab.quiet()
        assert lab.reports == 0
        lab.runtime.error = None
        await lab.clock.advance(1)
        lab.controller.poke()
        await lab.until(lambda: lab.reports == 1)
    assert lab.ready[0] == "True"
    assert [one["lastTransitionTime"] for one in lab.node["status"]["conditions"]] == since


async def test_a_runtime_that_is_down_from_the_start_is_told_after_a_moment_and_the_images_of_before_stay(
    lab: Lab,
) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    lab.runtime.error = Retryable("no socket")
    lab.make()
    async with lab.running():
        await lab.clock.advance(1.5)
        await lab.until(lambda: lab.ready[0] == "False")
    assert lab.node["status"]["images"][0]["sizeBytes"] == 4_000_000


async def test_without_a_poke_a_change_is_seen_within_ten_seconds(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.ready[0] == "True")
        lab.runtime.now = replace(HEALTH, network=RuntimeCondition(False, "NetworkPluginNotReady", "no cni"))
        lab.pressure = Pressure(disk=True)
        await lab.clock.advance(10)
        await lab.until(lambda: lab.ready[0] == "False")
        await lab.until(lambda: "NodeHasDiskPressure" in lab.events.reasons)  # told once the answer has come


async def test_an_unchanged_status_is_sent_after_five_minutes_to_seven_and_a_half_only(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        before = lab.reports
        for _ in range(29):
            await lab.clock.advance(10)
            await lab.quiet()
        assert lab.reports == before
        for _ in range(16):
            await lab.clock.advance(10)
            await lab.quiet()
        await lab.until(lambda: lab.reports == before + 1)
        [heartbeat] = {one["lastHeartbeatTime"] for one in lab.node["status"]["conditions"]}
        assert "2023-11-14T22:18:20Z" <= heartbeat <= "2023-11-14T22:21:00Z"


async def test_a_deleted_node_is_made_again_at_once(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.server.open_watches == 1)
        first = lab.node["metadata"]["uid"]
        lab.server.remove("nodes", "edge-1", "")
        await lab.until(lambda: lab.node)
        assert lab.node["metadata"]["uid"] != first
        assert lab.ready[0] == "True"
        await lab.until(lambda: lab.lease["metadata"]["ownerReferences"][0]["uid"] == lab.node["metadata"]["uid"])


async def test_a_node_deleted_while_nobody_watched_is_made_again_with_the_next_report(lab: Lab) -> None:
    lab.server.fail(500, times=-1, matches=lambda request: request.path == "/api/v1/nodes" and request.method == "GET")
    async with lab.running():
        await lab.until(lambda: lab.lease)
        lab.server.remove("nodes", "edge-1", "")
        lab.runtime.now = replace(HEALTH, version="2.1.5")
        lab.controller.poke()
        await lab.until(lambda: lab.node)
    assert lab.ready[0] == "True"


async def test_a_controller_that_gave_the_node_up_is_put_right(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.server.open_watches == 1)
        status = json.loads(json.dumps(lab.node["status"]))
        status["conditions"][3] |= {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "no word"}
        lab.server.put("nodes", "edge-1", status=status)
        await lab.until(lambda: lab.ready[:2] == ("True", "KubeletReady"))


async def test_an_api_server_that_is_away_is_asked_until_it_is_back(lab: Lab) -> None:
    lab.server.fail(503, times=3)
    async with lab.running():
        for _ in range(30):
            await lab.quiet()
            await lab.clock.advance(1)
            if lab.node:
                break
        await lab.until(lambda: lab.lease)
    assert lab.ready[0] == "True"


async def test_the_lease_is_held_by_the_node_and_renewed_when_half_of_it_is_over(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        assert lab.lease["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": lab.node["metadata"]["uid"]}
        ]
        spec = lab.lease["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("edge-1", 40)
        assert spec["renewTime"] == "2023-11-14T22:13:20.000000Z"
        await lab.clock.advance(19)
        await lab.quiet()
        assert lab.renewals == []
        await lab.clock.advance(RENEWED_S - 19)
        await lab.until(lambda: lab.lease["spec"]["renewTime"] > "2023-11-14T22:13:39")
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: lab.lease["spec"]["renewTime"] > "2023-11-14T22:13:59")
        assert len(lab.renewals) == 2
        assert len(lab.server.seen("GET", "/leases/edge-1")) == 1
        assert lab.server.seen("PUT", "/leases/edge-1") == []


async def test_a_renewal_sends_and_asks_for_little(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: len(lab.renewals) == 1)
        await lab.quiet()
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: len(lab.renewals) == 2)
    first, second = lab.renewals
    assert first.accept == second.accept == PROTOBUF
    assert first.body["metadata"] == {"managedFields": [{}]}
    assert second.body == {"spec": {"renewTime": lab.lease["spec"]["renewTime"]}}


async def test_a_lease_of_another_duration_is_renewed_when_half_of_that_is_over(lab: Lab) -> None:
    lab.settings = replace(SETTINGS, node_lease_duration=12)
    lab.make()
    async with lab.running():
        await lab.until(lambda: lab.lease)
        assert lab.lease["spec"]["leaseDurationSeconds"] == 12
        await lab.clock.advance(6.3)
        await lab.until(lambda: lab.lease["spec"]["renewTime"] > "2023-11-14T22:13:25")


async def test_after_a_renewal_that_failed_the_lease_is_renewed_at_each_quarter_for_ten_minutes(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        lab.server.fail(503, matches=lambda request: request.method == "PATCH")
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: lab.renewals)
        await lab.clock.advance(0.3)
        await lab.until(lambda: len(lab.renewals) == 2)
        await lab.quiet()
        await lab.clock.advance(10.5)
        await lab.until(lambda: len(lab.renewals) == 3)
        await lab.quiet()
        await lab.clock.advance(600)
        await lab.quiet()
        before = len(lab.renewals)
        for _ in range(4):
            await lab.clock.advance(10.3)
            await lab.quiet()
        assert len(lab.renewals) - before in (2, 3)


async def test_after_a_link_that_failed_before_there_was_a_node_the_lease_is_renewed_at_each_quarter(lab: Lab) -> None:
    lab.server.fail(503, times=1, matches=lambda request: request.method == "POST" and request.path.endswith("/nodes"))
    async with lab.running():
        await lab.until(lambda: lab.server.requests)
        await lab.quiet()
        assert not lab.lease
        lab.api.link.lost()
        await lab.clock.advance(2)
        await lab.until(lambda: lab.lease)
        await lab.clock.advance(10.5)
        await lab.until(lambda: len(lab.renewals) == 1)


async def test_a_lease_changed_or_deleted_by_others_is_taken_again(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        lab.server.put("leases", "edge-1", "kube-node-lease", LEASES, spec={"holderIdentity": "thief"})
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: lab.lease["spec"]["holderIdentity"] == "edge-1")
        lab.server.remove("leases", "edge-1", "kube-node-lease", LEASES)
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: lab.lease)


async def test_a_renewal_that_failed_is_tried_again_within_a_second(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        lab.server.fail(503, matches=lambda request: request.method == "PATCH")
        await lab.clock.advance(RENEWED_S)
        await lab.until(lambda: lab.server.seen("PATCH", "/leases/"))
        await lab.quiet()
        await lab.clock.advance(0.3)
        await lab.until(lambda: lab.lease["spec"]["renewTime"] > "2023-11-14T22:13:39")


async def test_a_stop_is_told_on_the_node_and_the_next_start_takes_it_back(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    await lab.controller.leave("stopped for an upgrade")
    assert lab.ready == ("True", "AgentStopped", "stopped for an upgrade")
    assert lab.events.recorded[-1][1:] == ("Normal", "AgentStopping", "stopped for an upgrade")
    assert lab.events.recorded[-1][0].uid == lab.node["metadata"]["uid"]
    lab.make()
    async with lab.running():
        await lab.until(lambda: lab.ready[:2] == ("True", "KubeletReady"))


async def test_leaving_without_an_api_server_is_quick_and_quiet(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    await lab.server.stop()
    await lab.controller.leave()


async def test_a_reboot_is_told_once(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
    lab.facts = replace(FACTS, boot_id="boot-2")
    for _ in range(2):
        lab.make()
        reports = lab.reports
        async with lab.running():
            await lab.until(lambda: lab.reports > reports)  # noqa: B023
    assert lab.events.reasons.count("Rebooted") == 1


async def test_a_provider_may_change_the_node_before_it_is_sent(lab: Lab) -> None:
    async def configure(node: dict[str, Any]) -> None:
        node["status"]["capacity"]["example.com/lamp"] = "3"
        node["metadata"]["labels"]["type"] = "virtual"

    lab.make(configure)
    async with lab.running():
        await lab.until(lambda: lab.lease)
    assert lab.node["status"]["capacity"]["example.com/lamp"] == "3"
    assert lab.node["metadata"]["labels"]["type"] == "virtual"


async def test_volumes_in_use_are_reported_before_a_mount_and_those_attached_are_heard_of(lab: Lab) -> None:
    name = "kubernetes.io/csi/driver^v-1"
    volumes = AttachedVolumes()
    volumes.found(())
    registered: list[str] = []
    lab.make(attached=volumes, on_registered=lambda: registered.append(lab.controller.uid))
    async with lab.running():
        await lab.until(lambda: lab.reports or lab.node.get("status"))
        assert "volumesInUse" not in lab.node["status"]
        volumes.use(name)
        waits = asyncio.ensure_future(volumes.attached(name, 5))
        await lab.until(lambda: lab.node["status"].get("volumesInUse") == [name])
        status = {**lab.node["status"], "volumesAttached": [{"name": name, "devicePath": ""}]}
        lab.server.put("nodes", "edge-1", status=status)
        await waits
        volumes.release(name)
        await lab.until(lambda: lab.node["status"].get("volumesInUse") == [])
        assert lab.node["status"]["volumesAttached"] == [{"name": name, "devicePath": ""}]
    assert registered == [lab.node["metadata"]["uid"]]


async def test_a_cordon_and_its_end_are_events_of_the_node(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: lab.lease)
        for cordoned, reason in ((True, "NodeNotSchedulable"), (False, "NodeSchedulable")):
            lab.server.put("nodes", "edge-1", spec={"unschedulable": cordoned})
            await lab.until(lambda: reason in lab.events.reasons)  # noqa: B023
    assert lab.events.reasons.count("NodeSchedulable") == 1


async def test_the_first_word_is_over_once_the_node_is_told(lab: Lab) -> None:
    async with lab.running():
        await lab.controller.first_word()
        assert lab.ready[0] == "True"


async def test_an_api_server_that_is_away_ends_the_first_word_at_once(lab: Lab) -> None:
    lab.server.fail(503, times=1)
    async with lab.running():
        await lab.controller.first_word()
        assert not lab.node


async def test_a_runtime_that_is_not_there_ends_the_first_word_after_half_a_second(lab: Lab) -> None:
    lab.runtime.error = Retryable("no socket")
    async with lab.running():
        waiting = asyncio.ensure_future(lab.controller.first_word())
        await lab.quiet()
        assert not waiting.done()
        await lab.clock.advance(0.5)
        await waiting
        assert lab.ready == ("", "", "")
