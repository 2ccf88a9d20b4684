import pytest

from agent.server.clients import BEARER_PROTOCOL, Client, client_of, token_of

SUBJECT = {
    "subject": (
        (("organizationName", "system:masters"),),
        (("organizationName", "ops"), ("commonName", "admin")),
    )
}


def test_the_common_name_is_the_user_and_each_organization_a_group() -> None:
    groups = ("system:masters", "ops", "system:authenticated")
    assert client_of(SUBJECT) == Client("admin", groups, by_certificate=True)


def test_of_several_common_names_the_last_one_counts_as_for_the_api_server() -> None:
    client = client_of({"subject": ((("commonName", "first"), ("commonName", "last")),)})
    assert client is not None
    assert client.user == "last"


@pytest.mark.parametrize("peer", [None, {}, {"subject": ((("organizationName", "system:masters"),),)}])
def test_no_certificate_and_no_name_is_nobody(peer: dict[str, object] | None) -> None:
    assert client_of(peer) is None


def test_only_a_certificate_makes_an_administrator_without_the_api_servers_word() -> None:
    assert Client("admin", ("system:masters",), by_certificate=True).is_administrator
    assert not Client("admin", ("system:masters",)).is_administrator
    assert not Client("system:masters", ("ops",), by_certificate=True).is_administrator
    assert not Client("kube-apiserver-kubelet-client", (), by_certificate=True).is_administrator


@pytest.mark.parametrize(
    ("authorization", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("Bearer", ""), ("Bearer ", ""), ("", "")],
)
def test_a_bearer_token_is_in_the_authorization_header(authorization: str, token: str) -> None:
    assert token_of(authorization, ()) == token


def test_a_websocket_client_may_name_its_token_as_a_protocol() -> None:
    assert token_of("", ["v4.channel.k8s.io", BEARER_PROTOCOL + "YWJj"]) == "abc"
    assert token_of("", [BEARER_PROTOCOL + "YWI"]) == "ab"
    assert token_of("", [BEARER_PROTOCOL + "*"]) == ""
