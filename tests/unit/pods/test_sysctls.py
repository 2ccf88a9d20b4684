from typing import Any

import pytest

from agent.pods.sysctls import allowed_sysctls, dotted, forbidden_sysctl
from tests.unit.pods.pods import make_pod


def why(name: str, unsafe: tuple[str, ...] = (), kernel: str = "6.1.0-18-amd64", **spec: Any) -> str | None:
    pod = make_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)
    return forbidden_sysctl(pod, allowed_sysctls(kernel, unsafe))


def test_a_pod_may_set_safe_parameters_and_what_the_owner_allows() -> None:
    assert forbidden_sysctl(make_pod()) is None
    assert why("net.ipv4.tcp_syncookies") is None
    assert why("net/ipv4/tcp_syncookies") is None
    assert why("kernel.msgmax", ("kernel.msg*",)) is None
    assert why("net.core.somaxconn", ("net/core/somaxconn",)) is None


@pytest.mark.parametrize(
    ("name", "allowed", "spec", "message"),
    [
        ("kernel.msgmax", (), {}, '"kernel.msgmax" not allowlisted'),
        ("net.ipv4.tcp_syncookies", (), {"hostNetwork": True}, "not allowed with host Net enabled"),
        ("kernel.shm_rmid_forced", (), {"hostIPC": True}, "not allowed with host IPC enabled"),
    ],
)
def test_what_would_reach_beyond_the_pod_is_forbidden(
    name: str, allowed: tuple[str, ...], spec: dict[str, Any], message: str
) -> None:
    found = why(name, allowed, **spec)
    assert found is not None
    assert message in found


@pytest.mark.parametrize(
    ("name", "too_old", "old_enough"),
    [
        ("net.ipv4.ip_local_reserved_ports", "3.15.9", "3.16"),
        ("net.ipv4.tcp_keepalive_time", "4.4.302-rpi", "4.5.0"),
        ("net.ipv4.tcp_keepalive_intvl", "4.4.302", "4.5.0"),
        ("net.ipv4.tcp_keepalive_probes", "4.4.302", "4.5.0"),
        ("net.ipv4.tcp_fin_timeout", "4.5", "4.6"),
        ("net.ipv4.tcp_rmem", "4.14.98-imx", "4.15.0"),
        ("net.ipv4.tcp_wmem", "unreadable", "10.0"),
    ],
)
def test_a_parameter_is_safe_from_the_kernel_on_that_keeps_it_apart(name: str, too_old: str, old_enough: str) -> None:
    assert why(name, kernel=old_enough) is None
    assert why(name, kernel=too_old) == f'forbidden sysctl: "{name}" not allowlisted'


@pytest.mark.parametrize("name", ["kernel.shm_rmid_forced", "net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies"])
def test_the_oldest_safe_parameters_ask_for_no_kernel(name: str) -> None:
    assert why(name, kernel="3.10.0") is None


def test_slashes_and_dots_change_places_in_the_slash_form() -> None:
    assert dotted("net/ipv4/conf/eth0.1/forwarding") == "net.ipv4.conf.eth0/1.forwarding"
    assert dotted("net.ipv4.conf.eth0/1.forwarding") == "net.ipv4.conf.eth0/1.forwarding"
