"""Unit tests read kubeconfigs in their own process: one for each would take most of the tests' time.

Properties are tried on the same examples each time, so that a run fails for what it changed and for no other reason.
`HYPOTHESIS_PROFILE=search` looks for new ones: what it finds is mended and kept as a test of its own.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import kubernetes.aio.config  # noqa: F401
import pytest
from hypothesis import HealthCheck, settings

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.pods import cgroups
from tests.fakes.apiserver import FakeApiServer, running_api_server

# How long an example or its making takes says nothing where the machine is busy with something else.
settings.register_profile(
    "same", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("same"), derandomize=False, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def no_real_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No unit test makes cgroups on this machine."""
    monkeypatch.setattr(cgroups, "CGROUP_FS", tmp_path / "no-cgroups")


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        yield running


@pytest.fixture
async def api(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[Api]:
    made = Api(await Credentials.load(server.kubeconfig(tmp_path)))
    yield made
    await made.close()
