"""Status writes of a busy node leave the record small and the process as it was."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from agent.clock import SystemClock
from agent.config import Settings
from agent.store.opening import open_record

WRITES = 20_000
"""Two minutes of a node at 10,000 a minute."""


def rss_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


async def test_the_record_and_the_memory_stay_bounded_under_many_writes(tmp_path: Path) -> None:
    store = await open_record(Settings("edge-1", root_dir=tmp_path / "root"), SystemClock())
    running = asyncio.ensure_future(store.run())
    choice = random.Random(1)
    largest, settled = 0, 0.0
    for written in range(0, WRITES, 100):
        await asyncio.gather(
            *(store.put(f"status/{choice.randrange(110)}", choice.randbytes(2000)) for _ in range(100))
        )
        largest = max(largest, sum(path.stat().st_size for path in (tmp_path / "root").iterdir()))
        if written == WRITES // 4:
            settled = rss_mib()
    assert largest < 16 * 1024 * 1024
    assert rss_mib() < settled + 8
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    assert sum(path.stat().st_size for path in (tmp_path / "root").iterdir()) < 4 * 1024 * 1024
