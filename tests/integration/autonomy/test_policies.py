"""The cluster's defaults of policies: a change reaches pods at once, and holds without the network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from tests.integration.agent.edge import container, pod
from tests.integration.autonomy.conftest import Outpost
from tests.integration.support.waiting import wait_until

KEEP = "edgelet.io/keep-for"
RIGHTS = REPOSITORY / "config/cluster/policies.yaml"
WITHIN_S = 5.0


@pytest.fixture
def readable(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster whose nodes may read its defaults."""
    control_plane.kubectl("apply", f"--filename={RIGHTS}")
    yield control_plane
    control_plane.kubectl("delete", f"--filename={RIGHTS}")
    control_plane.kubectl("delete", "configmap", "edgelet-defaults", "--namespace=kube-system", "--ignore-not-found")


def put(plane: ControlPlane, keep_for: str) -> float:
    """The moment (monotonic) before the API server had it."""
    began = time.monotonic()
    defaults = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "edgelet-defaults", "namespace": "kube-system"},
        "data": {"10-all": f"- annotations: {{{KEEP}: {keep_for}}}"},
    }
    plane.kubectl("apply", "--filename=-", stdin=json.dumps(defaults))
    return began


def kept(outpost: Outpost, name: str, span: str) -> bool:
    """It was told that this pod is kept for so long."""
    return any(reason == "KeptForDebugging" and f"({span} from" in said for reason, said in outpost.events(name))


def ids(outpost: Outpost, name: str) -> list[str]:
    """Of a pod's containers, running or not."""
    return [c["id"] for c in outpost.containers() if c["labels"]["io.kubernetes.pod.name"] == name]


def test_a_changed_default_holds_within_seconds_and_cut_off_and_after_a_restart(
    readable: ControlPlane, outpost: Outpost
) -> None:
    put(readable, "50m")
    outpost.run(pod("done", container("true"), restartPolicy="Never"), pod("runs", restartPolicy="Never"))
    outpost.wait_phase("done", "Succeeded")
    outpost.wait_ready("runs")
    wait_until(lambda: kept(outpost, "done", "50m0s"), 10)

    changed = put(readable, "40m")
    wait_until(lambda: kept(outpost, "done", "40m0s"), 10)
    took = time.monotonic() - changed
    print(f"a changed default was applied and told after {took:.2f} s")
    assert took < WITHIN_S

    put(readable, "soon")
    wrong = wait_until(lambda: [said for reason, said in outpost.node_events() if reason == "InvalidPolicy"], 10)
    assert wrong[0].startswith(
        f"ConfigMap kube-system/edgelet-defaults: 10-all, rule 1: annotation {KEEP}='soon' does not count"
    )

    changed = put(readable, "3s")
    wait_until(lambda: not ids(outpost, "done"), 10)
    print(f"what was over by a changed default was collected after {time.monotonic() - changed:.2f} s")
    assert time.monotonic() - changed < WITHIN_S
    wait_until(lambda: "KeptPodCollected" in [reason for reason, _ in outpost.events("done")], 10)
    assert outpost.pod("done")["status"]["phase"] == "Succeeded"

    outpost.cut()
    put(readable, "20m")  # which it cannot hear of
    outpost.agent.kill9()
    outpost.agent.start()
    (running,) = ids(outpost, "runs")
    outpost.runtime.crictl("stop", "--timeout=1", running)
    assert ids(outpost, "runs") == [running]
    wait_until(lambda: not ids(outpost, "runs"), 15, what="collected by the default of the record")

    outpost.heal()
    outpost.wait_phase("runs", "Succeeded")
    wait_until(lambda: kept(outpost, "runs", "3s"))
    outpost.run(pod("next", container("true"), restartPolicy="Never"))
    wait_until(lambda: kept(outpost, "next", "20m0s"))


def test_without_the_right_a_node_goes_by_its_own_settings(outpost: Outpost, control_plane: ControlPlane) -> None:
    put(control_plane, "3s")
    try:
        own = pod("done", container("true"), restartPolicy="Never", metadata={"annotations": {KEEP: "1h"}})
        outpost.run(own)
        wait_until(lambda: kept(outpost, "done", "1h0m0s"))
        assert outpost.agent.running
    finally:
        control_plane.kubectl("delete", "configmap", "edgelet-defaults", "--namespace=kube-system")


def test_what_is_kept_of_a_gone_pod_outlives_a_power_cut_without_the_network_and_no_longer_than_its_time(
    outpost: Outpost,
) -> None:
    keep_s = 40
    annotated = {"annotations": {KEEP: f"{keep_s}s"}}
    outpost.run(pod("job", container("echo said"), restartPolicy="Never", metadata=annotated))
    outpost.wait_phase("job", "Succeeded")
    ended = time.monotonic()
    outpost.delete("pod/job")
    outpost.wait_gone("job")
    (left,) = ids(outpost, "job")
    outpost.cut()
    outpost.lose_power()
    outpost.agent.start()
    assert ids(outpost, "job") == [left]
    assert outpost.runtime.crictl("logs", left) == "said\n"
    wait_until(lambda: not ids(outpost, "job"), keep_s + 20, what="collected")
    stayed = time.monotonic() - ended
    print(f"kept for {stayed:.1f} s of {keep_s} s, over a power cut")
    assert keep_s - 3 < stayed
    assert outpost.sandboxes() == []
    outpost.heal()
    wait_until(lambda: "KeptPodCollected" in [reason for reason, _ in outpost.events("job")])
