"""The environment of a pod's containers, with every reference resolved: for providers that run programs themselves.

In: a pod. Out: name and value pairs for each container, as a kubelet would set them: service links, envFrom,
ConfigMaps, Secrets, the downward API. What a pod has only once it runs (its own addresses) is empty.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.model.record import PodRecord
from agent.pods.downward import NodeContext
from agent.pods.env import build_env
from agent.pods.references import fetch
from agent.providers.contract import ProviderContext


async def environment(context: ProviderContext, record: PodRecord) -> Mapping[str, Mapping[str, str]]:
    """By container's name, init containers too.

    Raises Retryable where an object cannot be had now, and Permanent where one that is needed is missing.
    """
    node = NodeContext(context.settings.node_name, context.node_ips, allocatable=context.facts.allocatable)
    referenced = await fetch(record.pod, context.objects, None)
    containers = (*record.pod.spec.initContainers, *record.pod.spec.containers)
    return {one.name: dict(build_env(record.pod, one, referenced, node).env) for one in containers}
