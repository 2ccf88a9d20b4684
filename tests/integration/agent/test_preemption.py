"""A node that is full: pods that it cannot do without make others go, for good."""

from __future__ import annotations

from pathlib import Path

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, condition, container, pod
from tests.integration.agent.test_mirror_pods import ready, static, write
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

SMALL = {"requests": {"memory": "8Mi"}}


def test_critical_pods_end_the_least_that_is_needed_and_it_stays_ended(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, manifests: Path
) -> None:
    edge = Edge(agent(flags=["--max-pods=3"], manifests=manifests), one_containerd, control_plane, namespace)
    edge.run(pod("burstable", container(resources=SMALL)), pod("best-effort"), pod("other", container(resources=SMALL)))
    edge.wait_ready("burstable", "best-effort", "other")

    # The API server's critical pod: best-effort pods go first.
    edge.run(pod("critical", priorityClassName="system-node-critical"))
    edge.wait_ready("critical")
    victim = edge.wait_phase("best-effort", "Failed")
    said = "Preempted in order to admit critical pod"
    assert (victim["status"]["reason"], victim["status"]["message"]) == ("Preempting", said)
    target = condition(victim, "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    wait_until(lambda: ("Preempting", said) in edge.events("best-effort"))

    # A manifest is critical too; and who went is not taken again by another agent.
    write(manifests, static(namespace, "own"))
    ready(edge, f"own-{edge.node}")
    left = [name for name in ("burstable", "other") if edge.pod(name)["status"]["phase"] == "Running"]
    assert len(left) == 1
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    edge.wait_ready("critical", f"own-{edge.node}", *left)
    assert edge.pod("best-effort")["status"]["phase"] == "Failed"

    # What does not fit and matters no more than the others is rejected.
    edge.run(pod("late"))
    assert edge.wait_phase("late", "Failed")["status"]["reason"] == "OutOfpods"
