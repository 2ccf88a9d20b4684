"""A token that has ended is mounted while there is no other, said so, and replaced as soon as one can be had."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from agent.store.seal import Sealer
from agent.store.sealed import SealedStore
from agent.store.sqlite import SqliteStore
from tests.integration.agent.edge import pod
from tests.integration.autonomy.conftest import Outpost
from tests.integration.support.waiting import wait_until

REPLACED_WITHIN_S = 5.0
DAYS_S = 5 * 86400.0


async def age_tokens(root: Path) -> int:
    """As if the agent had been cut off for days: what the record says of its tokens is moved back in time."""
    file = await SqliteStore.open(root / "record.db")
    store = await SealedStore.open(file, Sealer(root.with_name(root.name + ".key")))
    rows = await store.list("tokens/")
    for row in rows:
        recorded = msgspec.json.decode(row.value)
        recorded["expires_at"] = time.time() - DAYS_S
        await store.put(row.key, msgspec.json.encode(recorded))
    await store.close()
    return len(rows)


def test_an_ended_token_is_mounted_and_replaced_within_5_s_of_the_return(outpost: Outpost) -> None:
    def container_id() -> str:
        return str(next(c["id"] for c in outpost.containers() if c["state"] == "CONTAINER_RUNNING"))

    def mounted() -> str:
        file = "/var/run/secrets/kubernetes.io/serviceaccount/token"
        return outpost.runtime.crictl("exec", container_id(), "cat", file).strip()

    outpost.run(pod("asks"))
    outpost.wait_ready("asks")
    first = mounted()
    assert first.count(".") == 2

    outpost.cut()
    outpost.lose_power()
    assert asyncio.run(age_tokens(outpost.agent.root_dir)) == 1
    outpost.agent.start()

    wait_until(lambda: any(c["state"] == "CONTAINER_RUNNING" for c in outpost.containers()), 15)
    assert mounted() == first
    outpost.heal()
    back_at = time.monotonic()
    wait_until(lambda: mounted() != first, 10)
    assert time.monotonic() - back_at <= REPLACED_WITHIN_S
    assert mounted().count(".") == 2
    reasons = {"StaleToken", "TokenReplaced"}
    wait_until(lambda: reasons <= {reason for reason, _ in outpost.events("asks")}, 10)
    annotation = outpost.pod("asks")["metadata"]["annotations"]["edgelet.io/stale-token"]
    assert annotation.startswith("default: ended ")
    assert ", replaced " in annotation
