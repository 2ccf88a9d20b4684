"""A provider's config file that cannot be read is one line, before the provider is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.errors import ConfigError
from agent.providers import registry
from agent.providers.mock import MockProvider
from tests.unit.pods.scene import FakeObjects
from tests.unit.providers.test_environment import context


@pytest.mark.parametrize(("name", "why"), [("", "Is a directory"), ("nothing.yaml", "No such file or directory")])
def test_it_names_the_file_and_the_reason(tmp_path: Path, name: str, why: str) -> None:
    file = tmp_path / name
    with pytest.raises(ConfigError) as caught:
        registry.make(replace(context(FakeObjects()), config_file=file))
    assert str(caught.value) == f"--provider-config {file}: {why}"


def test_the_provider_is_given_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mock.yaml"
    file.write_text("latency: {create: wrong}")
    given = replace(context(FakeObjects()), settings=Settings("n", provider="mock"), config_file=file)
    with pytest.raises(ConfigError, match=r"latency\.create"):
        registry.make(given)
    file.write_text("")
    assert isinstance(registry.make(given), MockProvider)
