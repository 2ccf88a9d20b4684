"""Which pods make room for one that the node cannot do without.

In: the claims of the pods that are here, what is missing, and the claim of the one that needs it. Out: the pods that
go, fewest and smallest first: best-effort before burstable before guaranteed, and none that is more than is needed.
None at all where even all of them would not be enough.
Source: the kubelet's preemption for critical pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.pods.admission.claim import Amounts, Claim
from agent.pods.qos import QosClass


def victims(wanted: Claim, here: Mapping[str, Claim], missing: Amounts) -> tuple[str, ...] | None:
    """The UIDs of the pods to end; None: no set of pods frees enough. `missing` is by resource, `pods` among them."""
    by_class = {qos: [(u, c) for u, c in here.items() if c.qos is qos and may_preempt(wanted, c)] for qos in QosClass}
    best_effort, burstable, guaranteed = (
        by_class[QosClass.BEST_EFFORT],
        by_class[QosClass.BURSTABLE],
        by_class[QosClass.GUARANTEED],
    )
    if _left(missing, (*best_effort, *burstable, *guaranteed)):
        return None
    from_guaranteed = _fewest(guaranteed, _left(missing, (*best_effort, *burstable)))
    from_burstable = _fewest(burstable, _left(missing, (*best_effort, *from_guaranteed)))
    from_best_effort = _fewest(best_effort, _left(missing, (*from_burstable, *from_guaranteed)))
    return tuple(uid for uid, _ in (*from_best_effort, *from_burstable, *from_guaranteed))


def may_preempt(wanted: Claim, other: Claim) -> bool:
    if wanted.critical and not other.critical:
        return True
    return wanted.priority is not None and other.priority is not None and wanted.priority > other.priority


_Candidate = tuple[str, Claim]


def _fewest(candidates: list[_Candidate], missing: Amounts) -> list[_Candidate]:
    """Again and again the one that covers most of what is still missing, the smaller one of two equals."""
    rest = list(candidates)
    chosen: list[_Candidate] = []
    while missing:
        best = min(rest, key=lambda one: (_distance(missing, one[1]), _frees(one[1], "memory"), _frees(one[1], "cpu")))
        rest.remove(best)
        chosen.append(best)
        missing = _left(missing, (best,))
    return chosen


def _left(missing: Amounts, gone: Iterable[_Candidate]) -> Amounts:
    gone = tuple(gone)
    left = {name: amount - sum(_frees(claim, name) for _, claim in gone) for name, amount in missing.items()}
    return {name: amount for name, amount in left.items() if amount > 0}


def _distance(missing: Amounts, claim: Claim) -> float:
    """Each resource weighs the same, however large its numbers are."""
    return sum(float(max(0, amount - _frees(claim, name)) / amount) ** 2 for name, amount in missing.items())


def _frees(claim: Claim, name: str) -> int:
    return 1 if name == "pods" else claim.requests.get(name, 0)
