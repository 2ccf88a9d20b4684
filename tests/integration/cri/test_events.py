"""The stream of events against both generations: each through the source that it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.events import Kind, RuntimeEvent, Source, runtime_events
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from hack.runtime import Containerd, Generation
from tests.fakes.reader import FakeReader
from tests.integration.cri.conftest import Sandboxes, shell


class Listener:
    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.live = asyncio.Event()
        self._seen: asyncio.Queue[RuntimeEvent] = asyncio.Queue()

    def subscribed(self, source: Source) -> None:
        self.sources.append(source)
        self.live.set()

    async def read(self, channel: RuntimeChannel) -> None:
        async with aclosing(runtime_events(channel, RuntimeClient(channel), FakeReader(), self.subscribed)) as events:
            async for event in events:
                self._seen.put_nowait(event)

    async def until(self, kind: Kind, container_id: str) -> RuntimeEvent:
        """The next event of that kind about that container; others are skipped."""
        async with asyncio.timeout(20):
            while True:
                event = await self._seen.get()
                if (event.kind, event.container_id) == (kind, container_id):
                    return event

    def left(self, container_id: str) -> list[RuntimeEvent]:
        rest = [self._seen.get_nowait() for _ in range(self._seen.qsize())]
        return [event for event in rest if event.container_id == container_id]


@asynccontextmanager
async def listening(channel: RuntimeChannel) -> AsyncIterator[Listener]:
    listener = Listener()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(listener.read(channel))
        await listener.live.wait()
        yield listener
        reader.cancel()


async def test_each_generation_is_read_through_the_source_that_it_has(
    containerd: Containerd, channel: RuntimeChannel
) -> None:
    async with listening(channel) as listener:
        expected = Source.CONTAINERD if containerd.generation is Generation.DISTRIBUTION else Source.CRI
        assert listener.sources == [expected]


async def test_a_pod_s_end_is_told_and_an_exec_is_no_part_of_it(
    channel: RuntimeChannel, runtime: RuntimeClient, run_sandbox: Sandboxes
) -> None:
    async with listening(channel) as listener:
        sandbox_id, config = await run_sandbox()
        container_id = await runtime.create_container(sandbox_id, shell("exec sleep 1000"), config)
        await runtime.start_container(container_id)
        before = time.time_ns()
        await runtime.exec_sync(container_id, ["true"], 10)
        await asyncio.sleep(0.5)  # an event of the exec would be here by now
        assert listener.left(container_id) == []
        await runtime.stop_container(container_id, 0)
        stopped = await listener.until(Kind.STOPPED, container_id)
        await runtime.remove_container(container_id)
        await listener.until(Kind.DELETED, container_id)
        await runtime.stop_pod_sandbox(sandbox_id)
        await listener.until(Kind.STOPPED, sandbox_id)
        await runtime.remove_pod_sandbox(sandbox_id)
        await listener.until(Kind.DELETED, sandbox_id)
    assert before < stopped.at_ns <= time.time_ns()
    if listener.sources == [Source.CRI]:
        assert (stopped.sandbox_id, stopped.pod_uid) == (sandbox_id, config.metadata.uid)


async def test_when_an_exit_is_told_the_status_shows_it_every_time(
    channel: RuntimeChannel, runtime: RuntimeClient, run_sandbox: Sandboxes
) -> None:
    sandbox_id, config = await run_sandbox()
    async with listening(channel) as listener:
        for attempt in range(15):
            short = shell(f"exit {attempt}")
            short.metadata.attempt = attempt
            container_id = await runtime.create_container(sandbox_id, short, config)
            await runtime.start_container(container_id)
            await listener.until(Kind.STOPPED, container_id)
            status = (await runtime.container_status(container_id)).status
            assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, attempt)


async def test_many_exits_at_once_are_told_without_a_queue(
    channel: RuntimeChannel, runtime: RuntimeClient, run_sandbox: Sandboxes
) -> None:
    sandbox_id, config = await run_sandbox()
    names = [f"c{number}" for number in range(8)]
    async with listening(channel) as listener:
        made = [await runtime.create_container(sandbox_id, shell("exec sleep 1000", name), config) for name in names]
        for container_id in made:
            await runtime.start_container(container_id)
        begin = time.monotonic()
        await runtime.stop_pod_sandbox(sandbox_id)
        untold = {*made, sandbox_id}
        async with asyncio.timeout(20):
            while untold:
                event = await listener._seen.get()
                if event.kind is Kind.STOPPED:
                    untold.discard(event.container_id)
        assert time.monotonic() - begin < 10


async def test_the_stream_ends_with_the_runtime(containerd: Containerd, channel: RuntimeChannel) -> None:
    listener = Listener()

    async def read_to_the_end() -> None:
        with pytest.raises(Retryable):
            await listener.read(channel)

    async with asyncio.TaskGroup() as group:
        group.create_task(read_to_the_end())
        await listener.live.wait()
        await asyncio.to_thread(containerd.stop)
    await asyncio.to_thread(containerd.start)
