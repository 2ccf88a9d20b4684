"""Decide whether a container runs again after its end: its own rules, its own restartPolicy, the pod's, in this order.

In: the pod, the container's spec, an exit code or what the runtime has. Out: yes or no. No I/O.
Source: the Kubernetes page "Pod Lifecycle", individual container restart policy and rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from agent.model.container import Container, ContainerRestartRule
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.pod import Pod
from agent.pods.backoff import Backoff, ready_at
from agent.pods.knowledge import Knowledge

RESTART = "Restart"
RESTART_ALL = "RestartAllContainers"


def restarts(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether it runs again after it has ended by itself with this code."""
    if container.restartPolicy is not None and _rule(container, exit_code) is not None:
        return True
    match container.restartPolicy or pod.spec.restartPolicy:
        case "Always":
            return True
        case "OnFailure":
            return exit_code != 0
        case _:
            return False


def restarts_when_killed(pod: Pod, container: Container) -> bool:
    """Whether it runs again after the node ended it for a failed probe: with what code it ended then says nothing."""
    return (container.restartPolicy or pod.spec.restartPolicy) != "Never"


def runs_again(pod: Pod, container: Container, ended: ObservedContainer, replaced: AbstractSet[str]) -> bool:
    """Of a container that has ended. `replaced`: the IDs of those that were ended in order to be started anew."""
    return ended.id in replaced or restarts(pod, container, ended.exit_code)


def is_renewed(container: ObservedContainer, knows: Knowledge) -> bool:
    """Whether the node has ended it for what it wrote to its file system."""
    ended = container.state is ContainerState.EXITED
    return ended and container.id in knows.renewed and container.id in knows.replaced


def restart_due(
    observed: ObservedPod,
    ended: ObservedContainer,
    backoff: Backoff | None,
    ended_at: Mapping[str, float],
    replaced: AbstractSet[str],
    now: float,
) -> float:
    """From when (monotonic seconds) an ended container that runs again may be started. `ended_at`: by container ID.

    One that the node ended itself has not crashed: like a kubelet, which ends it and starts the next in one step, it
    waits only if the end before this one is too fresh.
    """
    moment = ended_at.get(ended.id, now)
    if ended.id in replaced:
        before = end_before(observed, ended, ended_at)
        if before is None or ready_at(backoff, before) <= moment:
            return moment
    return ready_at(backoff, moment)


def end_before(observed: ObservedPod, ended: ObservedContainer, ended_at: Mapping[str, float]) -> float | None:
    """When the container of that name that ran before this one ended; None where nothing is left of it."""
    older = (c for c in observed.containers if c.name == ended.name and c.attempt < ended.attempt)
    return next((ended_at[c.id] for c in older if c.id in ended_at), None)


def may_restart_all(pod: Pod) -> bool:
    """Whether a rule of any container can make the whole pod start over."""
    rules = (rule for c in (*pod.spec.initContainers, *pod.spec.containers) for rule in c.restartPolicyRules)
    return any(rule.action == RESTART_ALL for rule in rules)


def causes_of_restart(pod: Pod, observed: ObservedPod) -> tuple[ObservedContainer, ...]:
    """The ended containers for which the whole pod must start over; none: it goes on."""
    found: list[ObservedContainer] = []
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        newest = observed.newest(container.name) if container.restartPolicyRules else None
        if newest is not None and newest.state is ContainerState.EXITED:
            rule = _rule(container, newest.exit_code)
            if rule is not None and rule.action == RESTART_ALL:
                found.append(newest)
    return tuple(found)


def _rule(container: Container, exit_code: int) -> ContainerRestartRule | None:
    """The first rule that is about this exit code."""
    for rule in container.restartPolicyRules:
        if rule.exitCodes is None:
            continue
        named = exit_code in rule.exitCodes.values
        if named == (rule.exitCodes.operator == "In"):
            return rule
    return None
