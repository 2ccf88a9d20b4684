"""One pod as a row of a table: ready containers, the word for its status, restarts.

In: the pod. Out: cells, by the rules of Kubernetes' own printer (v1.36): init containers speak until they are through,
then the containers do, and a deletion has the last word. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]

POD_COLUMNS = (
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
)
_NONE = "<none>"


def pod_cells(pod: Json, ago: Callable[[object], str]) -> list[object]:
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    ready, total, word, restarts, restarted_at = _summary(spec, status)
    if meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            word = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            word = "Terminating"
    told = f"{restarts} ({ago(restarted_at)} ago)" if restarts and restarted_at else str(restarts)
    addresses: Sequence[Json] = status.get("podIPs") or ()
    return [
        meta["name"],
        f"{ready}/{total}",
        word,
        told,
        ago(meta.get("creationTimestamp")),
        (addresses[0].get("ip") if addresses else "") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _gates(spec, status),
    ]


def _summary(spec: Json, status: Json) -> tuple[int, int, str, int, str]:
    """Ready containers, all that count, the status's word, restarts, and when the last one was."""
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    conditions: Sequence[Json] = status.get("conditions") or ()
    word = status.get("reason") or status.get("phase") or ""
    if any(c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions):
        word = "SchedulingGated"
    ready = restarts = of_sidecars = 0
    last = last_of_sidecars = ""
    initializing = False
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        restarts += container.get("restartCount", 0)
        last = max(last, _ended_before(container))
        is_sidecar = container["name"] in sidecars
        if is_sidecar:
            of_sidecars += container.get("restartCount", 0)
            last_of_sidecars = max(last_of_sidecars, _ended_before(container))
        state = container.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode", 0) == 0:
            continue
        if is_sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        waiting = (state.get("waiting") or {}).get("reason", "")
        if ended:
            word = f"Init:{_end(ended)}"
        elif waiting and waiting != "PodInitializing":
            word = f"Init:{waiting}"
        else:
            word = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        initializing = True
        break
    if initializing and not _is_true(conditions, "Initialized"):
        return ready, total, word, restarts, last
    restarts, last = of_sidecars, last_of_sidecars
    running, failure = False, ""
    for container in reversed(status.get("containerStatuses") or ()):
        restarts += container.get("restartCount", 0)
        last = max(last, _ended_before(container))
        state = container.get("state") or {}
        ended = state.get("terminated")
        if waiting := (state.get("waiting") or {}).get("reason", ""):
            word = waiting
        elif ended:
            word = _end(ended)
            failure = word if ended.get("exitCode", 0) != 0 else failure
        elif container.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if word == "Completed":
        if running and _is_true(conditions, "Ready"):
            word = "Running"
        elif failure:
            word = failure
        elif running:
            word = "NotReady"
    return ready, total, word, restarts, last


def _end(ended: Json) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _ended_before(container: Json) -> str:
    return ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""


def _is_true(conditions: Sequence[Json], kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def _gates(spec: Json, status: Json) -> str:
    gates = [gate.get("conditionType", "") for gate in spec.get("readinessGates") or ()]
    if not gates:
        return _NONE
    return f"{sum(_is_true(status.get('conditions') or (), gate) for gate in gates)}/{len(gates)}"
