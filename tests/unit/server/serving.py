"""A kubelet API on loopback, and a provider with one pod."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from agent.config import Settings
from agent.errors import NotFound
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.server.http import KubeletServer
from tests.unit.server.authority import client_context

POD = b"""{"metadata": {"name": "web", "namespace": "shop", "uid": "u1", "managedFields": [{"manager": "kubectl"}]},
 "spec": {"containers": [{"name": "main", "image": "i"}], "initContainers": [{"name": "first", "image": "i"}]},
 "status": {"phase": "Pending"}}"""


class Silent:
    """A provider that runs one pod and has no logs."""

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        if (namespace, name) != ("shop", "web"):
            raise NotFound("nothing here")
        return PodRecord.decode(POD)

    def with_status(self) -> list[tuple[PodRecord, PodStatus | None]]:
        record = PodRecord.decode(POD)
        return [(record, PodStatus(phase=Phase.RUNNING, podIP="10.1.0.2")), (record, None)]


class Served:
    def __init__(self, url: str, session: aiohttp.ClientSession, server: asyncio.Future[None]) -> None:
        self.url = url
        self.session = session
        self.server = server

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with self.session.request(method, self.url + path) as response:
            return response.status, await response.text()


@asynccontextmanager
async def served(
    settings: Settings, provider: Silent, ca: bytes | None, certificate: Path | None
) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = KubeletServer(settings, provider, provider, ca, ["127.0.0.1"])
    task = asyncio.ensure_future(server.run(listener))
    connector = aiohttp.TCPConnector(ssl=client_context(certificate))
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Served(f"https://127.0.0.1:{listener.getsockname()[1]}", session, task)
    finally:
        task.cancel()
        async with asyncio.timeout(3):
            await asyncio.wait([task])
        assert task.cancelled()
