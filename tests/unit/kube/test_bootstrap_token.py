import base64
import hashlib
import hmac
import json

import pytest

from agent.kube.bootstrap_token import BootstrapToken

TOKEN = BootstrapToken("abcdef", "0123456789abcdef")


def signature(content: str, secret: str = TOKEN.secret, kid: str = TOKEN.id, alg: str = "HS256") -> str:
    """As the controller manager's bootstrap signer makes it."""

    def encode(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    head = encode(json.dumps({"alg": alg, "kid": kid}, separators=(",", ":")).encode())
    made = hmac.new(secret.encode(), f"{head}.{encode(content.encode())}".encode(), hashlib.sha256).digest()
    return f"{head}..{encode(made)}"


def test_a_signature_of_the_controller_managers_is_taken() -> None:
    assert TOKEN.has_signed("content", signature("content"))


@pytest.mark.parametrize(
    "forged",
    [
        signature("other content"),
        signature("content", secret="0123456789abcdee"),
        signature("content", kid="abcdeg"),
        signature("content", alg="none"),
        signature("content").split("..")[0] + "..",
        signature("content").replace("..", "."),
        "",
        "..",
        "!!..!!",
        "bnVsbA..AA",
    ],
)
def test_a_forged_one_is_not(forged: str) -> None:
    assert not TOKEN.has_signed("content", forged)


@pytest.mark.parametrize("text", ["", "abcdef", "abcdef.short", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"])
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"a token is ID\.SECRET") as refusal:
        BootstrapToken.parse(text)
    assert "0123456789" not in str(refusal.value)


def test_the_secret_is_not_in_its_repr() -> None:
    assert BootstrapToken.parse(" abcdef.0123456789abcdef\n") == TOKEN
    assert TOKEN.secret not in repr(TOKEN)
    assert str(TOKEN) == "abcdef.0123456789abcdef"
