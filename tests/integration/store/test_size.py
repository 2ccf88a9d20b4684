"""Status writes of a busy node leave the record small and the process as it was. For longer: `hack.record_load`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.record_load import MIB, PODS, Rate, load
from hack.store_servers import MAKERS

STATUS_BYTES = 1500
"""At least so much of a pod's status is written each time."""


@pytest.mark.parametrize(("behind", "seconds"), [("", 20), ("redis", 10), ("etcd", 10)], ids=["alone", "redis", "etcd"])
async def test_the_record_and_the_memory_stay_bounded_under_a_busy_nodes_writes(
    behind: str, seconds: int, tmp_path: Path
) -> None:
    rate = Rate(per_minute=10_000, seconds=seconds, look_every_s=seconds / 4)
    server = MAKERS[behind](tmp_path / "server") if behind else None
    if server is not None:
        server.start()
    root = tmp_path / "root"
    try:
        samples = [sample async for sample in load(root, server.url if server else "", rate)]
    finally:
        if server is not None:
            server.stop()
    settled, last = samples[0], samples[-1]
    writes = last.writes - settled.writes
    assert writes > 10 * PODS
    # What a write leaves behind is nothing against what it wrote.
    assert last.record - settled.record < writes * STATUS_BYTES / 20
    assert last.largest < 16 * MIB
    assert last.rss - settled.rss < 8 * MIB
    # The end of the agent leaves the rows and no log of how they came to be.
    assert sum(path.stat().st_size for path in root.iterdir()) < 2 * PODS * 2048 + MIB
