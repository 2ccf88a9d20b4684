"""Refuse of a pod what this node does not do or its owner does not allow, by the field's name, in its state and events.

In: the record as it came. Out: `refused` in the pod's state (nothing of the pod is run then), failures of ephemeral
containers, and events. What is refused is said in `support`, and for host programs in `scripts`.
"""

from __future__ import annotations

import msgspec

from agent.model.objects import ObjectReference
from agent.model.pod import pod_from_dict
from agent.model.record import PodRecord
from agent.pods.ephemeral import OF_THE_HOST, is_of_ephemeral, refused_ephemeral
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState
from agent.pods.scripts.allowed import SCRIPTS_DISABLED
from agent.pods.scripts.host_program import refusals as host_refusals
from agent.pods.scripts.kind import is_scripts
from agent.pods.support import unsupported

UNSUPPORTED = "UnsupportedField"


def refuse_unsupported(machine: Machine, state: PodState, *, has_run: bool) -> None:
    """Judge a pod that the worker has just been given; one that has run was admitted before."""
    pod = state.pod
    raw = msgspec.json.decode(state.record.raw)
    refusals = [str(refusal) for refusal in unsupported(raw) if not is_of_ephemeral(refusal)]
    state.failures |= refused_ephemeral(raw)
    if is_scripts(pod):
        # What a status says of such a pod proves nothing: only the owner's rules let it run.
        if (disabled := machine.scripts.rules.refusal(pod)) is not None:
            _refuse(machine, state, SCRIPTS_DISABLED, disabled)
            return
        refusals += [str(refusal) for refusal in host_refusals(pod_from_dict(raw))]
    # A pod of another system is rejected as a whole, for good.
    is_linux = pod.spec.os is None or pod.spec.os.name == "linux"
    if refusals and is_linux and not has_run:
        _refuse(machine, state, UNSUPPORTED, "; ".join(refusals))


def say_ignored(machine: Machine, state: PodState, changed: PodRecord) -> None:
    """A pod that runs goes on; what was added to it and is not done here is said, once."""
    raw = msgspec.json.decode(changed.raw)
    before = {str(refusal) for refusal in unsupported(msgspec.json.decode(state.record.raw))}
    now = [str(refusal) for refusal in unsupported(raw)]
    if is_scripts(changed.pod) and raw["spec"].get("ephemeralContainers"):
        now.append(str(OF_THE_HOST))
    state.failures |= refused_ephemeral(raw)
    if added := [refusal for refusal in now if refusal not in before]:
        _warn(machine, state, UNSUPPORTED, f"This node does not do this: {'; '.join(added)}")


def _refuse(machine: Machine, state: PodState, reason: str, why: str) -> None:
    state.refused, state.refused_reason = why, reason
    _warn(machine, state, reason, f"This node does not run the pod: {why}")


def _warn(machine: Machine, state: PodState, reason: str, message: str) -> None:
    machine.events.record(ObjectReference.of(state.pod), "Warning", reason, message)
