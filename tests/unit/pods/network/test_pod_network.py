"""What a CNI network can do, read from what the runtime has loaded."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent
from agent.pods.network.pod_network import PodNetwork, pod_network
from tests.unit.pods.network.networks import bridge, cniconfig

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def read(*plugins: dict[str, Any]) -> PodNetwork:
    found = pod_network(cniconfig(*plugins))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("plugin", "limits"),
    [
        ({"type": "edgelet-bandwidth", "capabilities": {"bandwidth": True}}, True),
        ({"type": "bandwidth", "capabilities": {"bandwidth": False}}, False),
        ({"type": "calico", "capabilities": {"bandwidth": True}}, True),
        ({"type": "cilium-cni"}, True),
        ({"type": "firewall"}, False),
    ],
)
def test_a_network_limits_bandwidth_by_a_plugin_that_is_told_of_it(plugin: dict[str, Any], limits: bool) -> None:
    assert read(bridge("10.88.0.0/16"), PORTMAP, plugin).limits_bandwidth is limits


def test_addresses_are_kept_in_the_range_of_our_plugin_from_its_end() -> None:
    network = read(bridge("10.88.0.0/24"), PORTMAP)
    assert network.leases == Path("/var/lib/cni/networks/edgelet")
    ((one,),) = network.range_sets
    assert [str(address) for address in islice(one.downwards(), 2)] == ["10.88.0.254", "10.88.0.253"]
    assert len(list(one.downwards())) == 253
    for outside in ("10.88.0.0", "10.88.0.1", "10.88.0.255", "10.88.1.7", "fd00::1"):
        assert network.range_of(ip_address(outside)) is None


def test_a_range_ends_where_it_says() -> None:
    plugin = bridge(dataDir="/data")
    plugin["ipam"]["ranges"] = [
        [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.12", "gateway": "10.1.0.11"}]
    ]
    network = read(plugin)
    assert network.leases == Path("/data/edgelet")
    ((one,),) = network.range_sets
    assert [str(address) for address in one.downwards()] == ["10.1.0.12", "10.1.0.10"]


def test_a_range_of_ipv6_has_no_broadcast() -> None:
    ((four,), (six,)) = read(bridge("10.88.0.0/24", "fd00::/120")).range_sets
    assert next(four.downwards()) == ip_address("10.88.0.254")
    assert next(six.downwards()) == ip_address("fd00::ff")


@pytest.mark.parametrize(
    "plugin",
    [
        bridge("10.88.0.0/16", ipam="host-local"),
        {"type": "calico", "ipam": {"type": "whereabouts", "ranges": "10.0.0.0/8"}},
        {"type": "other", "ipam": None, "capabilities": None},
    ],
)
def test_in_another_network_no_address_can_be_kept(plugin: dict[str, Any]) -> None:
    assert read(plugin).range_sets == ()


@pytest.mark.parametrize("told", ["", "{}", '{"Networks": null}', cniconfig({"type": "loopback"})])
def test_a_runtime_without_a_network_has_none(told: str) -> None:
    assert pod_network(told) is None


@pytest.mark.parametrize("told", ["no JSON", cniconfig(bridge("10.88.0.0/99"))])
def test_what_makes_no_sense_is_said(told: str) -> None:
    with pytest.raises(Permanent, match="the runtime's CNI network cannot be read"):
        pod_network(told)
