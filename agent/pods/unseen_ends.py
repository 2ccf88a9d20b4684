"""What the status of an ended pod says of containers that nobody has seen end: Unknown, with the exit code of a kill.

In: the container statuses of a pod whose end is complete. Out: the same, with an end for every container of which that
can be said: init containers up to the last that ran, at least the first; main containers once the pod was initialized.
The rest never had their turn, and go on waiting in the record. Pure. The rules are the kubelet's.
"""

from __future__ import annotations

import msgspec

from agent.model.pod import Pod
from agent.model.status import ContainerStatus, PodStatus, State, Terminated

_Statuses = tuple[ContainerStatus, ...]

UNSEEN = Terminated(
    exitCode=137,
    reason="ContainerStatusUnknown",
    message="The container could not be located when the pod was terminated",
)


def with_unseen_ends(
    pod: Pod, inits: _Statuses, mains: _Statuses, previous: PodStatus | None
) -> tuple[_Statuses, _Statuses]:
    """(init containers, main containers)."""
    ran = [i for i, s in enumerate(inits) if s.state.waiting is None or s.lastState.terminated is not None]
    turn = max(ran, default=0) + 1
    if _was_initialized(pod, inits, mains, previous):
        turn = len(inits)
        mains = tuple(_ended(s) for s in mains)
    return tuple(_ended(s) if i < turn else s for i, s in enumerate(inits)), mains


def _was_initialized(pod: Pod, inits: _Statuses, mains: _Statuses, previous: PodStatus | None) -> bool:
    if not inits or any(s.state.waiting is None or s.lastState.terminated is not None for s in mains):
        return True
    said = previous.condition("Initialized") if previous is not None else None
    if said is not None and said.status == "True":
        return True
    last = inits[-1].state.terminated or inits[-1].lastState.terminated
    return not pod.spec.initContainers[-1].is_sidecar and last is not None and last.exitCode == 0


def _ended(status: ContainerStatus) -> ContainerStatus:
    if status.state.terminated is not None:
        return status
    return msgspec.structs.replace(status, state=State(terminated=UNSEEN), ready=False, started=False)
