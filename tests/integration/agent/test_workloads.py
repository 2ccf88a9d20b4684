"""What controllers make of this node's pods: Deployment, Job, CronJob, DaemonSet, StatefulSet."""

from __future__ import annotations

import time
from typing import Any

from tests.integration.agent.edge import SLEEP, Edge, container, is_ready, status_of
from tests.integration.support.waiting import wait_until

NOTHING_LEFT_S = 5.0


def template(edge: Edge, script: str = SLEEP, **spec: Any) -> dict[str, Any]:
    """For this test's node: one of an earlier test may still be there for the scheduler, its agent gone."""
    where = {"nodeSelector": {"kubernetes.io/hostname": edge.node}}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(script)], **where, **spec}}


def workload(kind: str, name: str = "web", version: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def deployment(edge: Edge, script: str = SLEEP, replicas: int = 3) -> dict[str, Any]:
    return workload(
        "Deployment", replicas=replicas, selector={"matchLabels": {"app": "web"}}, template=template(edge, script)
    )


def available(edge: Edge, replicas: int, script: str = SLEEP) -> bool:
    """The rollout is over: as many Ready pods as wanted, of this command, and no other pods."""
    found = edge.pods()
    status = edge.get(f"/apis/apps/v1/namespaces/{edge.namespace}/deployments/web")["status"]
    return (
        status.get("availableReplicas") == replicas
        and len(found) == replicas
        and all(is_ready(one) and one["spec"]["containers"][0]["command"][2] == script for one in found)
    )


def test_a_deployment_is_scaled_rolled_out_and_deleted_without_a_trace(every_edge: Edge) -> None:
    edge = every_edge
    edge.apply(deployment(edge))
    wait_until(lambda: available(edge, 3))
    edge.kubectl("scale", "deployment/web", "--replicas=10")
    wait_until(lambda: available(edge, 10), 60)
    addresses = [one["status"]["podIP"] for one in edge.pods()]
    assert len(set(addresses)) == 10
    edge.kubectl("scale", "deployment/web", "--replicas=1")
    wait_until(lambda: available(edge, 1), 60)
    changed = f"echo changed; {SLEEP}"
    edge.apply(deployment(edge, changed, replicas=3))
    wait_until(lambda: available(edge, 3, changed), 60)
    (one, *_) = edge.pods()
    assert edge.log(one["metadata"]["name"]) == "changed\n"

    # Not --cascade=foreground: the pods' own deletion is what counts from here.
    edge.delete("deployment/web")
    deleted = time.monotonic()
    wait_until(lambda: not edge.sandboxes() and not edge.containers() and not edge.pods(), NOTHING_LEFT_S)
    assert time.monotonic() - deleted < NOTHING_LEFT_S + 1
    assert not [log for log in edge.agent.pod_logs_dir.iterdir() if log.name.startswith(edge.namespace)]
    assert not list((edge.agent.root_dir / "pods").iterdir())


def test_a_job_completes_and_one_made_from_a_cron_job_too(every_edge: Edge) -> None:
    edge = every_edge
    job = {"backoffLimit": 2, "completions": 3, "parallelism": 2}
    work = template(edge, "echo worked", restartPolicy="Never")
    edge.apply(
        workload("Job", "direct", "batch/v1", **job, template=work),
        workload("CronJob", "timed", "batch/v1", schedule="0 0 1 1 *", jobTemplate={"spec": {"template": work}}),
    )
    edge.kubectl("create", "job", "manual", "--from=cronjob/timed")
    for name, wanted in (("direct", 3), ("manual", 1)):
        edge.kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=60s")
        jobs = f"/apis/batch/v1/namespaces/{edge.namespace}/jobs/{name}"
        assert edge.get(jobs)["status"]["succeeded"] == wanted
    for one in edge.pods():
        assert one["status"]["phase"] == "Succeeded"
        assert status_of(one)["state"]["terminated"]["reason"] == "Completed"
        assert edge.log(one["metadata"]["name"]) == "worked\n"
    # Finished pods hold their logs, but nothing that runs.
    assert {found["state"] for found in edge.sandboxes()} <= {"SANDBOX_NOTREADY"}


def test_a_failing_job_is_tried_as_often_as_it_says(edge: Edge) -> None:
    work = template(edge, "echo no >/dev/termination-log; exit 3", restartPolicy="Never")
    edge.apply(workload("Job", "fails", "batch/v1", backoffLimit=0, template=work))
    edge.kubectl("wait", "job/fails", "--for=condition=Failed", "--timeout=60s")
    (one,) = edge.pods()
    ended = status_of(one)["state"]["terminated"]
    assert one["status"]["phase"] == "Failed"
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no\n")


def test_a_daemon_set_has_its_pod_on_this_node_and_gets_it_back(edge: Edge) -> None:
    selector = {"matchLabels": {"app": "web"}}
    edge.apply(workload("DaemonSet", selector=selector, template=template(edge)))

    def the_one() -> dict[str, Any] | None:
        found = [one for one in edge.pods() if is_ready(one)]
        return found[0] if len(found) == 1 else None

    first = wait_until(the_one)
    edge.delete(f"pod/{first['metadata']['name']}")
    second = wait_until(lambda: (new := the_one()) and new["metadata"]["uid"] != first["metadata"]["uid"] and new)
    assert second["spec"]["nodeName"] == edge.node


def test_a_stateful_set_of_three_starts_and_ends_in_order(edge: Edge) -> None:
    selector = {"matchLabels": {"app": "web"}}
    edge.apply(workload("StatefulSet", serviceName="web", replicas=3, selector=selector, template=template(edge)))
    names = ["web-0", "web-1", "web-2"]
    edge.wait_ready(*names, timeout=60)
    starts = [status_of(edge.pod(name))["state"]["running"]["startedAt"] for name in names]
    assert starts == sorted(starts)
    made = [edge.pod(name)["metadata"]["creationTimestamp"] for name in names]
    assert all(before <= after for before, after in zip(starts, made[1:], strict=False))
    hostname = edge.runtime.crictl("exec", status_of(edge.pod("web-1"))["containerID"].rpartition("/")[2], "hostname")
    assert hostname.strip() == "web-1"
    edge.kubectl("scale", "statefulset/web", "--replicas=1")
    edge.wait_gone("web-1", "web-2")
    assert is_ready(edge.pod("web-0"))

    def killed() -> set[str]:
        return {e["involvedObject"]["name"] for e in edge.get("events")["items"] if e["reason"] == "Killing"}

    wait_until(lambda: killed() == {"web-1", "web-2"})
