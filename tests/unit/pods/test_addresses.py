"""A pod has at most one address of each family, in its node's order."""

import pytest

from agent.pods.addresses import in_order, pod_addresses
from tests.unit.pods.pods import make_pod

V4, V4_MORE, V6 = "10.0.0.5", "10.0.0.6", "fd00::5"
NODE_V4, NODE_V6 = "192.0.2.1", "2001:db8::1"


@pytest.mark.parametrize(
    ("of_sandbox", "of_node", "told"),
    [
        ((V4,), (NODE_V4,), (V4,)),
        ((V6, V4), (NODE_V4, NODE_V6), (V4, V6)),
        ((V4, V6), (NODE_V6, NODE_V4), (V6, V4)),
        ((V4, V4_MORE, V6), (NODE_V4,), (V4, V6)),
        ((V6,), (NODE_V4,), (V6,)),
        ((V6, V4), (), (V4, V6)),
        (("FD00:0:0::0005",), (NODE_V6,), (V6,)),
        ((), (NODE_V4,), ()),
    ],
)
def test_one_address_of_each_family_in_the_nodes_order(
    of_sandbox: tuple[str, ...], of_node: tuple[str, ...], told: tuple[str, ...]
) -> None:
    assert in_order(of_sandbox, of_node) == told
    assert pod_addresses(make_pod(), of_sandbox, of_node, ("10.9.9.9",)) == told


@pytest.mark.parametrize(
    ("of_node", "before", "told"),
    [
        ((NODE_V4,), (), (NODE_V4,)),
        ((NODE_V4, NODE_V6), (), (NODE_V4, NODE_V6)),
        (("192.0.2.9",), (NODE_V4,), (NODE_V4,)),
        ((NODE_V4, NODE_V6), (NODE_V4,), (NODE_V4, NODE_V6)),
        ((NODE_V6, NODE_V4), (NODE_V4,), (NODE_V4,)),
        ((NODE_V6, NODE_V4), (NODE_V4, NODE_V6), (NODE_V4, NODE_V6)),
    ],
)
def test_a_pod_on_the_hosts_network_keeps_its_first_address(
    of_node: tuple[str, ...], before: tuple[str, ...], told: tuple[str, ...]
) -> None:
    assert pod_addresses(make_pod(hostNetwork=True), (), of_node, before) == told
