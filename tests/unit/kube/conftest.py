from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from tests.fakes.apiserver import FakeApiServer, running_api_server


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        yield running


@pytest.fixture
async def api(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[Api]:
    made = Api(await Credentials.load(server.kubeconfig(tmp_path)))
    yield made
    await made.close()
