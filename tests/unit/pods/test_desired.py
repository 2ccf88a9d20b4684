"""The desired set: in the record before anybody acts on it, and only as much of it as must be there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.errors import Retryable
from agent.model.record import Origin, PodRecord
from agent.pods.desired import DesiredChange, DesiredPods
from agent.pods.scripts.kind import is_scripts
from agent.store.base import Delete, Put
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time


def record(uid: str, origin: Origin = Origin.API, status: dict[str, Any] | None = None, **meta: Any) -> PodRecord:
    names = {"name": f"pod-{uid}", "namespace": "shop", "uid": uid, **meta}
    raw = msgspec.json.encode({"metadata": names, "spec": {}, "status": status or {}})
    return PodRecord.decode(raw, origin)


class Scene:
    def __init__(self, store: MemoryStore | None = None, origins: frozenset[Origin] = frozenset({Origin.API})) -> None:
        self.store = store or MemoryStore()
        self.changes: list[DesiredChange] = []
        self.recorded_at_change: list[set[str]] = []
        self.pods = DesiredPods(self.store, self._changed, origins)

    def _changed(self, change: DesiredChange) -> None:
        self.changes.append(change)
        self.recorded_at_change.append(set(self.store.rows))

    @property
    def heard(self) -> list[str]:
        return [f"+{c.record.uid}" if c.record else f"-{c.was.uid if c.was else '?'}" for c in self.changes]

    async def settle(self) -> None:
        await asyncio.sleep(1)


@in_virtual_time
async def test_a_change_is_handed_on_when_it_is_in_the_record() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1"))
        assert scene.pods.get("1") is None
        await scene.settle()
        scene.pods.remove("1")
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+1", "-1"]
    assert scene.recorded_at_change == [{"pods/api/1"}, set()]
    assert [c.was.uid if c.was else None for c in scene.changes] == [None, "1"]


@in_virtual_time
async def test_nothing_is_handed_on_while_the_record_cannot_be_written() -> None:
    class Full(MemoryStore):
        async def batch(self, changes: Sequence[Put | Delete]) -> int:
            if elapsed() < 30:
                raise Retryable("disk full")
            return await super().batch(changes)

    scene = Scene(Full())

    async def work() -> None:
        scene.pods.upsert(record("1"))
        await asyncio.sleep(29)
        assert scene.heard == []
        await asyncio.sleep(15)

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+1"]


@in_virtual_time
async def test_changes_that_come_together_share_a_commit_and_keep_their_order() -> None:
    scene = Scene()

    async def work() -> None:
        for uid in "312":
            scene.pods.upsert(record(uid))
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+3", "+1", "+2"]
    assert {row.revision for row in scene.store.rows.values()} == {1}
    assert [r.uid for r in scene.pods.all()] == ["3", "1", "2"]


@in_virtual_time
async def test_a_change_of_nothing_but_the_status_is_handed_on_and_not_written() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1", resourceVersion="1"))
        await scene.settle()
        scene.pods.upsert(record("1", resourceVersion="2", status={"phase": "Running"}))
        await scene.settle()
        assert len(scene.store.writes) == 1
        scene.pods.upsert(record("1", resourceVersion="3", labels={"a": "b"}))
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+1", "+1", "+1"]
    assert len(scene.store.writes) == 2
    assert [c.record.pod.status.phase for c in scene.changes if c.record] == ["", "Running", ""]


@in_virtual_time
async def test_a_complete_list_removes_what_it_lacks_of_its_own_origin_only() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1"))
        scene.pods.upsert(record("2"))
        scene.pods.upsert(record("s", Origin.FILE))
        await scene.settle()
        scene.pods.replace_all(Origin.API, [record("2"), record("3")])
        await scene.settle()
        assert {r.uid for r in scene.pods.all()} == {"2", "3", "s"}
        scene.pods.replace_all(Origin.FILE, [])
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert {r.uid for r in scene.pods.all()} == {"2", "3"}
    assert set(scene.store.rows) == {"pods/api/2", "pods/api/3"}


@in_virtual_time
async def test_a_list_also_removes_what_came_just_before_it_in_the_same_commit() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1"))
        scene.pods.replace_all(Origin.API, [record("2")])
        scene.pods.remove("2")
        scene.pods.upsert(record("3"))
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+3"]
    assert set(scene.store.rows) == {"pods/api/3"}


@in_virtual_time
async def test_the_set_is_verified_by_a_complete_list_of_the_api_server() -> None:
    scene = Scene()

    async def work() -> None:
        await scene.pods.load()
        scene.pods.upsert(record("1"))
        scene.pods.replace_all(Origin.FILE, [])
        await scene.settle()
        assert not scene.pods.verified.is_set()
        scene.pods.replace_all(Origin.API, [])
        assert not scene.pods.verified.is_set()
        await scene.settle()
        assert scene.pods.verified.is_set()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+1", "-1"]


@in_virtual_time
async def test_with_several_origins_each_must_have_listed() -> None:
    scene = Scene(origins=frozenset(Origin))

    async def work() -> None:
        for origin, verified in ((Origin.API, False), (Origin.API, False), (Origin.HTTP, False), (Origin.FILE, True)):
            scene.pods.replace_all(origin, [])
            await scene.settle()
            assert scene.pods.verified.is_set() is verified

    await beside(scene.pods.run(), work)


@in_virtual_time
async def test_a_restarted_agent_has_the_recorded_pods_with_their_origin() -> None:
    first = Scene()

    async def work() -> None:
        first.pods.upsert(record("1"))
        first.pods.upsert(record("s", Origin.FILE))
        await first.settle()

    await beside(first.pods.run(), work)
    second = Scene(first.store)
    await second.pods.load()
    assert {r.uid: r.origin for r in second.pods.all()} == {"1": Origin.API, "s": Origin.FILE}
    assert sorted(second.heard) == ["+1", "+s"]


@in_virtual_time
async def test_rows_that_are_no_pods_are_left_alone() -> None:
    scene = Scene()
    await scene.store.put("pods/api/broken", b"{")
    await scene.store.put("pods/nowhere/1", record("1").raw)
    await scene.store.put("pods/api/2", record("2").raw)
    await scene.pods.load()
    assert scene.heard == ["+2"]
    assert len(scene.store.rows) == 3


@in_virtual_time
async def test_a_removed_pod_is_handed_on_as_it_was_last_seen() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1"))
        await scene.settle()
        scene.pods.remove("1", last=record("1", deletionGracePeriodSeconds=3))
        scene.pods.remove("2", last=record("2"))
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert scene.heard == ["+1", "-1"]
    was = scene.changes[-1].was
    assert was is not None
    assert was.pod.metadata.deletionGracePeriodSeconds == 3


@in_virtual_time
async def test_removing_what_is_not_there_is_no_news() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.remove("1")
        await scene.settle()

    await beside(scene.pods.run(), work)
    assert (scene.heard, scene.store.writes) == ([], [])


@in_virtual_time
async def test_a_name_finds_the_newest_pod_that_has_it() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("2", name="web", creationTimestamp="2024-01-02T00:00:00Z"))
        scene.pods.upsert(record("1", name="web", creationTimestamp="2024-01-01T00:00:00Z"))
        await scene.settle()

    await beside(scene.pods.run(), work)
    found = scene.pods.find("shop", "web")
    assert found is not None
    assert found.uid == "2"
    assert scene.pods.find("other", "web") is None


@in_virtual_time
async def test_annotations_written_later_make_no_host_program_of_a_pod_not_even_after_a_restart() -> None:
    scene = Scene()
    turned: dict[str, Any] = {"annotations": {"type": "bash", "mine": "2"}}

    async def work() -> None:
        scene.pods.upsert(record("1"))
        scene.pods.upsert(record("2", **turned))
        await scene.settle()
        scene.pods.upsert(record("1", **turned))
        scene.pods.replace_all(Origin.API, [record("1", **turned), record("2")])
        await scene.settle()

    await beside(scene.pods.run(), work)
    kinds = [(c.record.uid, is_scripts(c.record.pod), c.record.kind_change_refused) for c in scene.changes if c.record]
    assert kinds[:2] == [("1", False, False), ("2", True, False)]
    assert set(kinds[2:]) == {("1", False, True), ("2", True, True)}

    again = Scene(scene.store)
    await again.pods.load()
    loaded = {c.record.uid: c.record.pod for c in again.changes if c.record}
    assert {uid: is_scripts(pod) for uid, pod in loaded.items()} == {"1": False, "2": True}
    assert loaded["1"].metadata.annotations == {"mine": "2"}


@in_virtual_time
async def test_the_last_state_of_a_deleted_pod_does_not_change_what_it_is_either() -> None:
    scene = Scene()

    async def work() -> None:
        scene.pods.upsert(record("1"))
        await scene.settle()
        scene.pods.remove("1", record("1", annotations={"edgelet.io/host": "true"}))
        await scene.settle()

    await beside(scene.pods.run(), work)
    (gone,) = (c.was for c in scene.changes if c.record is None)
    assert gone is not None
    assert not is_scripts(gone.pod)
