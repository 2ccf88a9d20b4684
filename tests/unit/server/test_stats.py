"""The node's figures: what the provider has, or 501."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agent import own_metrics
from agent.config import Settings
from agent.errors import Retryable
from tests.unit.server.authority import Authority
from tests.unit.server.serving import Silent, served

SUMMARY = {"node": {"nodeName": "n1"}, "pods": []}


class Counting(Silent):
    async def get_stats_summary(self) -> dict[str, Any]:
        return SUMMARY

    async def get_metrics_resource(self) -> str:
        return "node_cpu_usage_seconds_total 4.5\n"


class Watched(Counting):
    async def get_metrics_cadvisor(self) -> str:
        return "machine_cpu_cores 2\n"

    async def get_metrics_volumes(self) -> str:
        raise Retryable("the provider is away")


class Away(Silent):
    async def get_stats_summary(self) -> dict[str, Any]:
        raise Retryable("the provider is away")


async def test_a_provider_with_figures_is_asked_for_them(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Counting(), authority.pem, admin) as api:
        status, body = await api.get("/stats/summary")
        assert (status, json.loads(body)) == (200, SUMMARY)
        async with api.session.get(api.url + "/metrics/resource") as answer:
            assert (answer.status, await answer.text()) == (200, "node_cpu_usage_seconds_total 4.5\n")
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_a_provider_without_figures_is_said_to_have_none(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert await api.get("/stats/summary") == (
            501,
            "a stats summary is not implemented by this node's provider",
        )
        assert await api.get("/metrics/resource") == (
            501,
            "resource metrics are not implemented by this node's provider",
        )


async def test_figures_that_cannot_be_had_now_are_a_503(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Away(), authority.pem, admin) as api:
        assert await api.get("/stats/summary") == (503, "the provider is away")


async def test_the_agents_own_figures_are_there_whatever_the_provider_says(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    own_metrics.STARTED_PODS.inc()
    for provider in (Silent(), Watched()):
        async with served(settings, provider, authority.pem, admin) as api:
            status, text = await api.get("/metrics")
            assert status == 200
            families = {family.name: family for family in text_string_to_metric_families(text)}
            assert families["kubelet_started_pods"].samples[0].value >= 1
            assert (await api.get("/metrics/probes"))[0] == 200


async def test_cadvisors_metrics_are_the_providers(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Watched(), authority.pem, admin) as api:
        assert await api.get("/metrics/cadvisor") == (200, "machine_cpu_cores 2\n")
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert (await api.get("/metrics/cadvisor"))[0] == 501


async def test_a_summary_of_cpu_and_memory_alone_leaves_the_rest_out(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    container = {"name": "main", "cpu": {"usageNanoCores": 1}, "memory": {}, "rootfs": {}}
    pod = {"podRef": {"name": "web"}, "cpu": {}, "network": {}, "containers": [container]}
    full = {"node": {"nodeName": "n1", "cpu": {}, "fs": {}}, "pods": [pod]}

    class Full(Silent):
        async def get_stats_summary(self) -> dict[str, Any]:
            return full

    async with served(settings, Full(), authority.pem, admin) as api:
        _, body = await api.get("/stats/summary?only_cpu_and_memory=true")
        kept = {"name": "main", "cpu": {"usageNanoCores": 1}, "memory": {}}
        assert json.loads(body) == {
            "node": {"nodeName": "n1", "cpu": {}},
            "pods": [{"podRef": {"name": "web"}, "cpu": {}, "containers": [kept]}],
        }
        assert json.loads((await api.get("/stats/summary"))[1]) == full
