"""The text that containerd reads of a registry."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.config import EVERY_REGISTRY, Mirror, Registry
from agent.providers.containerd_hosts import MARK, hosts_files

CACHE = Mirror("http://cache:5000")
HUB = Mirror("https://hub.example/v2/proxy", override_path=True)


def read(*registries: Registry) -> dict[str, dict[str, Any]]:
    files = hosts_files(registries, lambda one: one.ca)
    assert all(text.startswith(MARK) and text.endswith("\n") for text in files.values())
    return {name: tomllib.loads(text) for name, text in files.items()}


@pytest.mark.parametrize(
    ("registry", "server"),
    [
        (Registry("r.example:5000", plain_http=True), {"server": "http://r.example:5000"}),
        (Registry("r.example", ca="/ca"), {"server": "https://r.example", "ca": "/ca"}),
        (
            Registry("docker.io", skip_verify=True, client_cert=Path("/c"), client_key=Path("/k")),
            {"server": "https://registry-1.docker.io", "client": [["/c", "/k"]], "skip_verify": True},
        ),
        (Registry("r.example", client_cert=Path('/a "b"\\c')), {"client": [['/a "b"\\c', ""]]}),
    ],
)
def test_a_registry_without_mirrors_has_an_empty_table_of_them(registry: Registry, server: dict[str, Any]) -> None:
    [file] = read(registry).values()
    # containerd 1.6 takes no file without it.
    assert file["host"] == {}
    assert {key: file[key] for key in server} == server


def test_mirrors_are_asked_in_their_order_each_as_its_own_entry_says_and_then_the_registry() -> None:
    found = read(Registry("docker.io", mirrors=(HUB, CACHE)), Registry("hub.example", ca="/ca", username="u"))
    assert found["docker.io"] == {
        "server": "https://registry-1.docker.io",
        "host": {
            HUB.url: {"capabilities": ["pull", "resolve"], "override_path": True, "ca": "/ca"},
            CACHE.url: {"capabilities": ["pull", "resolve"]},
        },
    }
    assert list(found["docker.io"]["host"]) == [HUB.url, CACHE.url]
    assert found["hub.example"] == {"server": "https://hub.example", "ca": "/ca", "host": {}}


def test_without_fallback_the_last_mirror_is_asked_instead_of_the_registry() -> None:
    found = read(Registry("docker.io", mirrors=(CACHE, HUB), fallback=False), Registry("hub.example", skip_verify=True))
    server = {key: value for key, value in found["docker.io"].items() if key != "host"}
    assert server == {"server": HUB.url, "override_path": True, "skip_verify": True}


def test_every_registry_is_asked_at_its_own_address() -> None:
    found = read(Registry(EVERY_REGISTRY, mirrors=(CACHE,), ca="/ca"))
    assert found == {"_default": {"ca": "/ca", "host": {CACHE.url: {"capabilities": ["pull", "resolve"]}}}}


def test_a_password_alone_is_none_of_containerds_business() -> None:
    assert read(Registry("r.example", username="u", password_file=Path("/p"))) == {}
