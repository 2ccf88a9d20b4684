from typing import Any

from agent.cri._generated import api_pb2
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.sandbox import Sandbox, sandbox
from tests.unit.pods.pods import make_pod

CONTEXT = TranslateContext(node_name="edge-1", memory_capacity_bytes=2**30, cluster_dns=("10.96.0.10",))
SEEN = "2026-01-01T00:00:00Z"


def translated(meta: dict[str, Any] | None = None, **spec: Any) -> Sandbox:
    return sandbox(make_pod(meta, **spec), 2, "/kubepods/besteffort/podu-1", SEEN, CONTEXT)


def test_a_sandbox_is_the_pod_by_name_uid_and_attempt_in_its_cgroup() -> None:
    config = translated({"labels": {"app": "x"}}).config
    assert config.metadata == api_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1", attempt=2)
    assert config.hostname == "web"
    assert config.log_directory == "/var/log/pods/shop_web_u-1"
    assert config.linux.cgroup_parent == "/kubepods/besteffort/podu-1"
    assert config.labels["app"] == "x"
    assert config.labels["io.edgelet.node"] == "edge-1"
    assert config.annotations["kubernetes.io/config.seen"] == SEEN
    assert list(config.dns_config.servers) == ["10.96.0.10"]
    assert config.linux.resources.cpu_shares == 2
    assert config.linux.security_context.namespace_options.network == api_pb2.POD


def test_on_the_hosts_network_the_hostname_is_left_to_the_node() -> None:
    config = translated(hostNetwork=True, hostname="ignored").config
    assert config.hostname == ""
    assert config.linux.security_context.namespace_options.network == api_pb2.NODE


def test_the_full_name_is_the_hostname_when_asked() -> None:
    config = translated(subdomain="sub", setHostnameAsFQDN=True).config
    assert config.hostname == "web.sub.shop.svc.cluster.local"


def test_ports_of_main_containers_and_sidecars_are_mapped() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}, {"containerPort": 53, "protocol": "UDP"}]
    config = translated(
        containers=[{"name": "main", "ports": ports}],
        initContainers=[
            {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 9, "protocol": "SCTP"}]},
            {"name": "init", "ports": [{"containerPort": 1, "hostPort": 1}]},
        ],
    ).config
    assert list(config.port_mappings) == [
        api_pb2.PortMapping(protocol=api_pb2.TCP, container_port=80, host_port=8080, host_ip="10.0.0.1"),
        api_pb2.PortMapping(protocol=api_pb2.UDP, container_port=53),
        api_pb2.PortMapping(protocol=api_pb2.SCTP, container_port=9),
    ]


def test_sysctls_are_written_with_dots() -> None:
    sysctls = [{"name": "net/ipv4/tcp_syncookies", "value": "1"}, {"name": "kernel.shm_rmid_forced", "value": "0"}]
    config = translated(securityContext={"sysctls": sysctls}).config
    assert dict(config.linux.sysctls) == {"net.ipv4.tcp_syncookies": "1", "kernel.shm_rmid_forced": "0"}


def test_what_dns_had_to_drop_is_handed_on() -> None:
    nameservers = [f"1.0.0.{index}" for index in range(4)]
    assert [n.reason for n in translated(dnsConfig={"nameservers": nameservers}).notices] == ["DNSConfigForming"]
    assert translated().notices == ()
