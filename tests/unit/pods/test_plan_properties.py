"""Whatever happens to a pod, planning, performing and observing come to rest, and on the way no rule is broken.

A small runtime in memory takes the planner's actions; hypothesis chooses the pod and what befalls it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.model.action import (
    Action,
    ContainerStart,
    CreateSandbox,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    SetUpVolumes,
    StartContainers,
    StopSandbox,
    TearDownVolumes,
)
from agent.model.container import Container, EphemeralContainer
from agent.model.observed import ObservedContainer, ObservedPod, ObservedSandbox
from agent.model.pod import Pod
from agent.model.status import Phase, PodStatus
from agent.pods.backoff import Backoff, raised
from agent.pods.knowledge import Failure, Health, Knowledge, Stop, StopCause
from agent.pods.plan import Plan, plan
from agent.pods.restart import causes_of_restart, restarts, restarts_when_killed, runs_again
from agent.pods.status import StatusContext, is_finished, pod_status
from agent.pods.translate.identity import spec_hash
from tests.unit.pods.observations import CREATED, EXITED, RUNNING, UNKNOWN, observed
from tests.unit.pods.pods import make_pod

STEPS = 300
"""More than any pod here needs to come to rest."""


@dataclass
class World:
    """One pod, the runtime that has it, and the worker's memory; it breaks off where a rule is broken."""

    pod: Pod
    sandboxes: dict[str, ObservedSandbox] = field(default_factory=dict)
    containers: dict[str, ObservedContainer] = field(default_factory=dict)
    now: float = 1000.0
    volumes_ready: bool = False
    mounted: bool = False
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    ended_at: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    last_attempt: int = -1
    attempts: dict[str, int] = field(default_factory=dict)
    """The highest of each container, as its logs on disk tell it: they outlive a restart of the agent."""
    replaced: set[str] = field(default_factory=set)
    stop: Stop | None = None
    status: PodStatus | None = None
    made: int = 0
    agents: int = 1
    """How many there were, one after the other."""
    runs: dict[str, int] = field(default_factory=dict)
    taken_down: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    """Containers whose liveness probe fails."""
    next_starts: list[str] = field(default_factory=list)
    """What becomes of the next starts: "fail", or "die" (the agent dies between create and start)."""

    # ------------------------------------------------------------ what the worker does

    def seen(self) -> ObservedPod:
        return observed(*self.sandboxes.values(), *self.containers.values())

    def knows(self) -> Knowledge:
        return Knowledge(
            volumes_ready=self.volumes_ready,
            volumes_mounted=self.mounted,
            failures=self.failures,
            backoffs=self.backoffs,
            ended_at=self.ended_at,
            attempts=self.attempts,
            replaced=frozenset(self.replaced),
            health={i: self._health(c) for i, c in self.containers.items()},
            stop=self.stop,
            ended=self.status is not None and self.status.phase.is_terminal,
            taken_down=frozenset(self.taken_down),
            last_sandbox_attempt=self.last_attempt,
        )

    def _health(self, container: ObservedContainer) -> Health:
        if container.id not in self.sick:
            return Health()
        return Health(failed="sick", restarts=restarts_when_killed(self.pod, self.spec(container.name)))

    def step(self) -> Plan:
        seen, knows = self.seen(), self.knows()
        decided = plan(self.pod, seen, knows, self.now)
        before = self.status
        context = StatusContext(("192.0.2.1",), self.now, self.now)
        self.status = pod_status(self.pod, seen, knows, before, context)
        counts = {s.name: s.restartCount for s in before.all_containers} if before is not None else {}
        for told in self.status.all_containers:
            assert told.restartCount >= counts.get(told.name, 0), "a restart count never falls"
        if before is not None and before.phase.is_terminal:
            assert self.status.phase is before.phase
        if self.status.phase.is_terminal:
            assert not seen.alive or (before is not None and before.phase.is_terminal)
        agents = self.agents
        for action in decided.actions:
            self.perform(action, seen)
            self.check()
            if self.agents > agents:
                break
        return decided

    def rest(self) -> Plan:
        """Step, and let time pass where that is what is waited for, until only an event could change anything."""
        for _ in range(STEPS):
            self.now += 0.1
            decided = self.step()
            if decided.actions:
                continue
            if decided.wake_at is None:
                return decided
            assert decided.wake_at > self.now, "woken for nothing"
            self.now = decided.wake_at
        raise AssertionError("it never comes to rest")

    def perform(self, action: Action, seen: ObservedPod) -> None:
        match action:
            case CreateSandbox():
                self._create_sandbox(action)
            case StopSandbox():
                assert not self._running_in(action.sandbox_id), "what runs in a sandbox ends before it"
                self._put_sandbox(replace(self.sandboxes[action.sandbox_id], ready=False))
                self.taken_down.add(action.sandbox_id)
            case RemoveSandbox():
                assert not [c for c in self.containers.values() if c.sandbox_id == action.sandbox_id]
                del self.sandboxes[action.sandbox_id]
            case SetUpVolumes():
                self.mounted = self.volumes_ready = True
            case TearDownVolumes():
                assert not self._running_in(None)
                self.mounted = self.volumes_ready = False
            case StartContainers():
                for order in action.starts:
                    if not self._start(order, seen):
                        break
            case KillContainer():
                self._kill(action, seen)
            case RemoveContainer():
                assert self.containers[action.container_id].state in (EXITED, CREATED)
                self.replaced.discard(action.container_id)
                del self.containers[action.container_id]
            case _:
                assert_never(action)

    def _create_sandbox(self, action: CreateSandbox) -> None:
        assert not [s for s in self.sandboxes.values() if s.ready], "never two sandboxes at once"
        assert not self._running_in(None), "what runs in a dead sandbox ends first"
        assert action.attempt not in {s.attempt for s in self.sandboxes.values()}, "the name is reserved"
        self.last_attempt = action.attempt
        self._put_sandbox(ObservedSandbox(f"s{action.attempt}", action.attempt, True, 1, ("10.0.0.5",)))

    def _start(self, order: ContainerStart, seen: ObservedPod) -> bool:
        assert self.volumes_ready
        assert seen.sandbox is not None
        assert seen.sandbox.ready
        self._check_turn(order.name, seen.sandbox)
        newest = seen.newest(order.name)
        if newest is not None and newest.id in self.ended_at and order.resume_id is None:
            known = self.backoffs.get(order.name)
            known = known if newest.spec_hash == spec_hash(self.spec(order.name)) else None
            self.backoffs[order.name] = raised(known, self.ended_at[newest.id], self.now)
        fate = self.next_starts.pop() if self.next_starts else "run"
        if fate == "fail":
            self.failures[order.name] = Failure("ErrImagePull", "no route", self.now + 2)
            return True
        self.failures.pop(order.name, None)
        if order.resume_id is None:
            assert order.attempt > self.attempts.get(order.name, -1), "a log is written once"
            self.attempts[order.name] = order.attempt
            self.made += 1
            made = ObservedContainer(
                id=f"{order.name}-{order.attempt}-{self.made}",
                name=order.name,
                sandbox_id=seen.sandbox.id,
                attempt=order.attempt,
                state=CREATED,
                image="busybox",
                image_id="sha256:1",
                spec_hash=spec_hash(self.spec(order.name)),
                created_at_ns=self.made,
            )
            self._put(made)
        else:
            made = self.containers[order.resume_id]
        if fate == "die":
            self.restart_agent()
            return False
        self.runs[order.name] = self.runs.get(order.name, 0) + 1
        self._put(replace(made, state=RUNNING, started_at_ns=1))
        return True

    def _kill(self, action: KillContainer, seen: ObservedPod) -> None:
        killed = self.containers[action.container_id]
        at_home = seen.sandbox is not None and seen.sandbox.ready and killed.sandbox_id == seen.sandbox.id
        healthy = killed.state is RUNNING and killed.id not in self.sick and at_home
        current = killed.spec_hash == spec_hash(self.spec(killed.name))
        ending = self.stop is not None or self.knows().ended or is_finished(self.pod, seen, self.knows())
        over = bool(causes_of_restart(self.pod, seen))
        assert not (healthy and current) or ending or over, "a healthy container is left alone"
        if action.replaced:
            self.replaced.add(killed.id)
        self.end(killed.id, 143)

    # ------------------------------------------------------------ the rules

    def check(self) -> None:
        names = [c.name for c in self.containers.values() if c.state is RUNNING]
        assert len(names) == len(set(names)), "two of one container run at the same time"
        inits = [c.name for c in self.pod.spec.initContainers if not c.is_sidecar]
        assert len([n for n in names if n in inits]) <= 1, "init containers run one after the other"

    def _check_turn(self, name: str, sandbox: ObservedSandbox) -> None:
        here = [c for c in self.containers.values() if c.sandbox_id == sandbox.id]
        begun = {c.name for c in here}
        mains = {c.name for c in self.pod.spec.containers}
        done = {c.name for c in here if c.state is EXITED and c.exit_code == 0}
        newest = self.seen().newest(name)
        ran_here = newest is not None and (name in mains or newest.sandbox_id == sandbox.id)
        if newest is not None and ran_here and newest.state is EXITED and name not in self.ephemeral:
            done_init = name not in mains and not self.spec(name).is_sidecar and newest.exit_code == 0
            again = runs_again(self.pod, self.spec(name), newest, self.replaced)
            assert again, "what is through is not repeated"
            assert not done_init, "what is through is not repeated"
        if name in self.ephemeral:
            assert newest is None or newest.state is CREATED, "an ephemeral container runs once"
        elif name in mains:
            if not begun & mains:
                for init in self.pod.spec.initContainers:
                    assert init.name in (begun if init.is_sidecar else done), f"{init.name} comes first"
        elif not self.spec(name).is_sidecar:
            assert not begun & mains, "init containers do not run beside main ones"
            for init in self.pod.spec.initContainers:
                if init.name == name:
                    break
                assert init.name in (begun if init.is_sidecar else done), f"{init.name} comes first"

    # ------------------------------------------------------------ what befalls it

    @property
    def ephemeral(self) -> set[str]:
        return {c.name for c in self.pod.spec.ephemeralContainers}

    def debug(self) -> None:
        """As `kubectl debug` does."""
        own = self.pod.spec.ephemeralContainers
        more = EphemeralContainer(name=f"e{len(own)}", image="busybox", targetContainerName="m0")
        spec = msgspec.structs.replace(self.pod.spec, ephemeralContainers=(*own, more))
        self.pod = msgspec.structs.replace(self.pod, spec=spec)

    def restart_agent(self) -> None:
        self.volumes_ready, self.last_attempt, self.backoffs, self.failures = False, -1, {}, {}
        self.replaced = set()
        self.agents += 1

    def end(self, container_id: str, code: int) -> None:
        self._put(replace(self.containers[container_id], state=EXITED, exit_code=code, finished_at_ns=2))
        self.ended_at[container_id] = self.now
        self.sick.discard(container_id)

    def befall(self, what: str, which: int, code: int) -> None:
        running = [c for c in self.containers.values() if c.state is RUNNING]
        victim = running[which % len(running)] if running else None
        newest = self.seen().sandbox
        match what:
            case "exit" if victim:
                self.end(victim.id, code)
            case "sick" if victim:
                self.sick.add(victim.id)
            case "unknown" if victim:
                self._put(replace(victim, state=UNKNOWN))
            case "debug":
                self.debug()
            case "image":
                self.change_image(which)
            case "lose pause" if newest:
                self._put_sandbox(replace(newest, ready=False))
            case "reboot":
                for container in running:
                    self.end(container.id, 255)
                for sandbox in tuple(self.sandboxes.values()):
                    self._put_sandbox(replace(sandbox, ready=False))
                self.restart_agent()
            case "remove pod":
                for container in running:
                    self.end(container.id, 137)
                self.sandboxes.clear()
                self.containers.clear()
                # Nothing is left that says that they ran; only a status could, and a pod without an end has none.
                self.runs.clear()
            case "revive" if self.sandboxes:
                sandbox = list(self.sandboxes.values())[which % len(self.sandboxes)]
                self._put_sandbox(replace(sandbox, ready=True))
            case "restart agent":
                self.restart_agent()
            case "time":
                self.now += which * 60
            case "fail" | "die":
                self.next_starts.append(what)

    def change_image(self, which: int) -> None:
        mains = list(self.pod.spec.containers)
        at = which % len(mains)
        mains[at] = msgspec.structs.replace(mains[at], image=f"busybox:{which}")
        spec = msgspec.structs.replace(self.pod.spec, containers=tuple(mains))
        self.pod = msgspec.structs.replace(self.pod, spec=spec)

    def spec(self, name: str) -> Container:
        return next(c for c in self.pod.spec.all_containers if c.name == name)

    def _running_in(self, sandbox_id: str | None) -> list[str]:
        running = [c for c in self.containers.values() if c.state is RUNNING]
        return [c.name for c in running if sandbox_id in (None, c.sandbox_id)]

    def _put(self, container: ObservedContainer) -> None:
        self.containers[container.id] = container

    def _put_sandbox(self, sandbox: ObservedSandbox) -> None:
        self.sandboxes[sandbox.id] = sandbox


