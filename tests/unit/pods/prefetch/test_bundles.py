"""A folder of bundles: each is taken once it is whole, kept while it lies there, and refused for itself alone."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from agent.cri._generated import api_pb2
from agent.errors import EdgeletError, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.pods.prefetch import bundles
from agent.pods.prefetch.bundles import LOOK_S, RETRY_S, SETTLE_S, Bundles
from agent.pods.prefetch.pins import Pins
from agent.pods.prefetch.told import State
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.scene import FakeEvents


@dataclass
class Importer:
    """Imports what a file names; raises instead what it is told to."""

    here: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)
    errors: dict[str, EdgeletError | OSError] = field(default_factory=dict)

    async def run(self, path: Path) -> tuple[str, ...]:
        self.taken.append(path.name)
        if error := self.errors.get(path.name):
            raise error
        name = path.read_text()
        self.here.add(name)
        return (name,)

    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None:
        return api_pb2.Image(id=image.image) if image.image in self.here else None


class Lab:
    def __init__(self, folder: Path, store: MemoryStore, importer: Importer) -> None:
        self.folder, self.importer = folder, importer
        self.events, self.now, self.pins = FakeEvents(), 1000.0, Pins(store, [])
        about = ObjectReference(kind="Node", name="edge-1", uid="edge-1")
        self.bundles = Bundles(
            folder, importer, lambda: importer, self.pins, self.events, about, lambda: None, lambda: self.now
        )

    async def look(self, later_s: float = SETTLE_S) -> float:
        """As after so much time; in how many seconds to look again."""
        await self.bundles.look()
        self.now += later_s
        return await self.bundles.look()

    def put(self, file: str, image: str) -> None:
        (self.folder / file).write_text(f"docker.io/bundled/{image}:1")

    def states(self) -> dict[str, State]:
        return {one.file: one.state for one in self.bundles.statuses}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "images").mkdir()
    return Lab(tmp_path / "images", MemoryStore(), Importer())


async def test_a_bundle_is_taken_once_and_its_images_are_kept(lab: Lab) -> None:
    lab.put("a.tar", "a")
    lab.put("b.tar.zst", "b")
    lab.put(".d.tar", "never")
    (lab.folder / "f.tar").mkdir()
    assert await lab.look() == LOOK_S
    await lab.look(3 * LOOK_S)
    assert lab.importer.taken == ["a.tar", "b.tar.zst"]
    assert {"docker.io/bundled/a:1", "docker.io/bundled/b:1"} <= lab.pins.names
    assert lab.states() == {"a.tar": State.IMPORTED, "b.tar.zst": State.IMPORTED}
    assert lab.events.messages("ImageBundleImported")[0] == "Image bundle a.tar is imported: docker.io/bundled/a:1"


async def test_a_file_that_is_written_is_waited_for(lab: Lab) -> None:
    with (lab.folder / "a.tar").open("w") as written:
        written.write("docker.io/")
        written.flush()
        await lab.look(60)
        assert lab.importer.taken == []
        written.write("bundled/a:1")
    assert await lab.look(0) == SETTLE_S
    await lab.look()
    assert lab.importer.here == {"docker.io/bundled/a:1"}


async def test_a_bundle_that_is_no_good_is_named_once_and_holds_up_no_other(lab: Lab) -> None:
    lab.importer.errors["a.tar"] = Permanent("", "it ends within blobs/sha256/1")
    lab.put("a.tar", "a")
    lab.put("b.tar", "b")
    await lab.look()
    await lab.look(2 * LOOK_S)
    assert lab.importer.taken == ["a.tar", "b.tar"]
    assert lab.events.messages("ImageBundleRefused") == ["Image bundle a.tar is refused: it ends within blobs/sha256/1"]
    assert lab.states() == {"a.tar": State.REFUSED, "b.tar": State.IMPORTED}
    lab.importer.errors.clear()
    lab.put("a.tar", "another")
    await lab.look()
    assert lab.states()["a.tar"] is State.IMPORTED


async def test_the_next_agent_reads_neither_good_nor_bad_ones_again(tmp_path: Path) -> None:
    store, importer = MemoryStore(), Importer(errors={"bad.tar": Permanent("", "no tar")})
    first = Lab(tmp_path, store, importer)
    first.put("bad.tar", "x")
    first.put("good.tar", "good")
    await first.look()
    second = Lab(tmp_path, store, importer)
    await second.pins.load()
    await second.look(60)
    assert importer.taken == ["bad.tar", "good.tar"]
    assert second.states() == {"bad.tar": State.REFUSED, "good.tar": State.IMPORTED}
    assert not second.events.all


async def test_images_that_are_gone_are_imported_again(lab: Lab) -> None:
    lab.put("a.tar", "a")
    await lab.look()
    lab.importer.here.clear()
    await lab.look(2 * LOOK_S)
    assert lab.importer.here


@pytest.mark.parametrize("error", [Retryable("the runtime is away"), OSError(28, os.strerror(28))])
async def test_what_may_pass_is_tried_again(lab: Lab, error: EdgeletError | OSError) -> None:
    lab.importer.errors["a.tar"] = error
    lab.put("a.tar", "a")
    assert await lab.look() == RETRY_S
    assert lab.states() == {"a.tar": State.FAILED}
    lab.importer.errors.clear()
    await lab.look(RETRY_S)
    assert lab.states() == {"a.tar": State.IMPORTED}


async def test_a_bundle_that_is_taken_away_keeps_nothing(lab: Lab) -> None:
    lab.put("a.tar", "a")
    await lab.look()
    (lab.folder / "a.tar").unlink()
    await lab.look()
    assert not lab.pins.names
    assert lab.states() == {}


async def test_a_folder_is_made_and_one_that_goes_and_comes_again_is_followed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUIET_S", "SETTLE_S", "MISSING_S"):
        monkeypatch.setattr(bundles, name, 0.01)
    lab.folder.rmdir()
    running = asyncio.ensure_future(lab.bundles.run())
    try:
        await eventually(lab.folder.is_dir)
        lab.now += 1
        for image in ("a", "b"):
            (lab.folder.parent / "made").write_text(f"docker.io/bundled/{image}:1")
            (lab.folder.parent / "made").rename(lab.folder / f"{image}.tar")
            lab.now += 1
            await eventually(partial(_imported, lab, f"docker.io/bundled/{image}:1"))
            (lab.folder / f"{image}.tar").unlink()
            lab.folder.rmdir()
            await eventually(lab.folder.is_dir)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _imported(lab: Lab, image: str) -> bool:
    """Time goes on while it is asked."""
    lab.now += 0.01
    return image in lab.importer.here
