import asyncio
from pathlib import Path

import pytest

from agent.config import Settings
from agent.errors import Permanent
from agent.providers.streaming import ByteStream
from agent.server import spdy
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import Authority
from tests.unit.server.serving import Silent, served
from tests.unit.server.upgraded import SPDY_FORWARD, SpdyClient, upgrade

FORWARD = "/portForward/shop/web"


class Ports(Silent):
    """Port 7 echoes, 9 waits for ever, 13 greets and ends, others refuse."""

    def __init__(self) -> None:
        self.was_cancelled = asyncio.Event()

    async def port_forward(self, namespace: str, pod: str, port: int, connection: ByteStream) -> None:
        assert (namespace, pod) == ("shop", "web")
        match port:
            case 7:
                while block := await connection.read():
                    await connection.write(block)
            case 9:
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.was_cancelled.set()
            case 13:
                await connection.write(b"noon")
                await connection.write_eof()
            case 66:
                raise KeyError("secret")
            case _:
                raise Permanent("", "connection refused")


async def connect(client: SpdyClient, port: int, number: int | None) -> tuple[int, int]:
    """Data and error stream, in kubectl's order."""
    named = {} if number is None else {"requestid": str(number)}
    error = await client.open(streamtype="error", port=str(port), **named)
    await client.send(spdy.Data(error, b"", fin=True))
    return await client.open(streamtype="data", port=str(port), **named), error


@pytest.mark.parametrize("numbered", [True, False])
async def test_connections_side_by_side_keep_their_bytes_apart(
    settings: Settings, authority: Authority, admin: Path, numbered: bool
) -> None:
    async with (
        served(settings, Ports(), authority.pem, admin) as api,
        upgrade(api, admin, FORWARD, SPDY_FORWARD) as answer,
    ):
        assert "X-Stream-Protocol-Version: portforward.k8s.io\r\n" in answer.head
        client = SpdyClient(answer)
        pairs = [await connect(client, 7, number if numbered else None) for number in range(20)]
        for round_ in range(3):
            for data, _ in pairs:
                await client.send(spdy.Data(data, b"%d " % data * 500, fin=round_ == 2))
        await client.until_ended(*(stream for pair in pairs for stream in pair))
        for data, error in pairs:
            assert client.received[data] == b"%d " % data * 1500
            assert client.received[error] == b""


async def test_a_port_that_ends_first_ends_the_connection(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        served(settings, Ports(), authority.pem, admin) as api,
        upgrade(api, admin, FORWARD, SPDY_FORWARD) as answer,
    ):
        client = SpdyClient(answer)
        data, error = await connect(client, 13, 0)
        await client.until_ended(data, error)
        assert client.received[data] == b"noon"


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("80", "error forwarding port 80: connection refused"),
        ("66", "error forwarding port 66: the node's provider failed, see the node's log"),
        ("0", "error forwarding port 0: '0' is not a port"),
        ("", "error forwarding port : '' is not a port"),
    ],
)
async def test_a_port_that_cannot_be_reached_is_told_on_the_error_stream(
    settings: Settings, authority: Authority, admin: Path, port: str, message: str
) -> None:
    async with (
        served(settings, Ports(), authority.pem, admin) as api,
        upgrade(api, admin, FORWARD, SPDY_FORWARD) as answer,
    ):
        client = SpdyClient(answer)
        error = await client.open(streamtype="error", port=port, requestid="0")
        data = await client.open(streamtype="data", port=port, requestid="0")
        await client.until_ended(error)
        assert client.received[error].decode() == message
        assert client.reset == {data}


async def test_a_client_that_goes_away_cancels_its_connections(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    ports = Ports()
    async with served(settings, ports, authority.pem, admin) as api:
        async with upgrade(api, admin, FORWARD, SPDY_FORWARD) as answer:
            client = SpdyClient(answer)
            await connect(client, 9, 0)
            await client.until_pong()
            assert not ports.was_cancelled.is_set()
        async with asyncio.timeout(PATIENCE_S):
            await ports.was_cancelled.wait()


async def test_more_streams_than_the_limit_are_refused_and_ended_ones_do_not_count(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.server.spdy_session.STREAMS_LIMIT", 4)
    async with (
        served(settings, Ports(), authority.pem, admin) as api,
        upgrade(api, admin, FORWARD, SPDY_FORWARD) as answer,
    ):
        client = SpdyClient(answer)
        for number in range(5):
            data, error = await connect(client, 7, number)
            await client.send(spdy.Data(data, b"", fin=True))
            await client.until_ended(data, error)
        assert client.reset == set()
        opened = [stream for number in range(9, 12) for stream in await connect(client, 7, number)]
        await client.until_pong()
        assert client.reset == set(opened[4:])
