"""Decide the next step of a pod that starts over: a container ended, and its rule says RestartAllContainers.

In: what the runtime has of the pod, and the containers that caused it. Out: actions. What runs ends at once, then the
victims are removed, last the causes: as long as one of those is there, a restarted agent goes on with it. Logs stay,
the sandbox stays; with nothing left, the ordinary plan begins with the first init container. No I/O.
"""

from __future__ import annotations

from agent.model.action import Action, KillContainer, RemoveContainer
from agent.model.observed import ObservedContainer, ObservedPod
from agent.model.pod import Pod


def plan_restart(pod: Pod, observed: ObservedPod, causes: tuple[ObservedContainer, ...]) -> tuple[Action, ...]:
    names = {c.name for c in (*pod.spec.initContainers, *pod.spec.containers)}
    alive = [c for c in observed.alive if c.name in names]
    if alive:
        message = "Container {} is stopped, all containers of the pod are restarted"
        return tuple(KillContainer(c.id, c.name, 0, message.format(c.name)) for c in alive)
    first = {c.id for c in causes}
    victims = [c for c in observed.containers if c.name in names and c.id not in first]
    return tuple(RemoveContainer(c.id, keep_log=True) for c in victims or causes)
