"""Redis and etcd keep the contract of the record, with and without TLS and a password."""

from collections.abc import Callable

import pytest

from agent.store.base import Store
from hack.store_servers import MAKERS, Server
from tests.integration.store.conftest import Connect
from tests.unit.store.contract import Reopen, StoreContract


@pytest.fixture(params=list(MAKERS))
def server(request: pytest.FixtureRequest, shared_servers: Callable[[str], Server]) -> Server:
    return shared_servers(request.param)


@pytest.fixture
async def store(server: Server, client: Connect) -> Store:
    return await client(server.url)


@pytest.fixture
async def other_node(server: Server, client: Connect, node: str) -> Store:
    """Its name begins with the other's."""
    return await client(server.url, node + "x")


@pytest.fixture
def reopen(server: Server, client: Connect, store: Store) -> Reopen:
    async def again() -> Store:
        await store.close()
        return await client(server.url)

    return again


class TestServers(StoreContract):
    pass
