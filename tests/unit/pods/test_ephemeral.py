"""Ephemeral containers, as `kubectl debug` adds them: when they start, what is told, and that the rest goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.model.action import ContainerStart, KillContainer, RemoveContainer, StartContainers
from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.model.status import Phase, PodStatus, State, Waiting
from agent.pods.ephemeral import refused_ephemeral
from agent.pods.knowledge import Health, Knowledge, Stop, StopCause
from agent.pods.logs import logged_container
from agent.pods.plan import Plan, plan
from agent.pods.scripts.host_program import host_view
from agent.pods.status import StatusContext, pod_status
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.security import namespaces
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.observations import CREATED, container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod
from tests.unit.pods.scene import record, scene

NOW = 5000.0
READY = Knowledge(volumes_ready=True, volumes_mounted=True)
DEBUG: dict[str, Any] = {"name": "debug", "image": "busybox", "targetContainerName": "main", "stdin": True, "tty": True}


def debugged(**spec: Any) -> Pod:
    return make_pod(ephemeralContainers=[DEBUG], **spec)


def look(pod: Pod, seen: ObservedPod, knows: Knowledge = READY) -> Plan:
    return plan(pod, seen, knows, NOW)


def starts(made: Plan) -> list[ContainerStart]:
    return [start for action in made.actions if isinstance(action, StartContainers) for start in action.starts]


def told(pod: Pod, seen: ObservedPod, knows: Knowledge = READY, previous: PodStatus | None = None) -> PodStatus:
    return pod_status(pod, seen, knows, previous, StatusContext(("192.0.2.1",), 1_700_000_100.0, NOW))


# ---------------------------------------------------------------- the planner


def test_it_starts_beside_what_runs() -> None:
    assert starts(look(debugged(), observed(sandbox(), container()))) == [ContainerStart("debug", 0)]


def test_it_does_not_wait_for_init_containers() -> None:
    pod = debugged(initContainers=[{"name": "a", "image": "busybox"}])
    assert starts(look(pod, observed(sandbox(), container("a")))) == [ContainerStart("debug", 0)]
    failing = observed(sandbox(), exited("a", 1))
    assert [s.name for s in starts(look(pod, failing))] == ["debug", "a"]


@pytest.mark.parametrize(
    ("seen", "knows"),
    [
        (observed(sandbox(), container(), exited("debug", 1)), READY),
        (observed(sandbox(1), sandbox(0, ready=False), container(sandbox_id="s1"), exited("debug", 0)), READY),
        (observed(sandbox(), container()), replace(READY, attempts={"debug": 0})),
    ],
    ids=["failed", "in an earlier sandbox", "removed"],
)
def test_it_runs_once_whatever_became_of_it(seen: ObservedPod, knows: Knowledge) -> None:
    assert not starts(look(debugged(), seen, knows))


def test_one_that_was_made_and_not_started_is_started() -> None:
    seen = observed(sandbox(), container(), container("debug", CREATED))
    assert starts(look(debugged(), seen)) == [ContainerStart("debug", 0, resume_id="debug-0")]
    # Its sandbox died first: its program has not run yet, and does in the next.
    elsewhere = observed(sandbox(0, ready=False), sandbox(1), container(sandbox_id="s1"), container("debug", CREATED))
    assert starts(look(debugged(), elsewhere)) == [ContainerStart("debug", 1)]


def test_neither_another_definition_nor_health_ends_it() -> None:
    changed = container("debug", spec_hash="other")
    knows = replace(READY, health={"main-0": Health(), "debug-0": Health()})
    assert look(debugged(), observed(sandbox(), container(), changed), knows) == Plan()


def test_it_ends_with_the_main_containers_and_no_sidecar_waits_for_it() -> None:
    pod = debugged(initContainers=[{"name": "side", "image": "busybox", "restartPolicy": "Always"}])
    seen = observed(sandbox(), container("side"), container(), container("debug"))
    stopped = replace(READY, stop=Stop(StopCause.DELETED, NOW + 30))
    kills = {a.name: a.after for a in look(pod, seen, stopped).actions if isinstance(a, KillContainer)}
    assert kills == {"debug": (), "main": (), "side": ("main-0",)}


def test_it_ends_when_the_pod_has_done_its_work_and_not_before() -> None:
    pod = debugged(restartPolicy="Never")
    made = look(pod, observed(sandbox(), exited(), container("debug")))
    assert [a.name for a in made.actions if isinstance(a, KillContainer)] == ["debug"]


def test_a_pod_that_starts_over_leaves_it_alone() -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    main = {"name": "main", "image": "busybox", "restartPolicy": "Never", "restartPolicyRules": [rule]}
    made = look(debugged(containers=[main]), observed(sandbox(), exited(code=42), container("debug")))
    assert made.actions == (RemoveContainer("main-0", keep_log=True),)


# ---------------------------------------------------------------- the status


def test_it_has_a_status_of_its_own_and_is_never_ready() -> None:
    status = told(debugged(), observed(sandbox(), container(), container("debug")))
    (own,) = status.ephemeralContainerStatuses
    assert own.state.running is not None
    assert (own.ready, own.started, own.containerID) == (False, None, "containerd://debug-0")
    assert [s.name for s in status.containerStatuses] == ["main"]


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.SUCCEEDED), (1, Phase.FAILED)])
def test_the_phase_is_that_of_the_main_containers(code: int, phase: Phase) -> None:
    pod = debugged(restartPolicy="Never")
    assert told(pod, observed(sandbox(), exited(code=code), exited("debug", 1 - code))).phase is phase
    failed = told(debugged(), observed(sandbox(), container(), exited("debug", 1)))
    assert failed.phase is Phase.RUNNING
    assert failed.ephemeralContainerStatuses[0].state.terminated is not None


def test_one_that_the_runtime_has_no_more_stays_ended() -> None:
    seen = observed(sandbox(), container())
    ran = told(debugged(), observed(sandbox(), container(), container("debug")))
    lost = told(debugged(), seen, previous=ran)
    assert lost.ephemeralContainerStatuses[0].state.terminated is not None
    ended = told(debugged(), observed(sandbox(), container(), exited("debug", 3)))
    assert told(debugged(), seen, previous=ended).ephemeralContainerStatuses == ended.ephemeralContainerStatuses
    assert lost.phase is Phase.RUNNING
    unseen = told(debugged(), seen, replace(READY, attempts={"debug": 0}))
    assert unseen.ephemeralContainerStatuses[0].state.terminated is not None


def test_one_that_was_not_made_yet_waits() -> None:
    status = told(debugged(), observed(sandbox(), container()))
    assert status.ephemeralContainerStatuses[0].state == State(waiting=Waiting(reason="ContainerCreating"))


def test_its_log_is_found_by_its_name() -> None:
    status = told(debugged(), observed(sandbox(), container(), exited("debug")))
    assert logged_container("web", "debug", status, False) == "debug-0"


# ---------------------------------------------------------------- what it is made of


CONTEXT = TranslateContext(node_name="node-1", memory_capacity_bytes=1 << 30)


@pytest.mark.parametrize(
    ("spec", "mode", "target"),
    [
        ({}, api_pb2.TARGET, "c-1"),
        ({"shareProcessNamespace": True}, api_pb2.POD, ""),
        ({"hostPID": True}, api_pb2.NODE, ""),
    ],
)
def test_a_target_counts_where_each_container_has_processes_of_its_own(
    spec: dict[str, Any], mode: int, target: str
) -> None:
    made = namespaces(make_pod(**spec), CONTEXT, "c-1")
    assert (made.pid, made.target_id) == (mode, target)
    assert namespaces(make_pod(**spec), CONTEXT).target_id == ""


def test_what_it_asks_and_cannot_have_is_refused_for_it_alone() -> None:
    bad = {"name": "bad", "image": "x", "resources": {"claims": [{"name": "gpu"}]}}
    refused = refused_ephemeral({"spec": {"hostUsers": False, "ephemeralContainers": [DEBUG, bad]}})
    assert list(refused) == ["bad"]
    assert refused["bad"].message == "spec.ephemeralContainers[1].resources.claims: is not supported by this node"
    assert (
        look(debugged(), observed(sandbox(), container()), replace(READY, failures={"debug": refused["bad"]})) == Plan()
    )


def test_a_pod_of_host_programs_has_none() -> None:
    assert host_view(debugged()).spec.ephemeralContainers == ()


# ---------------------------------------------------------------- through the worker


@with_skipped_time
async def test_kubectl_debug_starts_a_container_in_the_processes_of_its_target(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record({"generation": 1}))
        s.objects.put("configmaps", "settings", data={"a": "1"})
        env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
        worker.update(record({"generation": 2}, ephemeralContainers=[{**DEBUG, "env": env}]))
        await s.until(lambda: s.is_running("debug"))
        made = s.cri.container("debug").config
        options = made.linux.security_context.namespace_options
        assert (options.pid, options.target_id) == (api_pb2.TARGET, s.cri.container("main").id)
        assert (made.stdin, made.tty, made.log_path) == (True, True, "debug/0.log")
        assert [(e.key, e.value) for e in made.envs if e.key == "A"] == [("A", b"1")]
        await s.until(lambda: s.updates[-1].status.ephemeralContainerStatuses[0].state.running)
        s.exit("debug", 1)
        await s.until(lambda: s.updates[-1].status.ephemeralContainerStatuses[0].state.terminated)
        await quiet()
        assert len(s.cri.containers) == 2
        assert s.main().restartCount == 0
        # Nor does a new agent start it again, be it all that is left of it is its log.
        last = s.updates[-1].status
        await s.killed_agent()
        del s.cri.containers[s.cri.container("debug").id]
        s.start(record(ephemeralContainers=[DEBUG]), last)
        await quiet()
        assert len(s.cri.containers) == 1


@with_skipped_time
async def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.update(record(ephemeralContainers=[DEBUG | {"targetContainerName": "gone"}]))
        await s.until(lambda: "unable to find target container gone" in str(s.events.messages("Failed")))
        assert s.updates[-1].status.phase is Phase.RUNNING
