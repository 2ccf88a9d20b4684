"""Devices of device plugins: given to pods, kept over the ends of agent and plugin, and never given twice.

Upstream's sample plugin runs as it comes, with the kubelet's folder compiled in: in a mount namespace of its own the
agent's folder lies there. Devices that turn bad, and settings that the sample does not give, are a plugin's of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent.cri._generated import podresources_pb2 as pb
from agent.cri._generated import podresources_pb2_grpc as rpc
from hack import binaries
from hack.processes import Daemon
from hack.runtime import Generation
from tests.fakes.device_plugin import FakeDevicePlugin, registered_aside
from tests.integration.agent.edge import SLEEP, Edge, Object, container, container_ids, pod, restarts, status_of
from tests.integration.support.waiting import wait_until

SAMPLE = "example.com/resource"
FOLDER = "/var/lib/kubelet/device-plugins"
ANEW_S = 60
"""The sample looks after the agent's socket every ten seconds."""


@pytest.fixture
def sample(guest: Edge, tmp_path: Path) -> Iterator[Daemon]:
    """Upstream's plugin with two devices, which are empty files in /tmp."""
    folder = guest.agent.root_dir / "device-plugins"
    there = f"mount -t tmpfs none /var/lib && mkdir -p {FOLDER} && mount --bind {folder} {FOLDER}"
    program = binaries.find("sample-device-plugin")
    daemon = Daemon("sample", ["unshare", "--mount", "sh", "-c", f"{there} && exec {program}"], tmp_path)
    daemon.start()
    yield daemon
    daemon.stop()
    for device in ("Dev-1", "Dev-2"):
        Path("/tmp", device).unlink(missing_ok=True)


def asking(name: str, resource: str, script: str = SLEEP, **spec: Any) -> Object:
    return pod(name, container(script, resources={"limits": {resource: 1}}), **spec)


def amounts(edge: Edge, resource: str) -> tuple[str, str] | None:
    """The Node's capacity and allocatable; None: it has no such resource."""
    status = edge.get(f"/api/v1/nodes/{edge.node}")["status"]
    if resource not in status["capacity"]:
        return None
    return status["capacity"][resource], status["allocatable"][resource]


def wait_amounts(edge: Edge, resource: str, capacity: int, allocatable: int, timeout: float = 30) -> None:
    wanted = (str(capacity), str(allocatable))
    wait_until(lambda: amounts(edge, resource) == wanted, timeout, what=f"the node has {wanted} of {resource}")


def listed(edge: Edge) -> dict[str, list[str]]:
    """By pod of the test's namespace the devices that monitoring is told of."""

    async def ask() -> pb.ListPodResourcesResponse:
        async with grpc.aio.insecure_channel(f"unix://{edge.agent.root_dir}/pod-resources/kubelet.sock") as channel:
            return await rpc.PodResourcesListerStub(channel).List(pb.ListPodResourcesRequest(), timeout=30)

    return {
        one.name: [device for c in one.containers for given in c.devices for device in given.device_ids]
        for one in asyncio.run(ask()).pod_resources
        if one.namespace == edge.namespace
    }


def is_rejected(edge: Edge, name: str, resource: str) -> None:
    status = edge.wait_phase(name, "Failed", 60)["status"]
    why = f"requested number of devices unavailable for {resource}. Requested: 1, Available: 0"
    assert status["reason"] == "UnexpectedAdmissionError"
    assert status["message"] == f"Pod was rejected: Allocate failed due to {why}, which is unexpected"


def inside(edge: Edge, name: str, script: str) -> str:
    return edge.runtime.crictl("exec", container_ids(edge.pod(name))["main"], "sh", "-c", script)


def has(edge: Edge, name: str) -> str:
    """The sample's device that the pod sees."""
    return inside(edge, name, "ls /tmp").strip()


