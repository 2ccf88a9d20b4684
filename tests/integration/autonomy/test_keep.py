"""A node that is cut off loses its pods in the cloud after a while, and those that are labelled so it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from tests.integration.agent.edge import Object, container_ids, pod
from tests.integration.autonomy.conftest import Outpost
from tests.integration.support.waiting import wait_until

POLICY = REPOSITORY / "config" / "cluster" / "autonomy.yaml"
KEEP = {"edgelet.io/autonomy": "keep"}
UNREACHABLE = "node.kubernetes.io/unreachable"
AT_ONCE = [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]
"""Instead of the five minutes that every pod gets, which no test waits for."""


@pytest.fixture
def policy(control_plane: ControlPlane) -> Iterator[None]:
    control_plane.kubectl("apply", f"--filename={POLICY}")

    def in_force() -> bool:
        tried = json.dumps(pod("tried", metadata={"labels": KEEP}))
        told = control_plane.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=tried)
        return len(endless(json.loads(told))) == 2

    wait_until(in_force, 10)
    yield
    control_plane.kubectl("delete", f"--filename={POLICY}", "--wait=false")


def endless(found: Object) -> list[str]:
    return [t["key"] for t in found["spec"]["tolerations"] if t.get("tolerationSeconds") is None]


@pytest.mark.usefixtures("policy")
def test_a_pod_labelled_keep_outlives_the_eviction_and_another_ends_on_reconnect(outpost: Outpost) -> None:
    other = {"key": "other", "operator": "Exists", "effect": "NoSchedule"}
    outpost.run(pod("kept", metadata={"labels": KEEP}, tolerations=[*AT_ONCE, other]))
    outpost.run(pod("left", tolerations=AT_ONCE))
    outpost.wait_ready("kept", "left")
    assert endless(outpost.pod("kept")) == ["other", "node.kubernetes.io/not-ready", UNREACHABLE]
    before = container_ids(outpost.pod("kept"))["main"]

    outpost.cut()
    outpost.plane.kubectl("taint", "node", outpost.node, f"{UNREACHABLE}=:NoExecute")
    wait_until(lambda: "deletionTimestamp" in outpost.pod("left")["metadata"], 10, what="evicted in the cloud")
    running = {c["labels"]["io.kubernetes.pod.name"] for c in outpost.containers() if c["state"] == "CONTAINER_RUNNING"}
    assert running == {"kept", "left"}
    outpost.plane.kubectl("taint", "node", outpost.node, f"{UNREACHABLE}:NoExecute-", check=False)

    outpost.heal()
    outpost.wait_gone("left", timeout=10)
    wait_until(lambda: [one["metadata"]["name"] for one in outpost.sandboxes()] == ["kept"])
    found = outpost.pod("kept")
    assert "deletionTimestamp" not in found["metadata"]
    assert container_ids(found)["main"] == before
