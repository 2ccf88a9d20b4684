"""Keep the prober in step with what the runtime shows of one pod: probe what runs, leave what has ended.

In: the pod's state, the pod as observed and the status last told. Out: calls of the prober. It decides nothing of the
pod: what probes find comes back as health.
"""

from __future__ import annotations

from agent.model.observed import ContainerState, ObservedPod
from agent.model.status import PodStatus
from agent.pods.addresses import pod_addresses
from agent.pods.adopted import last_health
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState


def probe_running(machine: Machine, state: PodState, observed: ObservedPod, told: PodStatus | None) -> None:
    """Probe what runs, also what an earlier agent started, whose last health `told` has, and leave what has ended."""
    prober, pod = machine.prober, state.pod
    health = prober.health(observed.uid)
    ips = pod_addresses(pod, observed.sandbox.ips if observed.sandbox else (), machine.node.host_ips)
    for container in observed.containers:
        if container.state is not ContainerState.RUNNING:
            if container.id in health:
                prober.stop(container.id)
            state.post_starting.pop(container.id, None)
        elif container.id not in health and container.id not in state.post_starting:
            spec = state.container(container.name)
            if spec is not None:
                age = machine.age(container.started_at_ns)
                adopted = last_health(container.id, told, pod)
                prober.start(pod, spec, container.id, next(iter(ips), ""), running_for_s=age, adopted=adopted)
    if state.stop is not None:
        prober.quiet(observed.uid)