def test_the_sample_plugin_s_devices_are_given_once_and_outlive_agent_and_plugin(guest: Edge, sample: Daemon) -> None:
    wait_amounts(guest, SAMPLE, 2, 2)
    guest.run(asking("a", SAMPLE), asking("b", SAMPLE))
    guest.wait_ready("a", "b")
    mine = {"a": has(guest, "a"), "b": has(guest, "b")}
    assert sorted(mine.values()) == ["Dev-1", "Dev-2"]
    guest.run(asking("c", SAMPLE))
    is_rejected(guest, "c", SAMPLE)
    assert listed(guest) == {name: [device] for name, device in mine.items()}
    before = {name: container_ids(guest.pod(name)) for name in mine}

    guest.agent.kill9()
    guest.agent.start()
    guest.agent.wait_ready()
    # One that comes before the plugin is back waits for it, and then finds nothing free.
    guest.run(asking("d", SAMPLE))
    wait_amounts(guest, SAMPLE, 2, 2, ANEW_S)
    is_rejected(guest, "d", SAMPLE)

    sample.kill()
    wait_amounts(guest, SAMPLE, 2, 0)
    sample.start()
    wait_amounts(guest, SAMPLE, 2, 2, ANEW_S)
    assert {name: container_ids(guest.pod(name)) for name in mine} == before
    assert [restarts(guest.pod(name)) for name in mine] == [0, 0]

    guest.delete("pod", "a", "--grace-period=2")
    guest.wait_gone("a")
    guest.run(asking("e", SAMPLE))
    guest.wait_ready("e")
    assert has(guest, "e") == mine["a"]
    assert listed(guest) == {"b": [mine["b"]], "e": [mine["a"]]}


def test_a_container_gets_what_the_plugin_answers_and_keeps_a_device_that_turns_bad(guest: Edge) -> None:
    resource = f"{guest.namespace}.test/widget"
    plugin = FakeDevicePlugin("w0", "w1", resource=resource)
    plugin.answer.mounts.add(container_path="/opt/widgets", host_path="/etc/hostname", read_only=True)
    plugin.answer.annotations["widgets.test/driver"] = "7"
    notes = 'echo "$WIDGETS" $(ls /dev | grep ^w) >> /seen/log'
    ends_once = f"{notes}; [ -e /seen/again ] && {{ {SLEEP}; }}; touch /seen/again"
    seen = {"name": "seen", "emptyDir": {}}
    asks: Object = {"resources": {"limits": {resource: 1}}, "volumeMounts": [{"name": "seen", "mountPath": "/seen"}]}
    with registered_aside(plugin, guest.agent.root_dir / "device-plugins"):
        wait_amounts(guest, resource, 2, 2)
        guest.run(pod("web", container(ends_once, **asks), volumes=[seen]))
        wait_until(lambda: restarts(guest.pod("web")) == 1, 60, what="the container runs a second time")
        guest.wait_ready("web")
        found = inside(guest, "web", "cat /seen/log; test -c /dev/w0 && cat /opt/widgets")
        # The same device for its first and its second container.
        assert found.splitlines() == ["w0 w0", "w0 w0", Path("/etc/hostname").read_text().strip()]
        [own] = [one for one in guest.containers() if one["state"] == "CONTAINER_RUNNING"]
        assert own["annotations"]["widgets.test/driver"] == "7"

        plugin.turn("w0", "Unhealthy")
        wait_amounts(guest, resource, 2, 1)
        unwell = [{"name": resource, "resources": [{"resourceID": "w0", "health": "Unhealthy"}]}]
        wait_until(
            lambda: status_of(guest.pod("web")).get("allocatedResourcesStatus") == unwell, what="the pod says so"
        )
        guest.run(asking("other", resource))
        guest.wait_ready("other")
        guest.run(asking("third", resource))
        is_rejected(guest, "third", resource)
        assert restarts(guest.pod("web")) == 1
    wait_amounts(guest, resource, 2, 0)


def test_names_of_the_container_device_interface_are_for_runtimes_that_know_them(
    every_guest: Edge, request: pytest.FixtureRequest
) -> None:
    vendor = f"{every_guest.namespace}.test"
    edits = {"env": ["BY_CDI=yes"]}
    spec = {"cdiVersion": "0.6.0", "kind": f"{vendor}/w", "devices": [{"name": "w0", "containerEdits": edits}]}
    file = Path("/var/run/cdi", f"{vendor}.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(spec))
    request.addfinalizer(file.unlink)
    plugin = FakeDevicePlugin("w0", resource=f"{vendor}/widget")
    plugin.answer.cdi_devices.add(name=f"{vendor}/w=w0")
    with registered_aside(plugin, every_guest.agent.root_dir / "device-plugins"):
        wait_amounts(every_guest, plugin.resource, 1, 1)
        every_guest.run(asking("web", plugin.resource, f"echo by cdi: $BY_CDI; {SLEEP}"))
        if every_guest.runtime.generation is Generation.BUILT:
            every_guest.wait_ready("web")
            wait_until(lambda: every_guest.log("web") == "by cdi: yes\n")
            return

        def refusal() -> str:
            statuses = every_guest.pod("web")["status"].get("containerStatuses") or [{"state": {}}]
            waiting = statuses[0]["state"].get("waiting", {})
            return str(waiting["message"]) if waiting.get("reason") == "CreateContainerConfigError" else ""

        assert "can't give CDI devices" in wait_until(refusal, what="the container says why it does not start")
