"""A node of the mock provider: many pods, failures, restarts on every side."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.providers.conftest import MockFleet
from tests.integration.providers.fleet import Fleet
from tests.integration.support.waiting import wait_until

CREATED = ("Normal", "ProviderCreateSuccess", "Create pod in provider successfully")
UPDATED = ("Normal", "ProviderUpdateSuccess", "Update pod in provider successfully")


def names(count: int) -> list[str]:
    return [f"pod-{number}" for number in range(count)]


def wait_running(fleet: Fleet, count: int, timeout: float = 30) -> None:
    wait_until(lambda: fleet.phases() == {"Running": count}, timeout, interval=0.5, what=f"{count} pods Running")


def wait_gone(fleet: Fleet, timeout: float = 60) -> None:
    wait_until(lambda: not fleet.pods(), timeout, interval=0.5, what="no pods")
    wait_until(lambda: not fleet.at_the_provider(), what="none at the provider")


def test_the_node_says_whose_it_is_and_how_large(mock_fleet: MockFleet) -> None:
    node = mock_fleet("capacity: {cpu: 1000, pods: 1500, memory: 4000Gi}").agent.node_object()
    assert {"key": "virtual-kubelet.io/provider", "value": "mock", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert node["metadata"]["labels"]["type"] == "virtual-kubelet"
    capacity = {name: node["status"]["capacity"][name] for name in ("cpu", "pods", "memory")}
    assert capacity == {"cpu": "1k", "pods": "1500", "memory": "4000Gi"}
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("mock://")


def test_a_thousand_pods_run_within_thirty_seconds(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet("latency: {create: [0, 0.2], start: [0.1, 2]}\ncapacity: {pods: 1100}")
    begun = time.monotonic()
    fleet.create(names(1000))
    created = time.monotonic() - begun
    wait_running(fleet, 1000, 30 - created)
    took = time.monotonic() - begun
    pods = fleet.pods()
    ready = [c["status"] for pod in pods for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"] * 1000
    assert len({pod["status"]["podIP"] for pod in pods}) == 1000
    rss = fleet.peak_rss_mib()
    print(f"created in {created:.1f} s, all Running after {took:.1f} s, peak RSS {rss:.0f} MiB")
    assert rss <= 150
    fleet.delete_all()
    wait_gone(fleet)
    assert fleet.peak_rss_mib() <= 150


def test_with_failures_every_pod_gets_there_in_the_end(mock_fleet: MockFleet) -> None:
    # With this seed none fails more than six times in a row: a minute of retries.
    fleet = mock_fleet("seed: 4\nfailures: {create: 0.4, update: 0.4, delete: 0.4, read: 0.4, ping: 0.2}")
    fleet.create(names(200))
    wait_running(fleet, 200, 120)
    fleet.delete_all()
    wait_gone(fleet, 120)


def test_a_pod_whose_provider_fails_says_so_and_runs_when_it_fails_no_more(
    mock_fleet: MockFleet, tmp_path: Path
) -> None:
    fleet = mock_fleet("failures: {create: 1}")
    fleet.create(["unlucky"])
    message = "the mock provider fails this create, as its config says"

    def says_so() -> bool:
        status = fleet.pod("unlucky")["status"]
        return (status["phase"], status.get("reason"), status.get("message")) == ("Pending", "ProviderFailed", message)

    wait_until(says_so)
    time.sleep(4)  # two more tries
    wait_until(lambda: fleet.events("unlucky") == [("Warning", "ProviderCreateFailed", message)])
    fleet.agent.kill9()
    (tmp_path / "mock.yaml").write_text("")
    fleet.agent.start()
    wait_running(fleet, 1)
    assert "reason" not in fleet.pod("unlucky")["status"]


def test_success_is_an_event_once_and_only_a_real_change_is_an_update(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    fleet.create(["web"])
    wait_running(fleet, 1)
    wait_until(lambda: fleet.events("web") == [CREATED])
    for colour in ("red", "blue"):
        fleet.plane.kubectl("label", "pod", "web", f"colour={colour}", "--overwrite", "--namespace", fleet.namespace)
    wait_until(lambda: fleet.events("web") == [CREATED, UPDATED])
    fleet.agent.kill9()
    fleet.agent.start()
    fleet.create(["next"])
    wait_running(fleet, 2)
    wait_until(lambda: fleet.events("next") == [CREATED])
    assert fleet.events("web") == [CREATED, UPDATED]


def test_a_pod_waits_for_its_secret_and_starts_when_it_is_there(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    sources = [{"secretRef": {"name": "key"}}, {"configMapRef": {"name": "spare", "optional": True}}]
    fleet.create(["needy"], containers=[{"name": "main", "image": "none", "envFrom": sources}])
    wait_until(lambda: fleet.pod("needy")["status"].get("reason") == "ProviderFailed")
    wait_until(lambda: len(fleet.events("needy")) == 3)
    assert set(fleet.events("needy")) == {
        ("Warning", "MandatorySecretNotFound", 'secret "key" not found'),
        ("Warning", "OptionalConfigMapNotFound", 'configmap "spare" not found'),
        ("Warning", "ProviderCreateFailed", 'secret "key" not found'),
    }
    fleet.plane.kubectl("create", "secret", "generic", "key", "--from-literal=a=b", "--namespace", fleet.namespace)
    wait_running(fleet, 1, 5)


def test_pods_survive_ten_kills_of_the_agent(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    fleet.create(names(30))
    wait_running(fleet, 30)
    before = fleet.lives()
    for _ in range(10):
        fleet.agent.kill9()
        fleet.agent.start()
        time.sleep(1)
    fleet.agent.wait_ready()
    fleet.create(["next"])
    wait_running(fleet, 31)
    after = fleet.lives()
    del after["next"]
    assert after == before
    assert len(fleet.at_the_provider()) == 31


def test_pods_survive_an_api_server_that_goes_and_comes_back(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    fleet.create(names(30))
    wait_running(fleet, 30)
    before, there = fleet.lives(), fleet.at_the_provider()
    fleet.plane.cut_off()
    try:
        fleet.agent.kill9()
        fleet.agent.start()
        time.sleep(8)
        assert fleet.at_the_provider() == there
    finally:
        fleet.plane.reconnect()
    fleet.create(["next"])
    wait_running(fleet, 31)
    after = fleet.lives()
    del after["next"]
    assert after == before


def test_what_ended_while_no_agent_was_there_is_told_and_not_run_again(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet("containers: {runSeconds: 4, exitCode: 3}")
    fleet.create(["job"], restartPolicy="Never")
    wait_running(fleet, 1)
    container = fleet.lives()["job"][1]
    fleet.agent.kill9()
    time.sleep(5)
    fleet.agent.start()
    wait_until(lambda: fleet.phases() == {"Failed": 1})
    fleet.agent.kill9()
    fleet.agent.start()
    fleet.agent.wait_ready()
    time.sleep(2)
    (status,) = fleet.pod("job")["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], status["restartCount"]) == (3, "Error", 0)
    assert ended["containerID"] + ended["startedAt"] == container


def test_pods_deleted_while_no_agent_was_there_are_ended_after_a_verified_list(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    fleet.create(["stays", "forced"])
    wait_running(fleet, 2)
    stays = fleet.pod("stays")["metadata"]["uid"]
    fleet.agent.kill9()
    fleet.plane.kubectl("delete", "pod/forced", "--force", "--grace-period=0", "--namespace", fleet.namespace)
    fleet.agent.start()
    wait_until(lambda: fleet.at_the_provider() == {stays})
    assert fleet.phases() == {"Running": 1}


def test_logs_and_exec_are_answered(mock_fleet: MockFleet) -> None:
    fleet = mock_fleet()
    fleet.create(["web"])
    wait_running(fleet, 1)
    there = ("--namespace", fleet.namespace)
    assert fleet.plane.kubectl("logs", "web", *there) == f"main in {fleet.namespace}/web: line 0\n"
    said = fleet.plane.kubectl("exec", "web", *there, "--", "uname", "-a")
    assert said == f"main in {fleet.namespace}/web: uname -a\n"
    assert fleet.plane.kubectl("exec", "-i", "web", *there, "--", "cat", stdin="back") == "back"
