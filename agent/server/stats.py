"""The routes of figures, as a kubelet's are: /stats/summary, /metrics/resource and /metrics/cadvisor of the provider's
pods, 501 where it has none; /metrics and /metrics/probes of the agent itself.

In: the provider's answer, and what the agent counted. Out: JSON, or Prometheus' text.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from agent import own_metrics
from agent.errors import Permanent, Retryable
from agent.exposition import CONTENT_TYPE
from agent.instruments import text_of
from agent.providers.contract import ReadsCadvisor, ReadsMetrics, ReadsStats, ReadsVolumes
from agent.server.ports import Pods

_PROMETHEUS = {"Content-Type": CONTENT_TYPE}
_YES = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_CPU_AND_MEMORY = {
    "node": ("nodeName", "systemContainers", "startTime", "cpu", "memory", "swap"),
    "pod": ("podRef", "startTime", "containers", "cpu", "memory", "swap"),
    "container": ("name", "startTime", "cpu", "memory", "swap"),
}


class StatsRoutes:
    def __init__(self, provider: Pods) -> None:
        self._provider = provider

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        yield web.get("/stats/summary", self._summary, allow_head=False)
        yield web.get("/metrics", self._own, allow_head=False)
        yield web.get("/metrics/probes", self._probes, allow_head=False)
        yield web.get("/metrics/resource", self._resource, allow_head=False)
        yield web.get("/metrics/cadvisor", self._cadvisor, allow_head=False)

    async def _summary(self, request: web.Request) -> web.Response:
        if not isinstance(self._provider, ReadsStats):
            return web.Response(status=501, text="a stats summary is not implemented by this node's provider")
        summary = await self._provider.get_stats_summary()
        if request.query.get("only_cpu_and_memory") in _YES:
            summary = cpu_and_memory(summary)
        return web.Response(body=msgspec.json.encode(summary), content_type="application/json")

    async def _resource(self, _request: web.Request) -> web.Response:
        if not isinstance(self._provider, ReadsMetrics):
            return web.Response(status=501, text="resource metrics are not implemented by this node's provider")
        return _page(await self._provider.get_metrics_resource())

    async def _cadvisor(self, _request: web.Request) -> web.Response:
        if not isinstance(self._provider, ReadsCadvisor):
            return web.Response(status=501, text="cAdvisor's metrics are not implemented by this node's provider")
        return _page(await self._provider.get_metrics_cadvisor())

    async def _own(self, _request: web.Request) -> web.Response:
        volumes = ""
        if isinstance(self._provider, ReadsVolumes):
            # The agent's own figures are wanted most when the provider is away.
            with suppress(Retryable, Permanent):
                volumes = await self._provider.get_metrics_volumes()
        return _page(text_of(own_metrics.OWN) + volumes)

    async def _probes(self, _request: web.Request) -> web.Response:
        return _page(text_of(own_metrics.PROBES))


def cpu_and_memory(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary that autoscalers ask for."""
    pods = []
    for pod in summary.get("pods", ()):
        kept = _only(pod, "pod")
        kept["containers"] = [_only(one, "container") for one in pod.get("containers", ())]
        pods.append(kept)
    return {"node": _only(summary.get("node", {}), "node"), "pods": pods}


def _only(value: dict[str, Any], kind: str) -> dict[str, Any]:
    return {key: value[key] for key in _CPU_AND_MEMORY[kind] if key in value}


def _page(text: str) -> web.Response:
    return web.Response(text=text, headers=_PROMETHEUS)
