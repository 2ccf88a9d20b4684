"""A local API on loopback over a record in memory, and a small API server behind it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.clock import SystemClock
from agent.config import Settings
from agent.errors import NotFound
from agent.kube.credentials import Credentials
from agent.kube.events import LoggedEvents
from agent.kube.rest import Api
from agent.model.logs import LogOptions
from agent.model.record import PodRecord
from agent.model.status import IP, Phase, PodStatus
from agent.server.local_api.recent_events import RecentEvents
from agent.server.local_api.server import LocalApiServer, Parts
from tests.fakes.apiserver import FakeApiServer, running_api_server
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
KNOWN = {f"Bearer {token}" for token in ("mine", "yours", "first", "second", "secret-token")}


@dataclass
class Node:
    """What the local API shows, for a test to change."""

    pods: dict[str, tuple[PodRecord, PodStatus | None]] = field(default_factory=dict)
    store: MemoryStore = field(default_factory=MemoryStore)
    object: Json | None = None
    log: tuple[bytes, ...] = (b"one\n", b"two\n")
    logs_asked: list[tuple[str, LogOptions]] = field(default_factory=list)

    def put(self, name: str, namespace: str = "shop", phase: Phase = Phase.RUNNING, **labels: str) -> None:
        raw = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"u-{name}",
                "labels": labels,
                "resourceVersion": "7",
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "i"}]},
        }
        record = PodRecord.decode(json.dumps(raw).encode())
        self.pods[name] = (record, PodStatus(phase=phase, podIP="10.1.0.2", podIPs=(IP(ip="10.1.0.2"),)))

    def with_status(self) -> Iterable[tuple[PodRecord, PodStatus | None]]:
        return self.pods.values()

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        if (found := self.pods.get(name)) is None or found[0].pod.metadata.namespace != namespace:
            raise NotFound("nothing here")
        return found[0]

    async def get_container_logs(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        self.logs_asked.append((f"{namespace}/{pod}/{container}", options))
        for block in self.log:
            yield block


@dataclass
class Served:
    url: str
    session: aiohttp.ClientSession
    server: LocalApiServer
    root: Path
    node: Node
    events: RecentEvents

    @property
    def token(self) -> str:
        return (self.root / "local-api.token").read_text().strip()

    async def ask(
        self, path: str, token: str = "", method: str = "GET", accept: str = "application/json", **more: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        headers = {"Authorization": f"Bearer {token or self.token}", "Accept": accept, **more.pop("headers", {})}
        async with self.session.request(method, self.url + path, headers=headers, **more) as response:
            raw = await response.read()
            return response.status, json.loads(raw) if raw[:1] == b"{" else raw.decode(), dict(response.headers)

    @asynccontextmanager
    async def watch(self, path: str, token: str = "", accept: str = "application/json") -> AsyncIterator[Watching]:
        headers = {"Authorization": f"Bearer {token or self.token}", "Accept": accept}
        async with self.session.get(self.url + path, headers=headers) as response:
            yield Watching(response)


@dataclass
class Watching:
    response: aiohttp.ClientResponse

    async def next(self) -> tuple[str, Json]:
        async with asyncio.timeout(PATIENCE_S):
            event = json.loads(await self.response.content.readline())
        return event["type"], event["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = [await self.next() for _ in range(count)]
        return [(kind, told["metadata"]["name"]) for kind, told in found]


@asynccontextmanager
async def serving(folder: Path, node: Node, api: Api | None = None, **settings: Any) -> AsyncIterator[Served]:
    root = folder / "root"
    events = RecentEvents(LoggedEvents(), "n1", SystemClock())
    parts = Parts(node, node, node.store, lambda: node.object, events.all, api)
    server = LocalApiServer(Settings(node_name="n1", root_dir=root, **settings), parts, SystemClock())
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.ensure_future(server.run(listener))
    kubeconfig = root / "local-api.kubeconfig"
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    async with asyncio.timeout(PATIENCE_S):
        while not (kubeconfig.exists() and url in kubeconfig.read_text() and (root / "local-api.crt").exists()):
            await asyncio.sleep(0.01)
            assert not task.done(), task
    trust = ssl.create_default_context(cafile=str(root / "local-api.crt"))
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            yield Served(url, session, server, root, node, events)
    finally:
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def local(tmp_path: Path, node: Node) -> AsyncIterator[Served]:
    """Without an API server."""
    async with serving(tmp_path, node) as served:
        yield served


@pytest.fixture
async def cluster() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        # Each token is a user of its own, who may not ask who it is; everybody else is refused.
        running.fail(401, times=1000, matches=lambda r: r.authorization not in KNOWN, reason="Unauthorized")
        running.fail(403, times=1000, matches=lambda r: r.path == REVIEWS, reason="Forbidden")
        yield running


@pytest.fixture
async def joined(tmp_path: Path, node: Node, cluster: FakeApiServer) -> AsyncIterator[Served]:
    api = Api(await Credentials.load(cluster.kubeconfig(tmp_path)))
    try:
        async with serving(tmp_path, node, api) as served:
            yield served
    finally:
        await api.close()
