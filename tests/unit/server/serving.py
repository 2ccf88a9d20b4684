"""A kubelet API on loopback, and a provider with one pod."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from agent.config import Settings
from agent.errors import NotFound
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.server.http import KubeletServer
from agent.server.reviews import ApiServer
from tests.fakes.waiting import PATIENCE_S
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

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def get(self, path: str, method: str = "GET", token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.request(method, self.url + path, headers=headers) as response:
            return response.status, await response.text()

    async def get_raw(self, path: str, token: str = "") -> tuple[int, str]:
        """The path byte for byte, as no client library would send it."""
        head = f"GET {path} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        answer = await self.send(head.encode("latin-1"))
        return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2].decode(errors="replace")

    async def send(self, data: bytes) -> bytes:
        """Raw bytes over TLS without a certificate, and all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=client_context(None))
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(data)
                with suppress(ConnectionError):
                    await writer.drain()
                    return await reader.read()
                return b""
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def served(
    settings: Settings,
    provider: Silent,
    ca: bytes | None,
    certificate: Path | None,
    cluster: ApiServer | None = None,
    foreign: str = "",
) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = KubeletServer(settings, provider, provider, ca, ["127.0.0.1"], api=cluster, foreign=lambda: foreign)
    task = asyncio.ensure_future(server.run(listener))
    connector = aiohttp.TCPConnector(ssl=client_context(certificate))
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Served(f"https://127.0.0.1:{listener.getsockname()[1]}", session, task)
    finally:
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])
        assert task.cancelled()
