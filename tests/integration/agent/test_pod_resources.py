"""What pods may use: cgroup files of their shapes, a resize in place, and a tree that is empty when they have gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version
from tests.integration.agent.edge import Edge, condition, container, pod, restarts, status_of
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.skipif(cgroup_version() is CgroupVersion.V2, reason="reads files of version 1")

MIB = 1 << 20


def resources(cpu: str, memory: str) -> dict[str, Any]:
    return {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}


def value(edge: Edge, controller: str, below: str, name: str) -> int:
    return int((CGROUP_FS / controller / edge.runtime.cgroup.strip("/") / "kubepods" / below / name).read_text())


def folders(edge: Edge) -> list[Path]:
    return [f for top in CGROUP_FS.iterdir() for f in (top / edge.runtime.cgroup.strip("/")).glob("kubepods/**/pod*")]


def resize(edge: Edge, name: str, cpu: str, memory: str) -> None:
    patch = json.dumps({"spec": {"containers": [{"name": "main", "resources": resources(cpu, memory)}]}})
    edge.kubectl("patch", "pod", name, "--subresource=resize", f"--patch={patch}")


def limits(found: dict[str, Any]) -> tuple[str, str]:
    told = status_of(found)["resources"]["limits"]
    return told["cpu"], told["memory"]


def test_a_pod_is_held_by_its_cgroup_resized_in_place_and_leaves_nothing(guest: Edge) -> None:
    edge = guest
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    edge.run(
        pod("web", container(resources=resources("200m", "64Mi"))),
        pod("anew", container(resources=resources("200m", "64Mi"), resizePolicy=policy)),
        pod("whole", container(), resources={"requests": {"cpu": "100m"}, "limits": {"cpu": "300m", "memory": "96Mi"}}),
    )
    edge.wait_ready("web", "anew", "whole")
    uids = {name: edge.pod(name)["metadata"]["uid"] for name in ("web", "anew", "whole")}
    assert value(edge, "cpu", f"pod{uids['web']}", "cpu.cfs_quota_us") == 20_000
    assert value(edge, "memory", f"pod{uids['web']}", "memory.limit_in_bytes") == 64 * MIB
    assert value(edge, "cpu", f"burstable/pod{uids['whole']}", "cpu.cfs_quota_us") == 30_000
    assert value(edge, "cpu", f"burstable/pod{uids['whole']}", "cpu.shares") == 102
    assert value(edge, "cpu", "burstable", "cpu.shares") >= 102
    assert value(edge, "cpu", "besteffort", "cpu.shares") == 2

    resize(edge, "web", "300m", "128Mi")
    resize(edge, "anew", "200m", "128Mi")
    wait_until(lambda: limits(edge.pod("web")) == ("300m", "128Mi"), 20, what="web resized")
    assert value(edge, "cpu", f"pod{uids['web']}", "cpu.cfs_quota_us") == 30_000
    assert value(edge, "memory", f"pod{uids['web']}", "memory.limit_in_bytes") == 128 * MIB
    wait_until(lambda: restarts(edge.pod("anew")) == 1 and limits(edge.pod("anew"))[1] == "128Mi", 20, what="anew")
    assert restarts(edge.pod("web")) == 0

    resize(edge, "web", "100m", "32Mi")
    wait_until(lambda: limits(edge.pod("web")) == ("100m", "32Mi"), 20, what="web resized again")
    wait_until(lambda: not condition(edge.pod("web"), "PodResizeInProgress"), 5, what="the resize is over")
    assert value(edge, "memory", f"pod{uids['web']}", "memory.limit_in_bytes") == 32 * MIB
    resize(edge, "web", "100m", "4Ki")
    failed = wait_until(lambda: condition(edge.pod("web"), "PodResizeInProgress").get("reason"), 10, what="it fails")
    assert failed == "Error"

    edge.delete("pods", "--all", "--grace-period=1")
    edge.wait_gone()
    # Only its own: an agent that was killed in another test took its pods' cgroups to nobody.
    own = {f"pod{uid}" for uid in uids.values()}
    wait_until(lambda: not own & {folder.name for folder in folders(edge)}, 10, what="no cgroup of its pods is left")
