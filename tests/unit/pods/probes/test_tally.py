from typing import Any

import pytest

from agent.model.container import Container, Probe
from agent.model.pod import Pod, pod_from_dict
from agent.pods.knowledge import Health
from agent.pods.probes.tally import Outcome, ProbeKind, Result, Tally, count, event, health, is_over, probes


def pod(restart: str = "Always", **container: object) -> Pod:
    spec = {"containers": [{"name": "c", **container}], "restartPolicy": restart}
    return pod_from_dict({"metadata": {}, "spec": spec})


def container(of: Pod) -> Container:
    return of.spec.containers[0]


ALL: dict[str, Any] = {"startupProbe": {}, "readinessProbe": {}, "livenessProbe": {"terminationGracePeriodSeconds": 3}}


def tallied(probe: Probe, results: str) -> Tally:
    tally = Tally()
    for result in results:
        tally = count(tally, probe, result == "+")
    return tally


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ("", None),
        ("--", None),
        ("---", False),
        ("+", None),
        ("++", True),
        ("++--", True),
        ("++---", False),
        ("--+--", None),
        ("---+", False),
        ("---+-+", False),
        ("---++", True),
    ],
)
def test_a_verdict_changes_when_its_threshold_is_reached_in_a_row(results: str, verdict: bool | None) -> None:
    assert tallied(Probe(successThreshold=2, failureThreshold=3), results).verdict is verdict


def test_a_container_without_probes_is_started_and_ready() -> None:
    assert health(pod(), container(pod()), {}) == Health()


def test_a_new_container_is_not_started_before_its_startup_probe_says_so() -> None:
    of = pod(**ALL)
    tallies = {kind: Tally() for kind in probes(container(of))}
    assert health(of, container(of), tallies) == Health(started=False, ready=False)
    tallies[ProbeKind.STARTUP] = Tally(True)
    assert health(of, container(of), tallies) == Health(started=True, ready=False)
    tallies[ProbeKind.READINESS] = Tally(True)
    assert health(of, container(of), tallies) == Health(started=True, ready=True)
    tallies[ProbeKind.READINESS] = Tally(False)
    assert health(of, container(of), tallies) == Health(started=True, ready=False)


@pytest.mark.parametrize(
    ("kind", "restart", "message", "grace"),
    [
        (ProbeKind.LIVENESS, "Always", "Container c failed liveness probe, will be restarted", 3),
        (ProbeKind.LIVENESS, "Never", "Container c failed liveness probe", 3),
        (ProbeKind.STARTUP, "OnFailure", "Container c failed startup probe, will be restarted", None),
    ],
)
def test_a_failed_container_is_to_be_killed(kind: ProbeKind, restart: str, message: str, grace: int | None) -> None:
    of = pod(restart, **ALL)
    got = health(of, container(of), {**{kind: Tally() for kind in probes(container(of))}, kind: Tally(False)})
    assert (got.failed, got.grace_s) == (message, grace)


def test_a_sidecar_is_restarted_whatever_the_pods_policy_is() -> None:
    of = pod("Never", restartPolicy="Always", livenessProbe={})
    got = health(of, container(of), {ProbeKind.LIVENESS: Tally(False)})
    assert got.failed.endswith("will be restarted")


@pytest.mark.parametrize("kind", [ProbeKind.LIVENESS, ProbeKind.STARTUP])
def test_of_a_sidecar_it_is_said_that_it_is_an_init_container(kind: ProbeKind) -> None:
    side = {"name": "side", "restartPolicy": "Always", "livenessProbe": {}, "startupProbe": {}}
    spec = {"initContainers": [side], "containers": [{"name": "c"}], "restartPolicy": "Never"}
    of = pod_from_dict({"metadata": {"name": "p"}, "spec": spec})
    got = health(of, of.spec.initContainers[0], {kind: Tally(False)})
    assert (got.failed, got.restarts) == (f"Init container side failed {kind.lower()} probe", True)


def test_only_readiness_goes_on_for_ever() -> None:
    verdicts = (None, True, False)
    assert [is_over(ProbeKind.STARTUP, Tally(verdict)) for verdict in verdicts] == [False, True, True]
    assert [is_over(ProbeKind.LIVENESS, Tally(verdict)) for verdict in verdicts] == [False, False, True]
    assert [is_over(ProbeKind.READINESS, Tally(verdict)) for verdict in verdicts] == [False, False, False]


def test_events_are_the_kubelets() -> None:
    assert event(ProbeKind.LIVENESS, Outcome(Result.SUCCESS, "fine")) is None
    assert event(ProbeKind.READINESS, Outcome(Result.FAILURE, "no")) == ("Unhealthy", "Readiness probe failed: no")
    assert event(ProbeKind.STARTUP, Outcome(Result.WARNING, "hm")) == ("ProbeWarning", "Startup probe warning: hm")
    assert event(ProbeKind.LIVENESS, Outcome(Result.ERROR, "x")) == (
        "Unhealthy",
        "Liveness probe errored and resulted in unknown state: x",
    )
