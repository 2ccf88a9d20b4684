"""An API server that lists no pods for a moment (an empty or half-restored store behind it) ends none of them."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from hack.paths import REPOSITORY
from hack.processes import Daemon, free_port
from tests.fakes.apiserver import FakeApiServer, Request, running_api_server
from tests.integration.support.waiting import wait_until

NODE = "edge-1"
EMPTY = b'{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}'


def is_list_of_pods(request: Request) -> bool:
    return request.path == "/api/v1/pods" and not request.is_watch


def agent(folder: Path, server: FakeApiServer) -> Daemon:
    command = [sys.executable, "-m", "agent", "run", f"--nodename={NODE}", "--provider=mock"]
    command += [f"--root-dir={folder / 'root'}", "--node-ip=127.0.0.1", f"--port={free_port()}"]
    command += ["--full-resync-period=1s", f"--kubeconfig={server.kubeconfig(folder)}"]
    return Daemon("agent", command, folder, {"KUBECONFIG": "", "PYTHONPATH": str(REPOSITORY)}, folder)


def at_the_provider(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder}/root/record.db?mode=ro", uri=True)) as record:
        (count,) = record.execute("SELECT count(*) FROM rows WHERE key LIKE 'mock/%'").fetchone()
        return int(count)


async def until_running(server: FakeApiServer, count: int) -> None:
    def running() -> bool:
        return [pod["status"].get("phase") for pod in server.all("pods")] == ["Running"] * count

    await asyncio.to_thread(wait_until, running)


async def test_pods_outlive_an_empty_list_at_the_start_of_the_agent(tmp_path: Path) -> None:
    async with running_api_server() as server:
        for number in range(5):
            containers = [{"name": "main", "image": "none"}]
            server.put("pods", f"pod-{number}", spec={"nodeName": NODE, "containers": containers}, status={})
        process = agent(tmp_path, server)
        try:
            process.start()
            await until_running(server, 5)
            process.kill()
            lie = server.fail(200, 5, is_list_of_pods, body=EMPTY)
            process.start()
            # However often it is said, only what the API server says of each pod counts.
            await asyncio.to_thread(wait_until, lambda: lie.times == 0)
            await asyncio.to_thread(wait_until, lambda: "is believed again" in process.log.read_text())
            assert at_the_provider(tmp_path) == 5
            assert "is not believed" in process.log.read_text()
            assert not server.seen("DELETE")
            process.kill()
            for number in range(5):
                server.remove("pods", f"pod-{number}")
            process.start()
            await asyncio.to_thread(wait_until, lambda: at_the_provider(tmp_path) == 0)
        finally:
            process.stop()
