import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from agent.server import spdy
from agent.server.inlet import CAPACITY_BYTES, Inlet
from agent.server.spdy_session import Session, Stream
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.test_spdy import headers

few = st.integers(0, 9)
frames = st.one_of(
    st.builds(spdy.SynStream, few, headers, st.booleans()),
    st.builds(spdy.SynReply, few, headers, st.booleans()),
    st.builds(spdy.Headers, few, headers, st.booleans()),
    st.builds(spdy.RstStream, few, few),
    st.builds(spdy.Ping, few),
    st.builds(spdy.GoAway, few, few),
    st.builds(spdy.Data, few, st.binary(max_size=100), st.booleans()),
)


class Wire:
    """What is to be read, and what was written."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = list(blocks)
        self.written = b""

    async def read(self, limit: int) -> bytes:
        return self.blocks.pop(0) if self.blocks else b""

    async def write(self, data: bytes) -> None:
        self.written += data

    def frames(self) -> list[spdy.Frame]:
        return list(spdy.Decoder().feed(self.written))


def served(wire: Wire, opened: Callable[[Stream], None] | None) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await Session(wire, opened).run()

    asyncio.run(run())


@given(st.lists(frames, max_size=12), st.binary(max_size=60), st.booleans())
def test_whatever_comes_a_session_ends_in_order_and_every_stream_with_it(
    sent: list[spdy.Frame], noise: bytes, is_client: bool
) -> None:
    encoder = spdy.Encoder()
    wire = Wire(*(encoder.encode(frame) for frame in sent), noise)
    opened: list[Stream] = []
    served(wire, None if is_client else opened.append)
    assert all(stream.is_over_here for stream in opened)
    answers = wire.frames()
    assert len({stream.stream_id for stream in opened}) == len(opened)
    replied = [frame.stream_id for frame in answers if isinstance(frame, spdy.SynReply)]
    assert replied == [stream.stream_id for stream in opened]


@given(st.lists(st.sampled_from([1, 2, 3, 4])))
def test_a_clients_pings_are_answered_and_its_answers_are_not(pings: list[int]) -> None:
    encoder = spdy.Encoder()
    for is_client in (False, True):
        wire = Wire(*(encoder.encode(spdy.Ping(ping)) for ping in pings))
        served(wire, None if is_client else lambda _: None)
        assert wire.frames() == [spdy.Ping(ping) for ping in pings if ping % 2 != is_client]


async def test_a_full_inlet_holds_its_feeder_until_somebody_reads() -> None:
    inlet = Inlet()
    await inlet.feed(b"x" * CAPACITY_BYTES)
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(inlet.feed(b"y"))
        await asyncio.sleep(0)
        assert not feeding.done()
        assert await inlet.read(10) == b"x" * 10
    await inlet.end()
    read = b""
    while block := await inlet.read():
        read += block
    assert read == b"x" * (CAPACITY_BYTES - 10) + b"y"


async def test_an_inlet_that_nobody_wants_any_more_lets_its_feeder_go() -> None:
    inlet = Inlet()
    await inlet.feed(b"x" * CAPACITY_BYTES)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(inlet.feed(b"y"))
        await asyncio.sleep(0)
        await inlet.discard()
    assert await inlet.read() == b""
