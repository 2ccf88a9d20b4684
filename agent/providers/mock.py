"""The mock provider: pods that only seem to run, with the latencies, failures and capacity of its config file.

For fleets and tests: everything that the API server and `kubectl` see is as with real pods. The pods are kept in the
agent's record, so they survive its restarts as those of a real provider do. Given the same seed, a pod of the same name
meets the same latencies and failures, in whatever namespace: a test's own has a random name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from heapq import heappop, heappush
from ipaddress import ip_address
from math import ceil
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from agent.errors import NotFound, Permanent, Retryable
from agent.model.logs import LogOptions, LogStream
from agent.model.record import Origin, PodRecord
from agent.model.status import PodStatus
from agent.pods.plan_stop import MINIMUM_GRACE_S
from agent.providers.contract import PodUpdate, PodUpdates, ProviderContext
from agent.providers.mock_config import drawn, read_config
from agent.providers.simulated import Life, is_over, next_change, runs, status
from agent.providers.streaming import AttachIO, ByteStream, ByteWriter
from agent.store.base import Delete

PREFIX = "mock/"
NETWORK = int(ip_address("198.18.0.0"))
"""198.18.0.0/15 is reserved for benchmarks: nothing else answers there."""
ADDRESSES = 2**17 - 2


class _Row(msgspec.Struct, frozen=True):
    pod: msgspec.Raw
    origin: Origin
    life: Life
    address: int


class _Simulated(msgspec.Struct, eq=False):
    record: PodRecord
    life: Life
    address: int


class MockProvider:
    """Made with the agent's ProviderContext. Raises ConfigError for a wrong config file."""

    def __init__(self, context: ProviderContext, wall: Callable[[], float] = time.time) -> None:
        self._context = context
        self._wall = wall
        self._config = read_config(context.config_file)
        self._pods: dict[str, _Simulated] = {}
        self._newest: dict[str, _Simulated] = {}
        """By full name."""
        self._calls: dict[tuple[str, str], int] = {}
        """By a pod's full name and the kind of call: how often it was made since the start. Forgotten with the pod."""
        self._updates: PodUpdates = lambda _: None
        self._open = asyncio.Event()
        self._news = asyncio.Event()
        self._last_address = 0
        self._due: list[tuple[float, str]] = []
        """A heap of moments and UIDs: then a pod changes, or may have changed."""

    # ------------------------------------------------------------ the contract

    async def create_pod(self, record: PodRecord) -> None:
        chance = await self._called("create", record)
        if record.uid in self._pods:
            return
        run = self._config.containers
        start_s = drawn(self._config.latency.start, chance)
        life = Life(self._wall(), start_s, run.run_seconds, run.exit_code)
        made = _Simulated(record, life, self._free_address())
        await self._keep(made)
        self._pods[record.uid] = self._newest[record.pod.full_name] = made
        self._tell(made)

    async def update_pod(self, record: PodRecord) -> None:
        await self._called("update", record)
        pod = self._pod(record)
        pod.record = record
        await self._keep(pod)
        self._tell(pod)

    async def delete_pod(self, record: PodRecord) -> None:
        chance = await self._called("delete", record)
        pod = self._pod(record)
        meta, grace = record.pod.metadata, record.pod.spec.terminationGracePeriodSeconds
        if meta.deletionGracePeriodSeconds is not None:
            grace = meta.deletionGracePeriodSeconds
        stop_at = self._wall() + min(drawn(self._config.latency.stop, chance), max(grace, MINIMUM_GRACE_S))
        before = pod.life.stop_at
        if before is not None and before <= stop_at:
            # It ends no sooner for being asked again, and its row may be on its way out of the record.
            return
        pod.record = record
        pod.life = replace(pod.life, stop_at=stop_at)
        await self._keep(pod)
        if record.uid not in self._pods:
            await self._context.store.delete(PREFIX + record.uid)
            return
        heappush(self._due, (stop_at, record.uid))
        self._news.set()

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        await self._open.wait()
        return self._named(namespace, name).record

    async def get_pod_status(self, namespace: str, name: str) -> PodStatus:
        await self._open.wait()
        pod = self._named(namespace, name)
        await self._called("read", pod.record)
        return self._status(pod)

    async def get_pods(self) -> tuple[PodRecord, ...]:
        await self._open.wait()
        return tuple(pod.record for pod in self._pods.values())

    def notify_pods(self, updates: PodUpdates) -> None:
        self._updates = updates

    async def ping(self) -> None:
        self._calls["", "ping"] = number = self._calls.get(("", "ping"), 0) + 1
        if Random(f"{self._config.seed}/ping/{number}").random() < self._config.failures.ping:  # noqa: S311
            raise Retryable("the mock provider fails this ping, as its config says")

    async def configure_node(self, node: dict[str, Any]) -> None:
        for amounts in (node["status"]["capacity"], node["status"]["allocatable"]):
            amounts.update({resource: str(amount) for resource, amount in self._config.capacity.items()})

    async def get_container_logs(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """A line when the container starts, and then one every `logSeconds`."""
        found = self._named(namespace, pod)
        if options.stream is LogStream.STDERR:
            return
        period = self._config.containers.log_seconds
        began = self._run_began(found, container, previous=options.previous)
        line, left = self._first_line(began, period, options), options.limit_bytes
        while left is None or left > 0:
            at = began + line * period
            if at > self._wall():
                if not options.follow or is_over(found.record.pod, found.life, self._wall()):
                    return
                await asyncio.sleep(min(1.0, at - self._wall()))
                continue
            text = f"{container} in {found.record.pod.full_name}: line {line}\n".encode()
            if options.timestamps:
                text = f"{_nanoseconds(at)} ".encode() + text
            text = text[:left]
            yield text
            line, left = line + 1, None if left is None else left - len(text)

    async def run_in_container(
        self, namespace: str, pod: str, container: str, command: Sequence[str], io: AttachIO
    ) -> int:
        """`cat` gives back its input, `exit N` ends with N, everything else says what it was."""
        self._run_began(self._named(namespace, pod), container, previous=False)
        match list(command):
            case ["cat"] if io.stdin is not None:
                while data := await io.stdin.read():
                    await _write(io.stdout, data)
            case ["exit", code] if code.isascii() and code.isdigit():
                return int(code) % 256
            case words:
                await _write(io.stdout, f"{container} in {namespace}/{pod}: {' '.join(words)}\n".encode())
        return 0

    async def attach_to_container(self, namespace: str, pod: str, container: str, io: AttachIO) -> int:
        """Its log from now on, until the pod ends."""
        follow = LogOptions(follow=True, since_ns=int(self._wall() * 1e9))
        async for text in self.get_container_logs(namespace, pod, container, follow):
            await _write(io.stdout, text)
        return self._config.containers.exit_code

    async def port_forward(self, namespace: str, pod: str, port: int, connection: ByteStream) -> None:  # noqa: ARG002
        """Every port sends back what it gets."""
        self._named(namespace, pod)
        while data := await connection.read():
            await connection.write(data)
        await connection.write_eof()

    async def run(self) -> None:
        """Let time pass: tell every pod's changes when they are due."""
        for kept in await self._context.store.list(PREFIX):
            row = msgspec.json.decode(kept.value, type=_Row)
            pod = _Simulated(PodRecord.decode(bytes(row.pod), row.origin), row.life, row.address)
            self._pods[pod.record.uid] = self._newest[pod.record.pod.full_name] = pod
            self._last_address = max(self._last_address, row.address)
            heappush(self._due, (self._wall(), pod.record.uid))
        self._open.set()
        while True:
            self._news.clear()
            await self._tell_due()
            wait_s = max(0.0, self._due[0][0] - self._wall()) if self._due else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    # ------------------------------------------------------------ its own work

    async def _tell_due(self) -> None:
        now = self._wall()
        due: dict[str, _Simulated] = {}
        while self._due and self._due[0][0] <= now:
            _, uid = heappop(self._due)
            if uid in self._pods:
                due[uid] = self._pods[uid]
        gone = {uid: pod for uid, pod in due.items() if pod.life.stop_at is not None and pod.life.stop_at <= now}
        if gone:
            await self._context.store.batch([Delete(PREFIX + uid) for uid in gone])
        for uid, pod in due.items():
            if uid in gone:
                self._forget(pod)
                self._updates(PodUpdate(pod.record, self._status(pod), gone=True))
            else:
                self._tell(pod)

    def _forget(self, pod: _Simulated) -> None:
        del self._pods[pod.record.uid]
        if self._newest.get(pod.record.pod.full_name) is pod:
            del self._newest[pod.record.pod.full_name]
        for kind in ("create", "update", "delete", "read"):
            self._calls.pop((pod.record.pod.full_name, kind), None)

    def _tell(self, pod: _Simulated) -> None:
        now = self._wall()
        self._updates(PodUpdate(pod.record, self._status(pod)))
        if (due := next_change(pod.record.pod, pod.life, now)) is not None:
            heappush(self._due, (due, pod.record.uid))
            self._news.set()

    async def _called(self, kind: str, record: PodRecord) -> Random:
        """Take the call's time, and fail it where it is to fail."""
        await self._open.wait()
        name, pod = record.pod.full_name, record.pod.metadata.name
        self._calls[name, kind] = number = self._calls.get((name, kind), 0) + 1
        chance = Random(f"{self._config.seed}/{pod}/{kind}/{number}")  # noqa: S311
        await asyncio.sleep(drawn(getattr(self._config.latency, kind), chance))
        if chance.random() < getattr(self._config.failures, kind):
            raise Retryable(f"the mock provider fails this {kind}, as its config says")
        return chance

    async def _keep(self, pod: _Simulated) -> None:
        row = _Row(msgspec.Raw(pod.record.raw), pod.record.origin, pod.life, pod.address)
        await self._context.store.put(PREFIX + pod.record.uid, msgspec.json.encode(row))

    def _pod(self, record: PodRecord) -> _Simulated:
        if (pod := self._pods.get(record.uid)) is None:
            raise NotFound(f'pod "{record.pod.full_name}" not found')
        return pod

    def _named(self, namespace: str, name: str) -> _Simulated:
        if (pod := self._newest.get(f"{namespace}/{name}")) is None:
            raise NotFound(f'pod "{namespace}/{name}" not found')
        return pod

    def _status(self, pod: _Simulated) -> PodStatus:
        address = str(ip_address(NETWORK + pod.address))
        return status(pod.record.pod, pod.life, address, self._context.node_ips, self._wall())

    def _free_address(self) -> int:
        used = {pod.address for pod in self._pods.values()}
        if len(used) >= ADDRESSES:
            raise Retryable("the mock provider has no pod address left")
        while True:
            self._last_address = self._last_address % ADDRESSES + 1
            if self._last_address not in used:
                return self._last_address

    def _run_began(self, pod: _Simulated, container: str, *, previous: bool) -> float:
        """When the container's present run began, or the one before. Raises Permanent where there is none."""
        life, now = pod.life, self._wall()
        name = pod.record.pod.metadata.name
        if now < life.started_at:
            raise Permanent(
                "BadRequest", f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            )
        run = 0 if is_over(pod.record.pod, life, now) else runs(life, now)
        if previous and run == 0:
            raise Permanent("BadRequest", f'previous terminated container "{container}" in pod "{name}" not found')
        return life.started_at + (run - int(previous)) * (life.run_s or 0.0)

    def _first_line(self, began: float, period: float, options: LogOptions) -> int:
        """The number of the first line that is asked for."""
        last = int((self._wall() - began) / period)
        first = 0 if options.tail_lines is None else max(0, last + 1 - options.tail_lines)
        if options.since_ns is not None:
            first = max(first, ceil((options.since_ns / 1e9 - began) / period))
        return first


async def _write(to: ByteWriter | None, data: bytes) -> None:
    if to is not None:
        await to.write(data)


def _nanoseconds(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