RULES = st.lists(
    st.builds(
        lambda action, codes: {"action": action, "exitCodes": {"operator": codes[0], "values": codes[1]}},
        st.sampled_from(["Restart", "RestartAllContainers"]),
        # A pod that starts over for every success, or for every kill, never comes to rest.
        st.sampled_from(
            [("In", (1,)), ("In", (1, 3)), ("NotIn", (0, 137, 143, 255)), ("NotIn", (0, 1, 137, 143, 255))]
        ),
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    inits: list[dict[str, Any]] = []
    for index, sidecar in enumerate(draw(st.lists(st.booleans(), max_size=3))):
        inits.append({"name": f"i{index}", "image": "busybox", **({"restartPolicy": "Always"} if sidecar else {})})
    mains = [{"name": f"m{n}", "image": "busybox"} for n in range(draw(st.integers(1, 3)))]
    for one in (*(i for i in inits if "restartPolicy" not in i), *mains):
        own = draw(st.sampled_from(["", "", "", "OnFailure", "Never", *(["Always"] if one in mains else [])]))
        if own:
            one["restartPolicy"] = own
    for one in (*inits, *mains):
        if "restartPolicy" in one and draw(st.integers(0, 3)) == 0:
            one["restartPolicyRules"] = draw(RULES)
    policy = draw(st.sampled_from(["Always", "OnFailure", "Never"]))
    return make_pod(initContainers=inits, containers=mains, restartPolicy=policy)


BLOWS = st.tuples(
    st.sampled_from(
        ["exit"] * 5
        + ["debug", "sick", "unknown", "image", "lose pause", "reboot", "remove pod", "revive", "restart agent", "time"]
        + ["fail", "die"]
    ),
    st.integers(0, 20),
    st.sampled_from([0, 1]),
    st.integers(0, 4),
)
"""What, to which, with which exit code, and after how many steps."""


def complete_inits(world: World) -> None:
    """Bring the pod to rest, letting its init containers succeed when nothing else moves."""
    for _ in range(20):
        world.rest()
        inits = {c.name for c in world.pod.spec.initContainers if not c.is_sidecar}
        working = [c for c in world.containers.values() if c.state is RUNNING and c.name in inits]
        if not working:
            return
        for container in working:
            world.end(container.id, 0)
    raise AssertionError("init containers are run again and again")


def live(world: World, blows: list[tuple[str, int, int, int]]) -> None:
    for what, which, code, steps in blows:
        for _ in range(steps):
            world.now += 0.1
            world.step()
        world.befall(what, which, code)


@given(pods(), st.lists(BLOWS, max_size=8))
def test_a_pod_comes_to_rest_with_everything_running_that_should_or_with_nothing(pod: Pod, blows: Any) -> None:
    world = World(pod)
    live(world, blows)
    complete_inits(world)
    assert world.status is not None
    event(f"{world.status.phase}")
    running = {c.name for c in world.containers.values() if c.state is RUNNING}
    if world.status.phase.is_terminal:
        assert world.step().done
        assert not running
        assert not world.mounted
        assert not [s for s in world.sandboxes.values() if s.ready]
        return
    assert [s.ready for s in world.seen().sandboxes].count(True) == 1
    assert running >= {c.name for c in world.pod.spec.initContainers if c.is_sidecar}
    for container in world.pod.spec.containers:
        newest = world.seen().newest(container.name)
        assert newest is not None
        if container.name not in running:
            assert newest.state is EXITED
            assert not restarts(world.pod, container, newest.exit_code)
    assert {s.name for s in world.status.ephemeralContainerStatuses} == world.ephemeral
    assert all(s.state.waiting is None for s in world.status.ephemeralContainerStatuses)
    assert world.status.phase is Phase.RUNNING
    before = world.status
    world.now += 1000
    assert world.step() == Plan()
    assert world.status == before


@given(pods(), st.lists(BLOWS, max_size=6), st.sampled_from(list(StopCause)))
def test_a_pod_that_is_stopped_goes_down_whatever_befell_it(pod: Pod, blows: Any, cause: StopCause) -> None:
    world = World(pod)
    live(world, blows)
    before = world.status.phase if world.status else Phase.PENDING
    world.stop = Stop(cause, world.now + 30, "DeadlineExceeded")
    assert world.rest().done
    assert not world._running_in(None)
    assert not world.mounted
    assert not [s for s in world.sandboxes.values() if s.ready]
    assert world.status is not None
    assert world.status.phase.is_terminal is (before.is_terminal or cause is not StopCause.PAUSED)
    if cause is StopCause.FAILED and not before.is_terminal:
        assert (world.status.phase, world.status.reason) == (Phase.FAILED, "DeadlineExceeded")


@given(pods(), st.lists(BLOWS, max_size=4))
def test_what_ran_before_a_pause_runs_again_after_it(pod: Pod, blows: Any) -> None:
    world = World(pod)
    live(world, blows)
    complete_inits(world)
    mains = {container.name for container in world.pod.spec.containers}
    ran = {c.name for c in world.containers.values() if c.state is RUNNING} & mains
    world.stop = Stop(StopCause.PAUSED, world.now + 30)
    assert world.rest().done
    assert not world._running_in(None)
    world.stop = None
    for _ in range(4):
        complete_inits(world)
        world.now += 1000  # a container that had crashed just before waits for its backoff
        world.rest()
    assert {c.name for c in world.containers.values() if c.state is RUNNING} >= ran


@given(pods(), st.integers(0, 12))
def test_an_agent_that_restarts_at_any_moment_touches_nothing_that_runs(pod: Pod, steps: int) -> None:
    world = World(pod)
    for _ in range(steps):
        world.step()
    world.restart_agent()
    before = {c.id for c in world.containers.values() if c.state is RUNNING}
    complete_inits(world)
    inits = {c.name for c in world.pod.spec.initContainers if not c.is_sidecar}
    kept = {i for i in before if world.containers[i].name not in inits}
    assert all(world.containers[i].state is RUNNING for i in kept)
