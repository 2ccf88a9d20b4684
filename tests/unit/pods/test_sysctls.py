from typing import Any

import pytest

from agent.pods.sysctls import dotted, forbidden_sysctl
from tests.unit.pods.pods import make_pod


def why(name: str, allowed: tuple[str, ...] = (), **spec: Any) -> str | None:
    return forbidden_sysctl(make_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec), allowed)


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


def test_slashes_and_dots_change_places_in_the_slash_form() -> None:
    assert dotted("net/ipv4/conf/eth0.1/forwarding") == "net.ipv4.conf.eth0/1.forwarding"
    assert dotted("net.ipv4.conf.eth0/1.forwarding") == "net.ipv4.conf.eth0/1.forwarding"
