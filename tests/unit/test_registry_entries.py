"""What may be said of registries, and how a wrong word of it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config import Mirror, Registry
from agent.errors import ConfigError
from tests.unit.test_config import settle

PEM = "-----BEGIN CERTIFICATE-----\n"


def said(**registries: Any) -> tuple[Registry, ...]:
    return settle({}, {}, {"registries": registries}).registries


def test_every_key_is_taken_from_the_file() -> None:
    given = {
        "mirrors": ["http://cache:5000", {"url": "https://hub.example/v2/proxy/", "overridePath": True}],
        "fallback": False,
        "ca": "/etc/ca.pem",
        "skipVerify": True,
        "clientCert": "/etc/c.pem",
        "clientKey": "/etc/k.pem",
        "username": "edge",
        "passwordFile": "/etc/p",
    }
    assert said(**{"docker.io": given, "r.example:5000": {"plainHttp": True}, "s.example": {"ca": PEM}}) == (
        Registry(
            "docker.io",
            mirrors=(Mirror("http://cache:5000"), Mirror("https://hub.example/v2/proxy", override_path=True)),
            fallback=False,
            ca="/etc/ca.pem",
            skip_verify=True,
            client_cert=Path("/etc/c.pem"),
            client_key=Path("/etc/k.pem"),
            username="edge",
            password_file=Path("/etc/p"),
        ),
        Registry("r.example:5000", plain_http=True),
        Registry("s.example", ca=PEM),
    )


def test_a_flag_has_the_same_as_yaml_in_one_line() -> None:
    flag = settle({"registries": '{docker.io: {mirrors: ["http://127.0.0.1:5000"]}, "*": {skipVerify: true}}'})
    assert flag.registries == (
        Registry("docker.io", mirrors=(Mirror("http://127.0.0.1:5000"),)),
        Registry("*", skip_verify=True),
    )
    assert settle({"registries": ""}).registries == ()


@pytest.mark.parametrize(
    ("host", "entry", "message"),
    [
        ("https://r.example", {"plainHttp": True}, "'https://r.example' is no registry as images' names have it"),
        ("r.example/lib", {"plainHttp": True}, "'r.example/lib' is no registry as images' names have it"),
        ("library", {"plainHttp": True}, "'library' is no registry as images' names have it"),
        ("r.example", {}, "r.example: nothing is said of it"),
        ("r.example", None, "r.example: Expected `object`, got `null`"),
        ("r.example", {"plainHTTP": True}, "r.example: Object contains unknown field `plainHTTP`"),
        ("r.example", {"skipVerify": "yes"}, "r.example: Expected `bool`, got `str` - at `$.skipVerify`"),
        ("r.example", {"mirrors": ["cache:5000"]}, "r.example: mirrors: 'cache:5000' is no http:// or https:// URL"),
        (
            "r.example",
            {"mirrors": ["http://a/?b=c"]},
            "r.example: mirrors: 'http://a/?b=c' is no http:// or https:// URL",
        ),
        ("r.example", {"mirrors": ["http://u:pass@a"]}, "r.example: mirrors: a password does not belong in a URL"),
        ("r.example", {"ca": "ca.pem"}, "r.example: ca: 'ca.pem' is no absolute path"),
        ("r.example", {"plainHttp": True, "ca": "/ca"}, "r.example: plainHttp does not go with ca"),
        ("r.example", {"clientKey": "/k"}, "r.example: clientKey also needs clientCert"),
        ("r.example", {"plainHttp": True, "fallback": False}, "r.example: fallback: false also needs mirrors"),
        ("r.example", {"username": "u"}, "r.example: username and passwordFile go together"),
        ("r.example", {"passwordFile": "/p"}, "r.example: username and passwordFile go together"),
        ("*", {"plainHttp": True}, "*: plainHttp and username are said of one registry"),
    ],
)
def test_what_is_wrong_is_named_by_registry_key_and_value(host: str, entry: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        said(**{host: entry})
    assert str(caught.value).startswith(f"edge.yaml: registries: {message}")
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_a_mirror_and_its_own_entry_must_mean_the_same_scheme() -> None:
    with pytest.raises(ConfigError, match=r"docker.io: mirrors: http://m:5 is plain HTTP, and m:5 has TLS"):
        said(**{"docker.io": {"mirrors": ["http://m:5"]}, "m:5": {"skipVerify": True}})
    with pytest.raises(ConfigError, match=r"docker.io: mirrors: https://m:5 is HTTPS, and m:5 has plainHttp"):
        said(**{"docker.io": {"mirrors": ["https://m:5"]}, "m:5": {"plainHttp": True}})


@pytest.mark.parametrize("wrong", ["[a]", "word", "{a: "])
def test_what_is_no_mapping_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^--registries: no"):
        settle({"registries": wrong})
