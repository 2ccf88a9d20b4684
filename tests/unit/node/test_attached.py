"""What is in use here, what the API server calls attached, and who waits for both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.errors import Retryable
from agent.node.attached import AttachedVolumes

NAME = "kubernetes.io/csi/hostpath.csi.k8s.io^v-1"


def node(in_use: tuple[str, ...] = (), attached: tuple[str, ...] = ()) -> dict[str, Any]:
    listed = [{"name": name, "devicePath": ""} for name in attached]
    return {"status": {"volumesInUse": list(in_use), "volumesAttached": listed}}


def test_a_node_that_never_had_such_a_volume_says_nothing_of_them() -> None:
    volumes = AttachedVolumes()
    told: list[str] = []
    volumes.notify(lambda: told.append("changed"))
    assert volumes.in_use is None
    volumes.found(())
    assert volumes.in_use is None
    assert told == []


def test_nothing_is_said_before_it_is_known_what_an_earlier_agent_left_in_use() -> None:
    volumes = AttachedVolumes()
    volumes.seen(node(in_use=(NAME,)))
    assert volumes.in_use is None
    volumes.found(())
    assert volumes.in_use == ()
    volumes.found((NAME,))
    assert volumes.in_use == (NAME,)


def test_the_node_is_reported_anew_when_a_volume_comes_into_use_or_out_of_it() -> None:
    volumes = AttachedVolumes()
    told: list[tuple[str, ...] | None] = []
    volumes.found(())
    volumes.notify(lambda: told.append(volumes.in_use))
    volumes.use(NAME)
    volumes.use(NAME)
    volumes.seen(node(in_use=(NAME,)))
    volumes.release(NAME)
    volumes.release(NAME)
    assert told == [(NAME,), ()]


async def test_a_mount_waits_until_the_volume_is_reported_in_use_and_then_attached() -> None:
    volumes = AttachedVolumes()
    waits = asyncio.ensure_future(volumes.attached(NAME, 5))
    for said in (node(), node(attached=(NAME,)), node(in_use=(NAME,))):
        await asyncio.sleep(0)
        volumes.seen(said)
        await asyncio.sleep(0)
        assert not waits.done()
    volumes.seen(node(in_use=(NAME,), attached=(NAME,)))
    await waits


async def test_a_wait_that_is_too_long_says_what_is_missing() -> None:
    volumes = AttachedVolumes()
    with pytest.raises(Retryable, match="VolumesInUse"):
        await volumes.attached(NAME, 0.001)
    volumes.seen(node(in_use=(NAME,)))
    with pytest.raises(Retryable, match="Volume not attached according to node status"):
        await volumes.attached(NAME, 0.001)
