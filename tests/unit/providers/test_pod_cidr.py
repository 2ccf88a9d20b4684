"""What the cluster gives the node for its pods reaches the runtime."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.model.addresses import NodeAddresses
from agent.providers.pod_cidr import PodCidr, pod_cidrs
from tests.fakes.waiting import eventually


class Runtime:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.away = 0

    async def update_runtime_config(self, pod_cidr: str) -> None:
        if self.away:
            self.away -= 1
            raise Retryable("no answer")
        self.told.append(pod_cidr)


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({}, ""),
        ({"spec": {"podCIDR": "10.1.0.0/24"}}, "10.1.0.0/24"),
        ({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]}}, "10.1.0.0/24,fd00::/64"),
    ],
)
def test_both_families_are_told(node: dict[str, Any], found: str) -> None:
    assert pod_cidrs(node) == found


async def test_each_change_is_told_once_and_tried_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.providers.pod_cidr.RETRY_S", 0.001)
    runtime, cidr = Runtime(), PodCidr()
    runtime.away = 2
    life = asyncio.ensure_future(cidr.run(cast(RuntimeClient, runtime)))
    for _ in range(3):
        cidr.node_changed({"spec": {"podCIDR": "10.1.0.0/24"}})
    await eventually(lambda: runtime.told == ["10.1.0.0/24"])
    cidr.node_changed({"spec": {}})
    cidr.node_changed({"spec": {"podCIDR": "10.2.0.0/24"}})
    await eventually(lambda: runtime.told == ["10.1.0.0/24", "10.2.0.0/24"])
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


def test_who_holds_the_nodes_addresses_has_the_new_ones() -> None:
    addresses = NodeAddresses(["10.0.0.1"])
    assert not addresses.take(["10.0.0.1"])
    assert addresses.take(("10.0.0.2", "fd00::1"))
    assert (tuple(addresses), addresses[0], addresses[1:2], len(addresses)) == (
        ("10.0.0.2", "fd00::1"),
        "10.0.0.2",
        ("fd00::1",),
        2,
    )
