"""The bench's pods, and when each change of theirs was seen by a watch outside of the measured agent."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp

from hack.control_plane import ControlPlane
from hack.images import BUSYBOX

CONNECTIONS = 6
# A shell that ends at once when told to: what is timed is the agent, not a grace period.
COMMAND = ["sh", "-c", 'trap "exit 0" TERM; sleep 100000 & wait']


def pod(name: str, node: str, more: Mapping[str, Any] | None = None, **spec_more: Any) -> dict[str, Any]:
    """A pod of one busybox on that node. `more` is put into its container, the rest into its spec."""
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": COMMAND}
    spec = {"nodeName": node, "containers": [{**container, **(more or {})}], "tolerations": [{"operator": "Exists"}]}
    spec |= spec_more
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Change(StrEnum):
    RUNNING = "running"
    READY = "ready"
    ENDED = "ended"
    GONE = "gone"


@dataclass(slots=True)
class Seen:
    """What the watch has shown of one pod so far; times are `time.perf_counter`."""

    moments: dict[tuple[Change, int], float] = field(default_factory=dict)
    turns: list[tuple[float, bool]] = field(default_factory=list)
    """When it became Ready, and when it was no more."""
    container_id: str = ""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Told of each event: of its own, for another pod's would wake as many as wait for any."""

    def note(self, event: dict[str, Any], now: float) -> None:
        status = event["object"].get("status", {})
        container = (status.get("containerStatuses") or [{}])[0]
        restarts = container.get("restartCount", 0)
        self.container_id = container.get("containerID", "").partition("//")[2]
        if "running" in container.get("state", {}):
            self.moments.setdefault((Change.RUNNING, restarts), now)
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
        if ready:
            self.moments.setdefault((Change.READY, restarts), now)
        if ready is not (self.turns[-1][1] if self.turns else False):
            self.turns.append((now, ready))
        if status.get("phase") in ("Succeeded", "Failed"):
            self.moments.setdefault((Change.ENDED, 0), now)
        if event["type"] == "DELETED":
            self.moments.setdefault((Change.GONE, 0), now)


class Pods:
    """The bench's namespace on one node. `create` and `delete` answer when the request was sent."""

    def __init__(self, session: aiohttp.ClientSession, url: str, node: str) -> None:
        self.session = session
        self.url = url
        """Of the namespace's pods."""
        self._node = node
        self._seen: dict[str, Seen] = {}

    async def create(self, name: str, more: Mapping[str, Any] | None = None, **spec_more: Any) -> float:
        body = pod(name, self._node, more, **spec_more)
        self._seen[name] = Seen()
        sent = time.perf_counter()
        async with self.session.post(self.url, json=body) as answer:
            answer.raise_for_status()
        return sent

    async def delete(self, name: str) -> float:
        sent = time.perf_counter()
        async with self.session.delete(f"{self.url}/{name}") as answer:
            answer.raise_for_status()
        return sent

    async def until(self, name: str, change: Change, restarts: int = 0, timeout: float = 300) -> float:
        """When the change was seen. Raises TimeoutError after `timeout` seconds."""
        key = (change, restarts)
        seen = self._seen[name]
        async with asyncio.timeout(timeout), seen.news:
            await seen.news.wait_for(lambda: key in seen.moments)
        return seen.moments[key]

    async def until_ready_is(self, name: str, ready: bool, since: float, timeout: float = 60) -> float:
        """When Ready turned so, after that moment. Raises TimeoutError."""
        seen = self._seen[name]

        def turned() -> list[float]:
            return [moment for moment, now in seen.turns if now is ready and moment > since]

        async with asyncio.timeout(timeout), seen.news:
            await seen.news.wait_for(turned)
        return turned()[0]

    def container_id(self, name: str) -> str:
        return self._seen[name].container_id

    async def watch(self, started: asyncio.Event) -> None:
        """Until cancelled. An API server that is busy may end a watch: it goes on from where it was."""
        async with self.session.get(self.url) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        while True:
            query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "7200"}
            async with self.session.get(self.url, params=query, timeout=aiohttp.ClientTimeout(total=None)) as answer:
                answer.raise_for_status()
                started.set()
                async for line in answer.content:
                    now = time.perf_counter()
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ConnectionError(f"the bench's watch: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if seen := self._seen.get(event["object"]["metadata"]["name"]):
                        seen.note(event, now)
                        async with seen.news:
                            seen.news.notify_all()


@asynccontextmanager
async def pods_of(plane: ControlPlane, node: str) -> AsyncIterator[Pods]:
    """The node's namespace, which is made where it is not there, watched as long as the context lasts."""
    namespace = f"bench-{node}"
    await asyncio.to_thread(plane.kubectl, "create", "namespace", namespace, check=False)
    account = ("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s")
    await asyncio.to_thread(plane.kubectl, *account)
    # As few connections as a controller has, or the API server would be busy with handshakes of the bench's.
    connector = aiohttp.TCPConnector(ssl=plane.tls, limit=CONNECTIONS, keepalive_timeout=600)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session, asyncio.TaskGroup() as group:
        pods = Pods(session, f"{plane.url}/api/v1/namespaces/{namespace}/pods", node)
        started = asyncio.Event()
        watch = group.create_task(pods.watch(started), name="watch")
        await started.wait()
        yield pods
        watch.cancel()
