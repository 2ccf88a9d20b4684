"""The routes of the node's figures: /stats/summary and /metrics/resource, as a kubelet's are; 501 where the provider
has none.

In: the provider's answer. Out: it, as JSON or as Prometheus' text.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import web

from agent.providers.contract import ReadsMetrics, ReadsStats
from agent.server.ports import Pods

_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class StatsRoutes:
    def __init__(self, provider: Pods) -> None:
        self._provider = provider

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        yield web.get("/stats/summary", self._summary, allow_head=False)
        yield web.get("/metrics/resource", self._resource, allow_head=False)

    async def _summary(self, _request: web.Request) -> web.Response:
        if not isinstance(self._provider, ReadsStats):
            return web.Response(status=501, text="a stats summary is not implemented by this node's provider")
        summary = await self._provider.get_stats_summary()
        return web.Response(body=msgspec.json.encode(summary), content_type="application/json")

    async def _resource(self, _request: web.Request) -> web.Response:
        if not isinstance(self._provider, ReadsMetrics):
            return web.Response(status=501, text="resource metrics are not implemented by this node's provider")
        return web.Response(text=await self._provider.get_metrics_resource(), headers=_PROMETHEUS)
