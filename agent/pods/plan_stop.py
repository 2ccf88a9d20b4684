"""Decide the next step of a pod's end: main containers together, sidecars in reverse order, sandbox and volumes.

In: the pod, what the runtime has of it, and when the grace period is over. Out: actions, the moment to look again, and
whether everything is down. No I/O.
"""

from __future__ import annotations

import math

from agent.model.action import Action, KillContainer, StopSandbox, TearDownVolumes
from agent.model.observed import ObservedPod
from agent.model.pod import Pod

MINIMUM_GRACE_S = 2
"""Even a container whose time is over gets this long to end by itself, as the kubelet gives it."""


def plan_stop(
    pod: Pod, observed: ObservedPod, *, volumes_mounted: bool, deadline: float, now: float
) -> tuple[tuple[Action, ...], float | None, bool]:
    """(actions, moment to look again, all down). Containers that the spec does not name end with the main ones."""
    grace = max(MINIMUM_GRACE_S, math.ceil(deadline - now))
    sidecars = [c.name for c in pod.spec.initContainers if c.is_sidecar]
    alive = observed.alive
    ending = [c for c in alive if c.name not in sidecars]
    if not ending and alive:
        last = max(sidecars.index(c.name) for c in alive)
        ending = [c for c in alive if c.name == sidecars[last]]
    if ending:
        kills = (KillContainer(c.id, c.name, grace, f"Stopping container {c.name}") for c in ending)
        return tuple(kills), None, False
    actions: list[Action] = [StopSandbox(s.id) for s in observed.sandboxes if s.ready]
    if volumes_mounted:
        actions.append(TearDownVolumes())
    return tuple(actions), None, not actions
