"""What was last said of a container that an earlier agent started: probes go on from there, and Ready does not flap.

In: the status that the record holds, and the API server's where that one does not know the container. Pure.
"""

from __future__ import annotations

from agent.model.pod import Pod
from agent.model.status import PodStatus
from agent.pods.knowledge import NO_HEALTH, Health


def last_health(container_id: str, recorded: PodStatus | None, pod: Pod) -> Health:
    """Neither started nor ready where nobody said anything of it."""
    said = f"containerd://{container_id}"
    if recorded is not None:
        for own in (*recorded.containerStatuses, *recorded.initContainerStatuses):
            if own.containerID == said:
                return Health(started=bool(own.started), ready=own.ready)
    for told in (*pod.status.containerStatuses, *pod.status.initContainerStatuses):
        if told.containerID == said:
            return Health(started=bool(told.started), ready=told.ready)
    return NO_HEALTH
