"""What changed from one status of a pod to the next, in words. Pure.

While cut off only the newest status waits for the API server; these lines are what is left of those before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.model.status import ContainerStatus, PodStatus, State

REASON = "StatusChanged"


def transitions(before: PodStatus | None, after: PodStatus) -> tuple[str, ...]:
    """Phase, conditions and containers' states; nothing where a reader would see no difference."""
    if before is None:
        return (f"phase {after.phase}",)
    return tuple(_changes(before, after))


def _changes(before: PodStatus, after: PodStatus) -> Iterator[str]:
    if before.phase != after.phase:
        yield f"phase {before.phase} to {after.phase}" + (f" ({after.reason})" if after.reason else "")
    for condition in after.conditions:
        was = before.condition(condition.type)
        if was is None or was.status != condition.status:
            yield f"{condition.type} {condition.status}" + (f" ({condition.reason})" if condition.reason else "")
    known = {status.name: status for status in before.all_containers}
    for status in after.all_containers:
        was_in = _state(known.get(status.name))
        if was_in != (now_in := _state(status)):
            yield f"container {status.name} {now_in}"


def _state(status: ContainerStatus | None) -> str:
    if status is None:
        return ""
    restarted = f", restart {status.restartCount}" if status.restartCount else ""
    match status.state:
        case State(running=running) if running is not None:
            return f"running{restarted}"
        case State(terminated=ended) if ended is not None:
            return f"ended with {ended.exitCode}" + (f" ({ended.reason})" if ended.reason else "") + restarted
        case State(waiting=waiting) if waiting is not None:
            return f"waiting ({waiting.reason})" + restarted
    return ""
