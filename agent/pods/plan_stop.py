"""Decide the next step of a pod's end: all containers, sidecars in their turn, then sandbox and volumes.

In: the pod, what the runtime has of it, and when the grace period is over. Out: actions, the moment to look again, and
whether everything is down. No I/O.
"""

from __future__ import annotations

import math

from agent.model.action import Action, KillContainer, StopSandbox, TearDownVolumes
from agent.model.observed import ObservedPod
from agent.model.pod import Pod

MINIMUM_GRACE_S = 1
"""Time for a hook there is always, as the kubelet gives it."""


def plan_stop(
    pod: Pod, observed: ObservedPod, *, volumes_mounted: bool, deadline: float, now: float, again: bool = False
) -> tuple[tuple[Action, ...], float | None, bool]:
    """(actions, moment to look again, all down). `again`: what is ended is to run again later, whatever its exit code.

    Hooks of all containers begin at once. A sidecar is stopped after the main containers and the sidecars behind it;
    nobody waits for one of another kind (a debugger).
    """
    grace = max(MINIMUM_GRACE_S, math.ceil(deadline - now))
    sidecars = [c.name for c in pod.spec.initContainers if c.is_sidecar]
    named = {c.name for c in (*pod.spec.initContainers, *pod.spec.containers)}
    kills: list[Action] = []
    rank = {c.id: sidecars.index(c.name) if c.name in sidecars else len(sidecars) for c in observed.alive}
    for c in observed.alive:
        after = tuple(o.id for o in observed.alive if rank[o.id] > rank[c.id] and o.name in named)
        kills.append(KillContainer(c.id, c.name, grace, f"Stopping container {c.name}", replaced=again, after=after))
    if kills:
        return tuple(kills), None, False
    actions: list[Action] = [StopSandbox(s.id) for s in observed.sandboxes if s.ready]
    if volumes_mounted:
        actions.append(TearDownVolumes())
    return tuple(actions), None, not actions
