"""Providers by name: our own, entry points, and module:Class; what is not a whole provider is said in one line."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.model.record import PodRecord
from agent.providers import registry
from agent.providers.containerd import ContainerdProvider
from agent.providers.contract import Pings, Provider
from agent.providers.mock import MockProvider


class Mine:
    async def create_pod(self, record: PodRecord) -> None: ...
    async def update_pod(self, record: PodRecord) -> None: ...
    async def delete_pod(self, record: PodRecord) -> None: ...
    async def get_pod(self, namespace: str, name: str) -> Any: ...
    async def get_pod_status(self, namespace: str, name: str) -> Any: ...
    async def get_pods(self) -> Any: ...


class Talkative(Mine):
    async def ping(self) -> None: ...
    def get_container_logs(self, namespace: str, pod: str, container: str, options: object) -> Any: ...


class Forgetful(Mine):
    get_pods = None  # type: ignore[assignment]


class Derived(Provider):
    """The Protocol as a base lends its empty methods."""


class Synchronous(Mine):
    def delete_pod(self, record: PodRecord) -> None: ...  # type: ignore[override]


class Boastful(Mine, Pings):
    """Says that it pings, and does not."""


NOT_A_CLASS = Mine()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("zoo", f"{__name__}:Mine", registry.GROUP),
        EntryPoint("aviary", f"{__name__}:Talkative", registry.GROUP),
        EntryPoint("broken", "no.such.module:X", registry.GROUP),
        EntryPoint("containerd", "of.somebody:Else", registry.GROUP),
    ]

    def entry_points(group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)


def test_our_own_providers_need_no_installed_package_and_are_nobody_elses(installed: None) -> None:
    assert registry.find("containerd") is ContainerdProvider
    assert registry.find("mock") is MockProvider


def test_an_installed_provider_is_found_by_its_entry_point(installed: None) -> None:
    assert registry.find("zoo") is Mine


def test_all_that_are_installed_are_listed_with_what_they_can_do(installed: None) -> None:
    listed = {one.name: one for one in registry.installed()}
    assert list(listed) == ["aviary", "broken", "containerd", "mock", "zoo"]
    assert listed["aviary"].parts == ("get_container_logs", "ping")
    assert listed["zoo"].parts == ()
    assert listed["broken"].fault == "cannot load 'no.such.module:X': No module named 'no'"


def test_a_class_is_found_by_module_and_name() -> None:
    assert registry.find(f"{__name__}:Mine") is Mine


def test_an_unknown_name_lists_the_right_ones(installed: None) -> None:
    with pytest.raises(
        ConfigError, match=r"^--provider: no provider 'aws'; there are: aviary, broken, containerd, mock, zoo$"
    ):
        registry.find("aws")


@pytest.mark.parametrize("name", ["broken", "no.such.module:X", f"{__name__}:Nothing", ":X", ".relative:X", "x:"])
def test_what_cannot_be_loaded_is_one_line(name: str, installed: None) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.find(name)
    assert str(caught.value).startswith("--provider: cannot load ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NOT_A_CLASS", "is not a class"),
        ("Forgetful", "has no method get_pods, which every provider must have"),
        ("Derived", "has no method create_pod, which every provider must have"),
        ("Synchronous", "has a method delete_pod that is not async"),
        ("Boastful", "has no method ping, though Pings is its base"),
    ],
)
def test_what_is_no_whole_provider_is_refused_by_the_methods_name(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.find(f"{__name__}:{name}")
    assert str(caught.value) == f"--provider: '{__name__}:{name}' {says}"
