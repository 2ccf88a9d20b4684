"""`python -m hack.record_load`: statuses go into a record at a steady rate; its size and the memory, each minute.

In: the record as the agent opens it (memory above sealing above SQLite, `--behind` a real Redis or etcd), 110 pods
whose status changes at `--per-minute`, each change a durable write of its own, which is more than the agent does: it
gathers changes for half a second. Out: a line each minute, and exit code 1 where the record ever had more than
`--limit` MiB or the process grew by more than `--growth` MiB after its first minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent import memory
from agent.clock import SystemClock
from agent.config import Settings
from agent.model.status import PodStatus
from agent.store.base import Store
from agent.store.opening import open_record
from hack.binaries import BuildError
from hack.processes import DaemonError
from hack.store_servers import MAKERS

PODS = 110
BEHIND = ("redis", "etcd")
TURN_S = 0.05
"""Writes of one turn are sent together, as those of pods that change at the same time."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment. Sizes in bytes; `server` is 0 where no server is behind the record."""

    writes: int
    record: int
    largest: int
    server: int
    rss: int


@dataclass(frozen=True, slots=True)
class Rate:
    per_minute: int = 10_000
    seconds: float = 600.0
    look_every_s: float = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    memory.spare()
    rate = Rate(options.per_minute, options.minutes * 60)
    try:
        with tempfile.TemporaryDirectory(prefix="record-load-", dir=options.folder) as folder:
            samples = asyncio.run(_measure(Path(folder), options.behind, rate))
    except (DaemonError, BuildError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    largest = max(sample.largest for sample in samples)
    settled, growth = samples[0].rss, samples[-1].rss - samples[0].rss
    print(f"the record had at most {largest / MIB:.1f} MiB; {settled / MIB:.1f} MiB RSS, then {growth / MIB:+.1f}")
    return 0 if largest <= options.limit * MIB and growth <= options.growth * MIB else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m hack.record_load", description=summary)
    add, full = parser.add_argument, Rate()
    add("--behind", choices=BEHIND, help="a server of this kind behind the record, started for this")
    add("--per-minute", type=int, default=full.per_minute, metavar="N", help="status writes")
    add("--minutes", type=float, default=full.seconds / 60, metavar="N")
    add("--limit", type=float, default=50, metavar="MIB", help="of the record on this machine's disk")
    add("--growth", type=float, default=4, metavar="MIB", help="of the process after its first minute")
    add("--folder", type=Path, default=Path("/var/tmp"), help="where the record lies meanwhile")
    return parser.parse_args(argv)


async def _measure(folder: Path, behind: str | None, rate: Rate) -> list[Sample]:
    if behind is None:
        return [_said(sample) async for sample in load(folder / "root", "", rate)]
    server = MAKERS[behind](folder / "server")
    server.start()
    try:
        return [_said(sample) async for sample in load(folder / "root", server.url, rate, server.folder)]
    finally:
        server.stop()


def _said(sample: Sample) -> Sample:
    sizes = f"record {sample.record / MIB:6.1f} MiB (most {sample.largest / MIB:.1f})"
    server = f", server {sample.server / MIB:6.1f} MiB" if sample.server else ""
    print(f"{sample.writes:8} writes: {sizes}{server}, RSS {sample.rss / MIB:6.1f} MiB", flush=True)
    return sample


async def load(root: Path, url: str, rate: Rate, server_folder: Path | None = None) -> AsyncIterator[Sample]:
    """Write, and tell how it stands every `look_every_s`. `root` is the agent's root folder, `url` its --store."""
    store = await open_record(Settings("edge-1", root_dir=root, store=url), SystemClock())
    upkeep = asyncio.create_task(store.run(), name="record")
    statuses = _statuses()
    written, largest, looks, begun = 0, 0, 0, time.monotonic()
    try:
        while (passed := time.monotonic() - begun) < rate.seconds:
            due = int(passed * rate.per_minute / 60) - written
            await _write(store, statuses, written, due)
            written += due
            largest = max(largest, _size(root))
            if passed >= (looks + 1) * rate.look_every_s:
                looks += 1
                yield Sample(written, _size(root), largest, _size(server_folder), rss_bytes())
            await asyncio.sleep(TURN_S)
        yield Sample(written, _size(root), largest, _size(server_folder), rss_bytes())
    finally:
        upkeep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await upkeep
        await store.close()


async def _write(store: Store, statuses: Sequence[PodStatus], first: int, count: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(first, first + count):
            pod = number % PODS
            changed = msgspec.structs.replace(statuses[pod], message=f"change {number}")
            tasks.create_task(store.put(f"status/{_uid(pod)}", msgspec.json.encode(changed)))


def _uid(pod: int) -> str:
    return f"8c5d3a04-93a8-4f57-9d6f-{pod:012}"


def _statuses() -> list[PodStatus]:
    """Of pods with two containers, one of them with a past: about 2 KiB each."""
    at = "2026-01-01T00:00:00Z"
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    made = []
    for pod in range(PODS):
        containers = [
            {
                "name": name,
                "image": f"registry.example.com/fleet/{name}:1.36.{pod}",
                "imageID": f"registry.example.com/fleet/{name}@sha256:{pod:064x}",
                "containerID": f"containerd://{pod:064x}",
                "ready": True,
                "started": True,
                "restartCount": 1,
                "state": {"running": {"startedAt": at}},
                "lastState": {
                    "terminated": {
                        "exitCode": 1,
                        "reason": "Error",
                        "message": "x" * 200,
                        "startedAt": at,
                        "finishedAt": at,
                        "containerID": f"containerd://{pod + 1000:064x}",
                    }
                },
            }
            for name in ("main", "sidecar")
        ]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": at} for kind in kinds]
        status = {
            "phase": "Running",
            "hostIP": "192.0.2.1",
            "podIP": f"10.88.0.{pod}",
            "startTime": at,
            "qosClass": "Burstable",
            "conditions": conditions,
            "containerStatuses": containers,
        }
        made.append(msgspec.convert(status, PodStatus))
    return made


def _size(folder: Path | None) -> int:
    size = 0
    if folder is None:
        return size
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a log that was written anew meanwhile
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def rss_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024


if __name__ == "__main__":
    sys.exit(main())
