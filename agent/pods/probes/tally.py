"""Count a container's probe results and say what they mean for it.

In: a probe's spec, its tally so far, and one more result. Out: the new tally; and from all tallies of a container its
`Health`. Pure. Source: the Kubernetes page "Liveness, Readiness, and Startup Probes".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agent.model.container import Container, Probe
from agent.model.pod import Pod
from agent.pods.knowledge import Health
from agent.pods.restart import restarts_when_killed


class ProbeKind(StrEnum):
    """As events spell them."""

    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


class Result(StrEnum):
    SUCCESS = "success"
    WARNING = "warning"
    """A success that somebody should look at."""
    FAILURE = "failure"
    ERROR = "error"
    """The probe itself could not be made: it says nothing of the container and is not counted."""


class Outcome(msgspec.Struct, frozen=True):
    """What one probe found."""

    result: Result
    output: str = ""
    state: str = "unknown"
    """What an ERROR says it resulted in."""


class Tally(msgspec.Struct, frozen=True):
    verdict: bool | None = None
    """None: no threshold has been reached yet."""
    last: bool | None = None
    streak: int = 0
    """How often in a row `last` was seen."""


def probes(container: Container) -> Mapping[ProbeKind, Probe]:
    """The probes that a container has."""
    found = {
        ProbeKind.STARTUP: container.startupProbe,
        ProbeKind.READINESS: container.readinessProbe,
        ProbeKind.LIVENESS: container.livenessProbe,
    }
    return {kind: probe for kind, probe in found.items() if probe is not None}


def count(tally: Tally, probe: Probe, success: bool) -> Tally:
    """The tally after one more result: a verdict changes when its threshold is reached."""
    streak = tally.streak + 1 if success is tally.last else 1
    threshold = probe.successThreshold if success else probe.failureThreshold
    return Tally(success if streak >= threshold else tally.verdict, success, streak)


def is_over(kind: ProbeKind, tally: Tally) -> bool:
    """True where the container must be a new one before this probe is worth making again."""
    match kind:
        case ProbeKind.STARTUP:
            return tally.verdict is not None
        case ProbeKind.LIVENESS:
            return tally.verdict is False
        case ProbeKind.READINESS:
            return False


def health(pod: Pod, container: Container, tallies: Mapping[ProbeKind, Tally]) -> Health:
    """What the tallies of a running container's probes mean; a probe without a tally is one that it has not."""
    startup, readiness = tallies.get(ProbeKind.STARTUP), tallies.get(ProbeKind.READINESS)
    started = startup is None or startup.verdict is True
    ready = started and (readiness is None or readiness.verdict is True)
    for kind, probe in probes(container).items():
        if kind is not ProbeKind.READINESS and tallies.get(kind, Tally()).verdict is False:
            init = any(c.name == container.name for c in pod.spec.initContainers)
            failed = f"{'Init container' if init else 'Container'} {container.name} failed {kind.lower()} probe"
            if (again := restarts_when_killed(pod, container)) and not init:
                failed += ", will be restarted"
            return Health(started, ready, failed, probe.terminationGracePeriodSeconds, restarts=again)
    return Health(started, ready)


def event(kind: ProbeKind, outcome: Outcome) -> tuple[str, str] | None:
    """Reason and message of the Warning that an outcome deserves, None where it deserves none."""
    match outcome.result:
        case Result.SUCCESS:
            return None
        case Result.WARNING:
            return "ProbeWarning", f"{kind} probe warning: {outcome.output}"
        case Result.FAILURE:
            return "Unhealthy", f"{kind} probe failed: {outcome.output}"
        case Result.ERROR:
            return "Unhealthy", f"{kind} probe errored and resulted in {outcome.state} state: {outcome.output}"
