"""What people wait for at a terminal: a command in a container, and a log, both through the API server."""

import asyncio
import json
import time
from urllib.parse import urlencode

import aiohttp

from hack.bench.pods import Change, Pods
from hack.bench.results import Results

PROTOCOL = "v5.channel.k8s.io"
STATUS_CHANNEL = 3
LOG_BYTES = 6 << 20
"""Below the size at which a kubelet begins another file: it would tell only the newest."""
LINE = "x" * 199


async def exec_round_trips(pods: Pods, count: int, results: Results) -> None:
    await pods.create("exec")
    await pods.until("exec", Change.READY)
    for number in range(count + 1):
        began = time.perf_counter()
        await _exec(pods, "exec", "true")
        if number:
            results.add("exec round trip ms", time.perf_counter() - began)
    await pods.delete("exec")
    await pods.until("exec", Change.GONE)


async def _exec(pods: Pods, name: str, command: str) -> None:
    """As kubectl does it: a WebSocket through the API server, until the command's exit code is there."""
    query = urlencode({"command": command, "container": "main", "stdout": "true", "stderr": "true"})
    async with pods.session.ws_connect(f"{pods.url}/{name}/exec?{query}", protocols=(PROTOCOL,)) as socket:
        async with asyncio.timeout(30):
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data[0] == STATUS_CHANNEL:
                    status = json.loads(message.data[1:])
                    assert status["status"] == "Success", status
                    return
    raise ConnectionError("the stream ended without an exit code")


async def log_throughput(pods: Pods, count: int, results: Results) -> None:
    script = f"yes {LINE} | head -n {LOG_BYTES // (len(LINE) + 1)}"
    await pods.create("talks", {"command": ["sh", "-c", script]}, restartPolicy="Never")
    await pods.until("talks", Change.ENDED)
    rates = []
    for _ in range(count):
        began, size = time.perf_counter(), 0
        async with pods.session.get(f"{pods.url}/talks/log") as answer:
            answer.raise_for_status()
            async for piece in answer.content.iter_any():
                size += len(piece)
        assert size >= LOG_BYTES - len(LINE) - 1, f"the log has {size} bytes"
        rates.append(size / (time.perf_counter() - began) / 2**20)
    results.values["kubectl logs MiB/s"] = max(rates)
    await pods.delete("talks")
    await pods.until("talks", Change.GONE)
