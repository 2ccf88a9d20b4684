"""Servers for the records on servers: one of each kind for the whole run, and ones that a test may kill."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from agent.store.address import parse
from agent.store.remote import Remote, connect
from hack.store_servers import MAKERS, Server

Connect = Callable[..., Awaitable[Remote]]


@pytest.fixture(scope="session")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    started: dict[str, Server] = {}

    def get(name: str) -> Server:
        if name not in started:
            started[name] = MAKERS[name](tmp_path_factory.mktemp("servers") / name)
            started[name].start()
        return started[name]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    made: list[Server] = []

    def make(name: str) -> Server:
        made.append(MAKERS[name](tmp_path_factory.mktemp("own") / name))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def node() -> str:
    return f"edge-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def client(node: str) -> AsyncIterator[Connect]:
    """Makes clients, which are closed after the test."""
    made: list[Remote] = []

    async def make(url: str, name: str = node) -> Remote:
        made.append(await connect(parse(url), name, {}))
        return made[-1]

    yield make
    for remote in made:
        await remote.close()
