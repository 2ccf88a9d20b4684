"""What a node does not take is Failed at once; what it took stays taken, whatever is changed about the node."""

from __future__ import annotations

from tests.integration.agent.edge import Edge, container, pod
from tests.integration.support.waiting import wait_until

HUGE = {"requests": {"cpu": "1000"}}


def test_what_does_not_fit_is_rejected_and_what_runs_is_never_judged_again(edge: Edge) -> None:
    edge.plane.kubectl("label", "node", edge.node, "disk=ssd", "--overwrite")
    web = container(ports=[{"containerPort": 80, "hostPort": 18080}])
    edge.run(pod("first", web, nodeSelector={"disk": "ssd"}))
    edge.wait_ready("first")
    edge.run(
        pod("huge", container(resources=HUGE)),
        pod("second", web),
        pod("elsewhere", nodeSelector={"disk": "hdd"}),
    )
    wanted = {"huge": "OutOfcpu", "second": "NodePorts", "elsewhere": "NodeAffinity"}
    for name, reason in wanted.items():
        status = edge.wait_phase(name, "Failed")["status"]
        assert status["reason"] == reason
        assert status["message"].startswith("Pod was rejected: ")
        assert "containerStatuses" not in status
        told = (name, reason)
        wait_until(lambda told=told: told[1] in [found for found, _ in edge.events(told[0])])  # type: ignore[misc]

    edge.agent.kill9()
    edge.plane.kubectl("label", "node", edge.node, "disk-", "--overwrite")
    edge.agent.start()
    edge.agent.wait_ready()
    edge.run(pod("late", nodeSelector={"disk": "ssd"}))
    assert edge.wait_phase("late", "Failed")["status"]["reason"] == "NodeAffinity"
    assert edge.pod("huge")["status"]["reason"] == "OutOfcpu"
    # The label that it selects is gone.
    assert edge.pod("first")["status"]["phase"] == "Running"
