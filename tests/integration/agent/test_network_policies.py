"""What a pod's annotations ask of its network: a bandwidth as iperf3 measures it, an address that stays."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack import images
from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from hack.workspace import Workspace
from tests.integration.agent.edge import SLEEP, Edge, container, is_ready, pod
from tests.integration.agent.test_power_cut import lose_power
from tests.integration.agent.test_workloads import template, workload
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

FIXED_IP = "edgelet.io/fixed-ip"
SECONDS = 10
TOLERANCE = 0.15
HANDED_OVER = Path("/run/edgelet/fixed-ip")


@pytest.fixture(autouse=True)
def no_address_stays_kept(workspace: Workspace) -> Iterator[None]:
    """What an agent keeps when it is ended, its next start would look after, which here never comes."""
    before = set(HANDED_OVER.glob("*"))
    yield
    for left in set(HANDED_OVER.glob("*")) - before:
        left.unlink()
    for lease in workspace.folder.glob("containerd-*/addresses/*/10.*"):
        if lease.read_text().startswith("edgelet fixed-ip"):
            lease.unlink()


def annotated(name: str, *containers: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """Annotations by names without prefix."""
    prefixes = {"fixed_ip": "edgelet.io/fixed-ip"}
    named = {prefixes.get(key, f"kubernetes.io/{key.replace('_', '-')}"): value for key, value in annotations.items()}
    return pod(name, *containers, metadata={"annotations": named})


def ip(edge: Edge, name: str) -> str:
    return str(edge.pod(name)["status"]["podIP"])


def said(edge: Edge, name: str, reason: str) -> list[str]:
    return [message for told, message in edge.events(name) if told == reason]


def ifbs() -> set[str]:
    """The devices that the plugin shapes with, of all pods of this machine."""
    listed = subprocess.run(["ip", "-o", "link", "show", "type", "ifb"], capture_output=True, text=True, check=True)
    names = {line.split(": ")[1] for line in listed.stdout.splitlines()}
    return {name for name in names if name.startswith("bwp")}


def iperf3(edge: Edge, server: str, *flags: str) -> float:
    """Bits a second, as they arrived, over TCP."""
    command = ("iperf3", "--json", "--client", server, "--time", str(SECONDS), *flags)
    # Not `edge.kubectl`: what is at the end of the line is the program's.
    answer = json.loads(edge.plane.kubectl("exec", "--namespace", edge.namespace, "limited", "--", *command))
    return float(answer["end"]["sum_received"]["bits_per_second"])


def test_a_pod_receives_and_sends_as_fast_as_it_may(every_guest: Edge) -> None:
    edge, before = every_guest, ifbs()
    edge.runtime.ctr("images", "import", str(images.iperf3()))
    tool = {"image": images.IPERF3}
    edge.run(
        pod("server", container("iperf3 --server", **tool)),
        annotated("limited", container(**tool), ingress_bandwidth="10M", egress_bandwidth="20M"),
    )
    edge.wait_ready("server", "limited", timeout=60)
    server = ip(edge, "server")
    received, sent = iperf3(edge, server, "--reverse"), iperf3(edge, server)
    print(f"in {received / 1e6:.2f} Mbit/s of 10, out {sent / 1e6:.2f} Mbit/s of 20")
    assert received == pytest.approx(10e6, rel=TOLERANCE)
    assert sent == pytest.approx(20e6, rel=TOLERANCE)
    made = ifbs() - before
    assert made
    edge.delete("pod/limited", "pod/server", "--grace-period=0", "--force")
    wait_until(lambda: not edge.sandboxes(), 30, what="no sandbox")
    wait_until(lambda: not (ifbs() & made), what="no device that was made for them")


def test_a_bandwidth_that_is_none_is_said_and_the_pod_runs_without(guest: Edge) -> None:
    guest.run(annotated("wrong", ingress_bandwidth="10Mbit", egress_bandwidth="1"))
    guest.wait_ready("wrong")
    messages = wait_until(lambda: len(found := said(guest, "wrong", "InvalidPolicy")) == 2 and found)
    assert any("kubernetes.io/ingress-bandwidth" in one and "10Mbit" in one for one in messages)
    assert any("kubernetes.io/egress-bandwidth" in one and "from 1k to 1P" in one for one in messages)


@pytest.fixture
def plain_network(one_containerd: Containerd) -> Iterator[None]:
    """As on a machine that had a network of its own: no plugin of ours in it."""
    (file,) = (one_containerd.folder / "cni").iterdir()
    ours = file.read_text()
    network = json.loads(ours)
    network["plugins"][0]["ipam"]["type"] = "host-local"
    network["plugins"].pop()

    def loaded(plugins: int) -> bool:
        told = json.loads(one_containerd.crictl("info"))["cniconfig"]["Networks"][-1]["Config"]["Plugins"]
        return len(told) == plugins

    file.write_text(json.dumps(network))
    wait_until(lambda: loaded(2))
    yield
    file.write_text(ours)
    wait_until(lambda: loaded(3))


@pytest.mark.usefixtures("plain_network")
def test_what_the_network_cannot_do_is_said_and_the_pod_runs(guest: Edge) -> None:
    guest.run(annotated("hopeful", ingress_bandwidth="10M", fixed_ip="true"))
    guest.wait_ready("hopeful")
    (bandwidth,) = wait_until(lambda: said(guest, "hopeful", "BandwidthUnsupported"))
    (address,) = wait_until(lambda: said(guest, "hopeful", "FixedIpUnsupported"))
    assert bandwidth.endswith(f"the pod network {guest.runtime.bridge} has no plugin that limits it")
    assert address.endswith(f"the pod network {guest.runtime.bridge} is not this agent's")


def stateful(edge: Edge, replicas: int) -> dict[str, Any]:
    made = template(edge)
    made["metadata"]["annotations"] = {FIXED_IP: "true"}
    selector = {"matchLabels": {"app": "web"}}
    return workload("StatefulSet", serviceName="web", replicas=replicas, selector=selector, template=made)


def test_a_stateful_sets_pods_keep_their_addresses_over_all_that_happens(every_edge: Edge) -> None:
    edge, names = every_edge, ("web-0", "web-1")
    edge.apply(stateful(edge, 2))
    edge.wait_ready(*names, timeout=60)
    first = {name: ip(edge, name) for name in names}
    assert len(set(first.values())) == 2

    def same(what: str) -> None:
        edge.wait_ready(*names, timeout=90)
        assert {name: ip(edge, name) for name in names} == first, what

    def delete(*gone: str) -> None:
        """And wait for those that the StatefulSet makes in their place."""
        before = {one["metadata"]["uid"] for one in edge.pods()}
        edge.delete(*(f"pod/{name}" for name in gone))
        wait_until(lambda: len([one for one in edge.pods() if one["metadata"]["uid"] not in before]) == len(gone), 60)

    delete(*names)
    same("made again by its StatefulSet")

    # Nobody else has it while they are away, not even who asks for it by name.
    edge.kubectl("scale", "statefulset/web", "--replicas=0")
    edge.wait_gone(*names, timeout=60)
    wait_until(lambda: not edge.sandboxes())
    plane, elsewhere = edge.plane, f"{edge.namespace}-other"
    plane.kubectl("create", "namespace", elsewhere)
    wait_until(lambda: plane.kubectl("get", "serviceaccount", "default", "--namespace", elsewhere, check=False))
    thief = Edge(edge.agent, edge.runtime, plane, elsewhere)
    thief.run(annotated("thief", fixed_ip=first["web-0"]))
    (refused, *_) = wait_until(lambda: said(thief, "thief", "FailedCreatePodSandBox"))
    assert f"{FIXED_IP}: {first['web-0']} is kept for pod {edge.namespace}/web-0" in refused
    plane.kubectl("delete", "namespace", elsewhere, "--wait=false")
    thief.wait_gone("thief")
    edge.kubectl("scale", "statefulset/web", "--replicas=2")
    same("scaled down and up")

    edge.agent.stop()
    edge.agent.start()
    edge.agent.wait_ready()
    same("the agent began anew")
    delete("web-1")
    same("made again after that")

    lose_power(edge)
    for one in edge.pods():
        (HANDED_OVER / one["metadata"]["uid"]).unlink()  # it was in memory
    starts = edge.agent_log().count(" starts as node ")
    edge.agent.start()
    wait_until(lambda: edge.agent_log().count(" starts as node ") > starts)
    wait_until(
        lambda: all(
            is_ready(one) and one["status"]["containerStatuses"][0]["restartCount"] == 1 for one in edge.pods()
        ),
        90,
        what="all run again",
    )
    same("the power was gone")
    assert "Traceback" not in edge.agent_log()


def test_an_address_that_is_asked_for_is_one_pods_at_a_time(edge: Edge) -> None:
    wanted = edge.runtime.gateway.rpartition(".")[0] + ".200"
    edge.run(annotated("first", fixed_ip=wanted))
    edge.wait_ready("first")
    assert ip(edge, "first") == wanted
    edge.run(annotated("second", fixed_ip=wanted), annotated("lost", fixed_ip="192.0.2.1"))
    (busy, *_) = wait_until(lambda: said(edge, "second", "FailedCreatePodSandBox"))
    assert f"{FIXED_IP}: {wanted} is kept for pod {edge.namespace}/first" in busy
    (outside, *_) = wait_until(lambda: said(edge, "lost", "FailedCreatePodSandBox"))
    assert f"{FIXED_IP}: 192.0.2.1 is not in the range of the pod network {edge.runtime.bridge}" in outside
    edge.delete("pod/first", "--grace-period=1")
    edge.wait_ready("second", timeout=60)
    assert ip(edge, "second") == wanted


def test_an_address_is_free_when_its_pod_was_away_for_long(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    edge = Edge(agent(flags=["--fixed-ip-retention=5s"]), one_containerd, control_plane, namespace)
    edge.run(annotated("gone", container(SLEEP), fixed_ip="true"))
    edge.wait_ready("gone")
    lease = edge.runtime.folder / "addresses" / edge.runtime.bridge / ip(edge, "gone")
    handed_over = HANDED_OVER / edge.pod("gone")["metadata"]["uid"]
    assert lease.read_text().endswith(f"{namespace}/gone")
    assert handed_over.exists()
    edge.delete("pod/gone", "--grace-period=1")
    edge.wait_gone("gone")
    assert lease.exists()
    wait_until(lambda: not lease.exists(), 20)
    assert not handed_over.exists()
