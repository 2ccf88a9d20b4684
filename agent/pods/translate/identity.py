"""How a pod and its containers are found again: labels, annotations, hash and log paths.

In: the pod and the container's attempt. Out: the strings that crictl, log shippers and a restarted agent read; all
names are the kubelet's own but the one that marks an object as ours. Nothing of the user's can override them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from agent.model import labels
from agent.model.container import Container, ContainerPort, HTTPGetAction, LifecycleHandler
from agent.model.pod import Pod
from agent.policies.bandwidth import EGRESS_BANDWIDTH, INGRESS_BANDWIDTH
from agent.policies.pod import NO_POLICIES, Policies


def spec_hash(container: Container) -> str:
    """A stable hex string over name and image, the only parts of a container that may change under a running pod."""
    text = json.dumps([container.name, container.image])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pod_log_directory(pod_logs_dir: str, pod: Pod) -> str:
    meta = pod.metadata
    return f"{pod_logs_dir}/{meta.namespace}_{meta.name}_{meta.uid}"


def container_log_path(name: str, attempt: int) -> str:
    """Relative to the pod's log directory."""
    return f"{name}/{attempt}.log"


def sandbox_labels(pod: Pod, node_name: str) -> dict[str, str]:
    return {**(pod.metadata.labels or {}), **_identity(pod, node_name)}


def sandbox_annotations(pod: Pod, seen: str, policies: Policies = NO_POLICIES) -> dict[str, str]:
    """The pod's own, where it came from, and `seen`, the RFC 3339 time at which the agent first had it.

    Of bandwidths those that hold: containerd reads them here, and makes no sandbox for a value that it can't read.
    """
    found = {labels.CONFIG_SOURCE: "api", labels.CONFIG_SEEN: seen, **(pod.metadata.annotations or {})}
    bandwidths = (
        (INGRESS_BANDWIDTH.annotation, policies.ingress_bandwidth),
        (EGRESS_BANDWIDTH.annotation, policies.egress_bandwidth),
    )
    for name, bits in bandwidths:
        found.pop(name, None)
        if bits is not None:
            found[name] = str(bits)
    return found


def container_labels(pod: Pod, container: Container, node_name: str) -> dict[str, str]:
    return {**_identity(pod, node_name), labels.CONTAINER_NAME: container.name}


def container_annotations(pod: Pod, container: Container, attempt: int) -> dict[str, str]:
    """Enough to end the container well when its pod is known no more: grace periods and the preStop hook as JSON."""
    found = {
        labels.CONTAINER_HASH: spec_hash(container),
        labels.CONTAINER_IMAGE: container.image,
        labels.CONTAINER_RESTART_COUNT: str(attempt),
        labels.CONTAINER_TERMINATION_PATH: container.terminationMessagePath,
        labels.CONTAINER_TERMINATION_POLICY: container.terminationMessagePolicy,
        labels.POD_GRACE: str(pod.spec.terminationGracePeriodSeconds),
    }
    if pod.metadata.deletionGracePeriodSeconds is not None:
        found[labels.POD_DELETION_GRACE] = str(pod.metadata.deletionGracePeriodSeconds)
    if container.lifecycle is not None and container.lifecycle.preStop is not None:
        found[labels.CONTAINER_PRE_STOP] = _compact(_handler(container.lifecycle.preStop))
    if container.ports:
        found[labels.CONTAINER_PORTS] = _compact([_port(port) for port in container.ports])
    return found


def _identity(pod: Pod, node_name: str) -> dict[str, str]:
    return {
        labels.POD_NAME: pod.metadata.name,
        labels.POD_NAMESPACE: pod.metadata.namespace,
        labels.POD_UID: pod.metadata.uid,
        labels.NODE: node_name,
    }


def _handler(handler: LifecycleHandler) -> dict[str, Any]:
    """The handler's JSON with the API's defaults spelled out: who reads it may not know them."""
    if handler.httpGet is not None:
        return {"httpGet": _http_get(handler.httpGet)}
    plain: dict[str, Any] = msgspec.to_builtins(handler)
    return plain


def _http_get(action: HTTPGetAction) -> dict[str, Any]:
    return {"path": action.path, "port": action.port, "scheme": action.scheme, **msgspec.to_builtins(action)}


def _port(port: ContainerPort) -> dict[str, Any]:
    return {**msgspec.to_builtins(port), "protocol": port.protocol}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
