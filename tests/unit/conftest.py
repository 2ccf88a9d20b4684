"""Unit tests read kubeconfigs in their own process: one for each would take most of the tests' time."""

from pathlib import Path

import kubernetes.aio.config  # noqa: F401
import pytest

from agent.pods import cgroups


@pytest.fixture(autouse=True)
def no_real_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No unit test makes cgroups on this machine."""
    monkeypatch.setattr(cgroups, "CGROUP_FS", tmp_path / "no-cgroups")
