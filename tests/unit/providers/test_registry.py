"""Providers by name: our own, its older names, entry points, and module:Class."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from agent.errors import ConfigError
from agent.providers import registry
from agent.providers.containerd import ContainerdProvider


class Mine:
    pass


NOT_A_CLASS = Mine()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("zoo", f"{__name__}:Mine", registry.GROUP),
        EntryPoint("broken", "no.such.module:X", registry.GROUP),
    ]

    def entry_points(group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("name", ["containerd", "mynode", "example-provider"])
def test_our_own_provider_and_its_older_names_need_no_installed_package(name: str, installed: None) -> None:
    assert registry.find(name) is ContainerdProvider


def test_an_installed_provider_is_found_by_its_entry_point(installed: None) -> None:
    assert registry.find("zoo") is Mine
    assert registry.names() == ("broken", "containerd", "zoo")


def test_a_class_is_found_by_module_and_name() -> None:
    assert registry.find(f"{__name__}:Mine") is Mine


def test_an_unknown_name_lists_the_right_ones(installed: None) -> None:
    with pytest.raises(ConfigError, match=r"^--provider: no provider 'aws'; there are: broken, containerd, zoo$"):
        registry.find("aws")


@pytest.mark.parametrize("name", ["broken", "no.such.module:X", f"{__name__}:Nothing", ":X", ".relative:X", "x:"])
def test_what_cannot_be_loaded_is_one_line(name: str, installed: None) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.find(name)
    assert str(caught.value).startswith("--provider: cannot load ")
    assert "\n" not in str(caught.value)


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a class"):
        registry.find(f"{__name__}:NOT_A_CLASS")
