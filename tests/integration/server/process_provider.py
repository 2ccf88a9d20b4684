"""A provider as somebody else would write it: pods are names, and commands are processes of this machine."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

from agent.errors import NotFound
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.node.ports import NodeImage, RuntimeCondition, RuntimeHealth
from agent.providers.contract import PodUpdate, PodUpdates, ProviderContext
from agent.providers.streaming import AttachIO, ByteReader, ByteStream, ByteWriter


class ProcessProvider:
    def __init__(self, context: ProviderContext) -> None:
        self._pods: dict[str, PodRecord] = {}
        self._updates: PodUpdates = lambda _: None

    def notify_pods(self, updates: PodUpdates) -> None:
        self._updates = updates

    async def create_pod(self, record: PodRecord) -> None:
        self._pods[record.uid] = record
        self._updates(PodUpdate(record, _running(record)))

    async def update_pod(self, record: PodRecord) -> None:
        self._pods[record.uid] = record

    async def delete_pod(self, record: PodRecord) -> None:
        self._pods.pop(record.uid, None)
        self._updates(PodUpdate(record, PodStatus(phase=Phase.SUCCEEDED), gone=True))

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        for record in self._pods.values():
            if (record.pod.metadata.namespace, record.pod.metadata.name) == (namespace, name):
                return record
        raise NotFound(f"no pod {namespace}/{name}")

    async def get_pod_status(self, namespace: str, name: str) -> PodStatus:
        return _running(await self.get_pod(namespace, name))

    async def get_pods(self) -> tuple[PodRecord, ...]:
        return tuple(self._pods.values())

    async def health(self) -> RuntimeHealth:
        ready = RuntimeCondition(ready=True, reason="", message="")
        return RuntimeHealth(runtime=ready, network=ready, name="process", version="1")

    async def images(self) -> tuple[NodeImage, ...]:
        return ()

    async def run_in_container(
        self, namespace: str, pod: str, container: str, command: Sequence[str], io: AttachIO
    ) -> int:
        if command[0] == "sizes":
            async for size in io.resizes():
                assert io.stdout is not None
                await io.stdout.write(f"{size.height} {size.width}\r\n".encode())
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(_feed(io.stdin, process.stdin))
                outputs = [
                    tasks.create_task(_drain(process.stdout, io.stdout)),
                    tasks.create_task(_drain(process.stderr, io.stderr)),
                ]
                await asyncio.wait(outputs)
                feeding.cancel()
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def attach_to_container(self, namespace: str, pod: str, container: str, io: AttachIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        while block := await io.stdin.read():
            await io.stdout.write(block.upper())
        return 0

    async def port_forward(self, namespace: str, pod: str, port: int, connection: ByteStream) -> None:
        while block := await connection.read():
            await connection.write(block)


async def _feed(source: ByteReader | None, sink: asyncio.StreamWriter | None) -> None:
    assert sink is not None
    with contextlib.suppress(ConnectionError):
        while source is not None and (block := await source.read()):
            sink.write(block)
            await sink.drain()
    sink.close()


async def _drain(source: asyncio.StreamReader | None, sink: ByteWriter | None) -> None:
    assert source is not None
    while block := await source.read(65536):
        if sink is not None:
            await sink.write(block)


def _running(record: PodRecord) -> PodStatus:
    return PodStatus(phase=Phase.RUNNING, startTime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
