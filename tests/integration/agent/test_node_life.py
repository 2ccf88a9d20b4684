"""The Node's life and its pods' lives: the one may end or be lost without the other."""

from __future__ import annotations

from tests.integration.agent.edge import Edge, container_ids, pod, restarts
from tests.integration.support.waiting import wait_until

LEASE_S = 10


def test_a_terminated_agent_says_why_and_its_pods_stay_for_the_next_one(edge: Edge) -> None:
    edge.run(pod("stays"))
    edge.wait_ready("stays")
    before = container_ids(edge.pod("stays"))

    assert edge.agent.terminate() == 0
    assert edge.agent.condition("Ready")["reason"] == "AgentStopped"
    reasons = dict(edge.get(f"/api/v1/events?fieldSelector=involvedObject.name={edge.node}"))["items"]
    assert "AgentStopping" in {event["reason"] for event in reasons}
    assert [c["id"] for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"] == [before["main"]]

    edge.agent.start()
    wait_until(lambda: edge.agent.condition("Ready")["reason"] == "KubeletReady")
    # It acts on pods again, so it has looked at this one too.
    edge.run(pod("next"))
    edge.wait_ready("next")
    after = edge.pod("stays")
    assert (container_ids(after), restarts(after)) == (before, 0)


def test_a_node_deleted_under_running_pods_comes_back_and_they_run_on(edge: Edge) -> None:
    edge.run(pod("stays"))
    edge.wait_ready("stays")
    before = container_ids(edge.pod("stays"))
    uid = edge.agent.node_object()["metadata"]["uid"]

    edge.agent.delete_node()
    wait_until(lambda: edge.agent.node_object()["metadata"]["uid"] != uid, 10)
    wait_until(lambda: edge.agent.condition("Ready")["status"] == "True", 10)

    edge.run(pod("next"))
    edge.wait_ready("next")
    after = edge.pod("stays")
    assert (container_ids(after), restarts(after)) == (before, 0)


def test_the_lease_is_renewed_and_belongs_to_the_node_that_was_made_again(edge: Edge) -> None:
    lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{edge.node}"
    wait_until(lambda: edge.get(lease)["spec"]["renewTime"])
    first = edge.get(lease)["spec"]["renewTime"]
    edge.agent.delete_node()
    node = wait_until(edge.agent.node_object, 10)

    def taken_over() -> bool:
        found = edge.get(lease)
        is_owner = found["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        return bool(is_owner and found["spec"]["renewTime"] != first)

    wait_until(taken_over, 2 * LEASE_S)
