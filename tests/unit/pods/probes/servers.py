"""Small servers on loopback, and a runtime that executes nothing."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.errors import EdgeletError
from agent.model.pod import pod_from_dict
from agent.pods.probes.target import Target


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass
class FakeExec:
    answer: Ended | EdgeletError | TimeoutError = field(default_factory=lambda: Ended(0))
    takes_s: float = 0.0
    ran: list[tuple[str, tuple[str, ...], float | None]] = field(default_factory=list)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float | None) -> Ended:
        self.ran.append((container_id, tuple(command), timeout_s))
        await asyncio.sleep(self.takes_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def target(port: int = 1, **container: object) -> Target:
    ports = [{"name": "web", "containerPort": port}]
    spec = {"containers": [{"name": "c", "ports": ports, **container}]}
    pod = pod_from_dict({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})
    return Target(pod, pod.spec.containers[0], "id", "127.0.0.1")


@asynccontextmanager
async def http_server(
    answer: Callable[[str], bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """Answers each request (its head as text) with bytes; None: never. Yields the port and the requests seen."""
    seen: list[str] = []
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if not first.isalpha():
                writer.write(reply(400))  # not HTTP: a TLS hello, say
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            seen.append(head)
            answered = answer(head)
            if answered is None:
                await ends.wait()
            else:
                writer.write(answered)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        ends.set()
        server.close()
        await server.wait_closed()


def reply(status: int, body: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
