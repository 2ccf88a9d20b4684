import pytest

from agent.server.clients import Client, client_of

SUBJECT = {
    "subject": (
        (("organizationName", "system:masters"),),
        (("organizationName", "ops"), ("commonName", "admin")),
    )
}


def test_the_common_name_is_the_user_and_each_organization_a_group() -> None:
    assert client_of(SUBJECT) == Client("admin", frozenset({"system:masters", "ops"}))


@pytest.mark.parametrize("peer", [None, {}])
def test_no_certificate_is_nobody(peer: dict[str, object] | None) -> None:
    assert client_of(peer) is None


@pytest.mark.parametrize(
    ("user", "groups", "allowed"),
    [
        ("admin", {"system:masters"}, True),
        ("kube-apiserver-kubelet-client", {"kubeadm:cluster-admins"}, True),
        ("apiserver-kubelet-client", set(), True),
        ("system:node:n1", {"system:nodes"}, False),
        ("system:masters", {"kube-apiserver-kubelet-client"}, False),
        ("", set(), False),
    ],
)
def test_only_api_servers_and_administrators_are_let_in(user: str, groups: set[str], allowed: bool) -> None:
    assert Client(user, frozenset(groups)).is_allowed is allowed
