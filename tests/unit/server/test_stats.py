"""The node's figures: what the provider has, or 501."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
