from typing import Any

import pytest
from msgspec.structs import replace

from agent.pods.translate.context import ResolvConf, TranslateContext
from agent.pods.translate.dns import parse_resolv_conf, pod_dns
from tests.unit.pods.pods import make_pod

NODE_CONF = ResolvConf(("8.8.8.8",), ("corp.example",), ("timeout:1",))
CONTEXT = TranslateContext(
    node_name="edge-1",
    memory_capacity_bytes=1,
    node_ips=("10.0.0.1", "fd00::1"),
    cluster_dns=("10.96.0.10",),
    resolv_conf=NODE_CONF,
)
CLUSTER = (
    ["10.96.0.10"],
    ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"],
    ["ndots:5"],
)
NODE = (["8.8.8.8"], ["corp.example"], ["timeout:1"])


def resolver(context: TranslateContext = CONTEXT, **spec: Any) -> tuple[list[str], list[str], list[str]]:
    config = pod_dns(make_pod(**spec), context).config
    return list(config.servers), list(config.searches), list(config.options)


@pytest.mark.parametrize(
    ("policy", "host_network", "expected"),
    [
        ("ClusterFirst", False, CLUSTER),
        ("ClusterFirst", True, NODE),
        ("ClusterFirstWithHostNet", True, CLUSTER),
        ("ClusterFirstWithHostNet", False, CLUSTER),
        ("Default", False, NODE),
        ("None", False, ([], [], [])),
    ],
)
def test_the_policy_chooses_between_cluster_node_and_nothing(
    policy: str, host_network: bool, expected: tuple[list[str], list[str], list[str]]
) -> None:
    assert resolver(dnsPolicy=policy, hostNetwork=host_network) == expected


def test_without_a_cluster_dns_the_nodes_resolver_stands_in_and_the_pod_is_told() -> None:
    found = pod_dns(make_pod(), replace(CONTEXT, cluster_dns=()))
    assert list(found.config.servers) == ["8.8.8.8"]
    assert [notice.reason for notice in found.notices] == ["MissingClusterDNS"]
    assert pod_dns(make_pod(dnsPolicy="Default"), replace(CONTEXT, cluster_dns=())).notices == ()


def test_a_node_without_resolv_conf_is_asked_at_its_loopback() -> None:
    context = replace(CONTEXT, resolv_conf=None)
    assert resolver(context, dnsPolicy="Default") == (["127.0.0.1", "::1"], ["."], [])
    assert resolver(replace(context, node_ips=()), dnsPolicy="Default")[0] == ["127.0.0.1"]
    assert resolver(context)[1] == ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]


def test_without_a_cluster_domain_only_the_nodes_searches_are_left() -> None:
    assert resolver(replace(CONTEXT, cluster_domain=""))[1] == ["corp.example"]


def test_the_pods_config_comes_after_the_policys_and_its_options_replace() -> None:
    config = {
        "nameservers": ["1.1.1.1", "10.96.0.10"],
        "searches": ["extra", "cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    servers, searches, options = resolver(dnsConfig=config)
    assert servers == ["10.96.0.10", "1.1.1.1"]
    assert searches == [*CLUSTER[1], "extra"]
    assert options == ["ndots:2", "edns0"]


def test_more_than_three_nameservers_are_cut_and_told() -> None:
    pod = make_pod(dnsPolicy="None", dnsConfig={"nameservers": ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"]})
    found = pod_dns(pod, CONTEXT)
    assert list(found.config.servers) == ["1.0.0.1", "1.0.0.2", "1.0.0.3"]
    assert [notice.reason for notice in found.notices] == ["DNSConfigForming"]
    assert found.notices[0].message.endswith("1.0.0.1 1.0.0.2 1.0.0.3")


@pytest.mark.parametrize(
    ("searches", "kept"),
    [
        ([f"d{index}" for index in range(32)], 32),
        ([f"d{index}" for index in range(33)], 32),
        (["x" * 254, "ok"], 1),
        ([f"{index:02}" + "x" * 251 for index in range(8)], 8),  # 8 * 253 + 7 spaces: 2031
        ([f"{index:02}" + "x" * 251 for index in range(9)], 8),
    ],
)
def test_the_search_line_keeps_to_count_and_length(searches: list[str], kept: int) -> None:
    found = pod_dns(make_pod(dnsPolicy="None", dnsConfig={"searches": searches}), CONTEXT)
    assert len(found.config.searches) == kept
    assert bool(found.notices) is (kept != len(searches))


def test_resolv_conf_is_read_as_libc_reads_it() -> None:
    text = (
        "# comment\n; other\nnameserver 1.1.1.1\nnameserver\n search first\nsearch corp.example. . home\n"
        "nameserver\tfe80::1 # x\noptions ndots:1 rotate\noptions ndots:3\nsortlist 1.2.3.4\n"
    )
    assert parse_resolv_conf(text) == ResolvConf(
        ("1.1.1.1", "fe80::1"), ("corp.example", "home"), ("ndots:3", "rotate")
    )
