"""Two agents of one node name with one server for their record: the second is told to go, and harms nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.store.address import parse
from agent.store.remote import connect
from hack.agent import Agent
from hack.store_servers import Server
from tests.integration.support.waiting import wait_until

OwnServer = Callable[[str], Server]
Start = Callable[..., Agent]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "static", "namespace": "shop"},
    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
}


@pytest.fixture
def start(tmp_path: Path, node: str) -> Iterator[Start]:
    """Starts agents of one node name, each with a folder of its own, without an API server; pods only seem to run."""
    made: list[Agent] = []

    def begin(name: str, server: Server) -> Agent:
        manifests = tmp_path / f"{name}-manifests"
        manifests.mkdir()
        (manifests / "pod.json").write_text(json.dumps(POD))
        flags = ["--provider=mock", f"--store={server.url}"]
        made.append(Agent(tmp_path / name, node, None, None, flags, manifests))
        made[-1].start()
        return made[-1]

    yield begin
    for agent in made:
        agent.stop()


def last_line(agent: Agent) -> str:
    return agent.log.read_text().splitlines()[-1]


def word(server: Server, node: str) -> bytes | None:
    """What the server has of the agent's life."""

    async def read() -> bytes | None:
        remote = await connect(parse(server.url), node, {})
        try:
            return await remote.alive()
        finally:
            await remote.close()

    return asyncio.run(read())


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_the_second_agent_of_a_name_ends_with_a_line_that_says_why_until_the_first_is_gone(
    kind: str, own_server: OwnServer, start: Start, node: str
) -> None:
    server = own_server(kind)
    first = start("first", server)
    stands = wait_until(lambda: word(server, node))
    second = start("second", server)
    assert second.daemon.wait(30) == 1
    assert "another agent of this node's name lives and has the record there (on host " in last_line(second)
    # Killed and started again it need not wait for the end of its own word.
    first.kill9()
    first.start()
    wait_until(lambda: word(server, node) not in (None, stands), 15)
    assert first.terminate() == 0
    assert word(server, node) is None
    second.start()
    wait_until(lambda: word(server, node))
    # The first comes back to its own file while the server is away: it starts, and hears of it at the first contact.
    server.kill()
    first.start()
    wait_until(lambda: "the local record goes on alone" in first.log.read_text(), what="it runs without the server")
    server.start()
    assert first.daemon.wait(60) == 1
    assert "another agent of this node's name lives" in last_line(first)
    assert second.running
