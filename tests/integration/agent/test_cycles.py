"""Pods of many shapes come and go, many times: when the last has gone, the machine is as it was before the first."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from agent.pods.cgroups import CGROUP_FS, hierarchies
from hack.processes import free_port
from tests.integration.agent.edge import Edge, Object, container, pod
from tests.integration.support.waiting import wait_until

CYCLES = int(os.environ.get("EDGELET_TEST_CYCLES", "10"))
"""Lives of pods on each runtime; so many at a time as there are shapes."""
_CHAIN_BYTES = 28


def shapes(round_: int) -> list[Object]:
    mount = [{"name": "v", "mountPath": "/v"}]
    memory = {"name": "v", "emptyDir": {"medium": "Memory"}}
    settings = {"name": "v", "configMap": {"name": "settings"}}
    limited: Object = {"resources": {"limits": {"cpu": "50m", "memory": "64Mi"}}}
    probed: Object = {"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}
    names = [f"{shape}-{round_}" for shape in ("port", "memory", "config", "init", "done")]
    return [
        pod(names[0], container(ports=[{"containerPort": 80, "hostPort": free_port()}], **limited)),
        pod(names[1], container(volumeMounts=mount, **probed), volumes=[memory]),
        pod(names[2], container(volumeMounts=[{**mount[0], "subPath": "mode"}]), volumes=[settings]),
        pod(names[3], container(), container(name="second"), initContainers=[container("true", name="first")]),
        pod(names[4], container("sleep 0.2"), restartPolicy="Never"),
    ]


def snapshot(edge: Edge, seen: set[str]) -> dict[str, set[str]]:
    """What this runtime and this agent have on the machine; `seen`: the sandboxes whose rules are looked for."""
    agent, runtime = edge.agent, edge.runtime
    folders = (agent.root_dir / "pods", agent.pod_logs_dir, agent.container_log_links_dir)
    tops = [top / runtime.cgroup.strip("/") for top in hierarchies(CGROUP_FS)]
    own = (str(runtime.folder), str(agent.folder))
    return {
        "sandboxes": set(runtime.crictl("pods", "--quiet").split()),
        "containers": set(runtime.crictl("ps", "--all", "--quiet").split()),
        "cgroups": {folder for top in tops for folder, _, _ in os.walk(top)},
        "mounts": {
            line for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1].startswith(own)
        },
        "folders": {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()},
        "veths": {path.name for path in Path("/sys/class/net", runtime.bridge, "brif").glob("*")},
        "addresses": {path.name for path in (runtime.folder / "addresses" / runtime.bridge).glob("10.*")},
        "networks": {path.name for path in Path("/var/lib/cni/results").glob(f"{runtime.bridge}-*")},
        "rules": rules(runtime.bridge, seen),
    }


def rules(network: str, sandboxes: set[str]) -> set[str]:
    """Of the packet filter, made for one of these sandboxes or naming the network. A chain is named by a hash."""
    told = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout.splitlines()
    chains = {
        f"CNI-{kind}{hashlib.sha512(f'{network}{one}'.encode()).hexdigest()}"[:_CHAIN_BYTES]
        for one in sandboxes
        for kind in ("DN-", "SN-", "")
    }
    return {line for line in told if f'"{network}"' in line or any(chain in line for chain in chains)}


@pytest.mark.timeout(max(300, 10 * CYCLES))
def test_when_the_last_of_many_pods_has_gone_nothing_of_them_is_left(every_edge: Edge) -> None:
    edge = every_edge
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "edge"}}
    edge.apply(settings)
    # What the first pod makes for all (the bridge, the levels of classes) is not its own.
    edge.run(pod("first", container(ports=[{"containerPort": 80, "hostPort": free_port()}])))
    edge.wait_ready("first")
    seen = {one["id"] for one in edge.sandboxes()}
    edge.delete("pod/first")
    edge.wait_gone("first")
    wait_until(lambda: not edge.sandboxes())
    before = snapshot(edge, seen)
    assert not before["rules"] or "dnat" not in "".join(before["rules"])

    held: dict[str, int] = {}
    made = shapes(0)
    for round_ in range(max(1, CYCLES // len(made))):
        pods = shapes(round_)
        names = [one["metadata"]["name"] for one in pods]
        edge.run(*pods)
        edge.wait_ready(*names[:-1], timeout=120)
        edge.wait_phase(names[-1], "Succeeded", timeout=60)
        seen |= {one["id"] for one in edge.sandboxes()}
        if not held:
            during = snapshot(edge, seen)
            held = {kind: len(during[kind] - before[kind]) for kind in during}
        edge.delete("pod", *names)
        edge.wait_gone(*names, timeout=60)

    def left() -> dict[str, list[str]]:
        now = snapshot(edge, seen)
        return {kind: sorted(now[kind] - before[kind]) for kind in now if now[kind] - before[kind]}

    wait_until(lambda: not left(), 30, interval=0.5, what=json.dumps(left(), indent=1))
    # It was there to be left, each kind of it.
    assert {kind for kind, count in held.items() if not count} <= {"networks"}, held
    assert "Traceback" not in edge.agent_log()
