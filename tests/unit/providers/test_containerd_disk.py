"""Containers that fill their disk, over a runtime on the real wire: started anew, counted, said, and not for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cri.runtime import RuntimeClient
from agent.model.record import PodRecord
from agent.pods.garbage.image_collector import Room
from agent.providers.containerd_disk import CALM_S, DiskRestarts
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, record, scene

MIB = 2**20
LIMIT = {"limits": {"ephemeral-storage": "8Mi"}}


def filling(percent: str = "85", meta: dict[str, Any] | None = None, **spec: Any) -> PodRecord:
    main = {"name": "main", "image": "busybox", "resources": LIMIT}
    annotated = {"annotations": {"edgelet.io/restart-on-disk": percent}, **(meta or {})}
    return record(annotated, **{"containers": [main], **spec})


def watcher(s: Scene, room: Room | None = None) -> DiskRestarts:
    async def rooms() -> Room:
        return room or Room(100 * MIB, 90 * MIB)

    assert isinstance(s.machine.runtime, RuntimeClient)
    return DiskRestarts(s.machine, s.machine.runtime, s.workers.values, rooms)


async def fill(s: Scene, restarts: DiskRestarts, mib: float = 7) -> None:
    s.cri.container("main").written = int(mib * MIB)
    await restarts.look()
    await quiet()


@with_skipped_time
async def test_it_is_made_anew_on_an_empty_file_system_and_its_last_state_says_why(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(filling())
        restarts = watcher(s)
        await fill(s, restarts, 6)
        assert s.moves.count("StopContainer") == 0
        await fill(s, restarts, 7)
        await s.until(lambda: s.phase == "Running" and s.main().restartCount == 1 and s.main().state.running)
        assert [c.config.metadata.attempt for c in s.cri.containers.values()] == [1]  # what it wrote is gone
        moves = [move for move in s.moves if move != "PullImage"]
        assert moves[-4:] == ["StopContainer", "RemoveContainer", "CreateContainer", "StartContainer"]
        ended = s.main().lastState.terminated
        assert ended is not None
        assert ended.reason == "RestartOnDisk"
        assert ended.message == (
            "Its file system has 7.0 MiB, 88 % of its ephemeral-storage limit of 8.0 MiB, and 85 % is allowed."
        )
        (said,) = [one for one in s.events.all if one[1] == "RestartOnDisk"]
        assert said[0] == "Warning"
        assert said[2].startswith("Container main is restarted: its file system has 7.0 MiB, 88 %")
        assert said[3] == "spec.containers{main}"


@with_skipped_time
async def test_one_that_fills_it_again_and_again_is_restarted_ever_more_seldom(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(filling())
        restarts = watcher(s)
        await fill(s, restarts)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        await fill(s, restarts)
        assert s.moves.count("StopContainer") == 1
        s.skip(11)
        await fill(s, restarts)
        await s.until(lambda: s.main().restartCount == 2 and s.main().state.running)
        s.skip(11)
        await fill(s, restarts)
        assert s.moves.count("StopContainer") == 2
        s.skip(11)
        await fill(s, restarts)
        await s.until(lambda: s.main().restartCount == 3 and s.main().state.running)
        s.skip(700)  # behaved so long: as if it were the first time
        await fill(s, restarts)
        await s.until(lambda: s.main().restartCount == 4 and s.main().state.running)
        s.skip(11)
        await fill(s, restarts)
        await s.until(lambda: s.main().restartCount == 5)


@with_skipped_time
async def test_restart_policy_never_is_kept_and_a_pod_without_the_policy_is_left_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for wanted in (filling(restartPolicy="Never"), filling("0", {"uid": "u-2", "name": "other"})):
            await s.running(wanted)
            await fill(s, watcher(s, Room(100 * MIB, 0)), 20)
        assert s.moves.count("StopContainer") == 0


@with_skipped_time
async def test_a_container_without_a_limit_goes_by_the_nodes_disk_one_at_a_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        free: dict[str, Any] = {"containers": [{"name": "main", "image": "busybox"}]}
        for uid, mib in (("u-1", 10), ("u-2", 20)):
            await s.running(filling("85", {"uid": uid, "name": uid}, **free))
            await s.until(lambda uid=uid: s.workers[uid].observed.running)
            s.cri.container("main").written = mib * MIB
        restarts = watcher(s, Room(100 * MIB, 10 * MIB))
        await restarts.look()
        await s.until(lambda: s.moves.count("StartContainer") == 3)
        await s.until(lambda: s.workers["u-2"].attempts == {"main": 1})
        await quiet()
        await restarts.look()  # the runtime may still be about to give the room back
        await quiet()
        assert s.moves.count("StopContainer") == 1
        s.skip(CALM_S + 1)
        await restarts.look()
        await s.until(lambda: s.workers["u-1"].attempts == {"main": 1})
