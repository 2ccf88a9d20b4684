"""The last status of a pod whose provider does not have it any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agent.model.pod import PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, State, Terminated, timestamp

REASON = "NotFound"
MESSAGE = "The provider does not have the pod any more"
_KILLED = 137


def lost_status(last: PodStatus | None, wall: float) -> PodStatus:
    """Failed, with nothing running or ready; a pod that had ended before stays as it ended. `wall` dates the change."""
    if last is not None and last.phase.is_terminal:
        return last
    if last is None:
        return PodStatus(phase=Phase.FAILED, reason=REASON, message=MESSAGE)
    return msgspec.structs.replace(
        last,
        phase=Phase.FAILED,
        reason=REASON,
        message=MESSAGE,
        conditions=tuple(_unready(condition, wall) for condition in last.conditions),
        initContainerStatuses=_ended(last.initContainerStatuses, wall),
        containerStatuses=_ended(last.containerStatuses, wall),
    )


def _unready(condition: PodCondition, wall: float) -> PodCondition:
    if condition.type not in ("Ready", "ContainersReady") or condition.status != "True":
        return condition
    return msgspec.structs.replace(
        condition, status="False", reason="PodFailed", message=MESSAGE, lastTransitionTime=timestamp(wall)
    )


def _ended(statuses: Iterable[ContainerStatus], wall: float) -> tuple[ContainerStatus, ...]:
    return tuple(
        status
        if status.state.terminated is not None
        else msgspec.structs.replace(
            status,
            ready=False,
            started=False,
            state=State(
                terminated=Terminated(
                    exitCode=_KILLED,
                    reason=REASON,
                    message=MESSAGE,
                    startedAt=status.state.running.startedAt if status.state.running else None,
                    finishedAt=timestamp(wall),
                    containerID=status.containerID,
                )
            ),
        )
        for status in statuses
    )
