import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loguru import logger

from agent.errors import ConfigError
from agent.model.record import Origin, PodRecord
from agent.pods import manifests
from agent.pods.manifests import ManifestFolder, ManifestSet, watch_manifests
from tests.fakes.waiting import PATIENCE_S, eventually


def manifest(name: str, image: str = "nginx") -> str:
    spec = f"{{containers: [{{name: c, image: {image}}}]}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {spec}}}"


def names(found: ManifestSet | None) -> list[str]:
    assert found is not None
    return [record.pod.metadata.name.removesuffix("-n1") for record in found.pods]


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.strip()), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


# ---------------------------------------------------------------- reading


def test_every_regular_file_is_read_and_scratch_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    (tmp_path / "b").write_text(manifest("b"))
    elsewhere = tmp_path / ".hidden"
    elsewhere.write_text(manifest("linked"))
    (tmp_path / "c.yaml").symlink_to(elsewhere)
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "none")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#", "a.swp", "a.tmp", "a.bak", "4913"):
        (tmp_path / name).write_text("neither YAML: [nor a pod")
    found = ManifestFolder(tmp_path, "n1").read(0)
    assert names(found) == ["a", "b", "linked"]
    assert found is not None
    assert found.errors == ()


def test_a_malformed_file_keeps_its_last_good_pods_and_disturbs_no_other(tmp_path: Path, told: list[str]) -> None:
    bad, other = tmp_path / "bad.yaml", tmp_path / "other.yaml"
    bad.write_text(manifest("bad"))
    folder = ManifestFolder(tmp_path, "n1")
    first = folder.read(0)
    assert first is not None
    bad.write_text(manifest("bad", "''"))
    other.write_text(manifest("other"))
    found = folder.read(1)
    assert found is not None
    assert names(found) == ["bad", "other"]
    assert found.pods[0] == first.pods[0]
    error = f"{bad}: spec.containers[0].image: Required value; its last good pods stay"
    assert found.errors == (error,)
    folder.read(2)
    assert told == [f"manifest {error}"]
    bad.write_text(manifest("bad", "better"))
    mended = folder.read(3)
    assert mended is not None
    assert mended.errors == ()
    assert [r.pod.spec.containers[0].image for r in mended.pods] == ["better", "nginx"]


def test_a_file_malformed_before_the_agent_started_keeps_what_the_record_has(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    before = ManifestFolder(tmp_path, "n1").read(0)
    assert before is not None
    file.write_text("")
    after = ManifestFolder(tmp_path, "n1", before.pods).read(1)
    assert after is not None
    assert after.pods == before.pods
    assert after.errors == (f"{file}: the manifest is empty; its last good pods stay",)


def test_after_a_restart_an_unchanged_file_is_the_very_same_record(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    before = ManifestFolder(tmp_path, "n1").read(0)
    assert before is not None
    assert ManifestFolder(tmp_path, "n1", before.pods).read(1000) == before
    fresh = ManifestFolder(tmp_path, "n1").read(1000)
    assert fresh is not None
    assert fresh.pods[0].uid == before.pods[0].uid
    assert fresh != before  # another time of first sight


def test_a_pod_of_the_record_whose_file_went_meanwhile_goes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    before = ManifestFolder(tmp_path, "n1").read(0)
    assert before is not None
    (tmp_path / "a.yaml").unlink()
    assert names(ManifestFolder(tmp_path, "n1", before.pods).read(1)) == []


def test_one_document_changed_leaves_the_files_other_pods_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(manifest("a") + "\n---\n" + manifest("b"))
    folder = ManifestFolder(tmp_path, "n1")
    first = folder.read(0)
    file.write_text(manifest("a") + "\n---\n" + manifest("b", "new"))
    second = folder.read(9)
    assert first is not None
    assert second is not None
    assert first.pods[0] == second.pods[0]
    assert first.pods[1].uid != second.pods[1].uid


def test_a_pod_named_in_two_files_stays_that_of_the_first(tmp_path: Path) -> None:
    mine, later = tmp_path / "z.yaml", tmp_path / "a.yaml"
    mine.write_text(manifest("web"))
    folder = ManifestFolder(tmp_path, "n1")
    first = folder.read(0)
    later.write_text(manifest("web", "other"))
    found = folder.read(1)
    assert first is not None
    assert found is not None
    assert found.pods == first.pods
    assert found.errors == (f"{later}: metadata.name: pod default/web-n1 is in {mine} already",)
    mine.unlink()
    assert [r.pod.spec.containers[0].image for r in (folder.read(2) or found).pods] == ["other"]


def test_an_unreadable_file_or_folder_takes_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    folder = ManifestFolder(tmp_path, "n1")
    first = folder.read(0)
    assert first is not None

    def broken(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", broken)
        assert folder.read(1) == ManifestSet(
            first.pods, (f"{tmp_path / 'a.yaml'}: cannot be read: Input/output error",)
        )
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", broken)
        assert folder.read(2) == ManifestSet(
            first.pods,
            (
                f"{tmp_path / 'a.yaml'}: cannot be read: Input/output error",
                f"{tmp_path}: cannot be read: Input/output error",
            ),
        )
    assert folder.read(3) == first


# ---------------------------------------------------------------- watching


class FakeClock:
    def monotonic(self) -> float:
        return 0

    def wall(self) -> float:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.002)


class Watched:
    def __init__(self, folder: Path) -> None:
        self.seen: list[ManifestSet] = []
        self._news = asyncio.Event()
        self.task = asyncio.ensure_future(self._watch(folder))

    async def _watch(self, folder: Path) -> None:
        async for found in watch_manifests(folder, "n1", clock=FakeClock()):
            self.seen.append(found)
            self._news.set()

    async def until(self, *expected: str) -> None:
        """Wait until exactly these pods are there."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.seen or names(self.seen[-1]) != list(expected):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    watch = Watched(folder)
    try:
        yield watch
    finally:
        watch.task.cancel()
        await asyncio.wait([watch.task])


@pytest.fixture(params=["inotify", "polled"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "polled":

        def exhausted(nonblocking: bool) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("agent.pods.folder_watch.INotify", exhausted)
        monkeypatch.setattr(manifests, "LOOK_S", 0.03)
        monkeypatch.setattr(manifests, "WRITING_S", 0.05)
    else:
        monkeypatch.setattr(manifests, "LOOK_S", 3600)
    return tmp_path


async def test_files_added_changed_and_removed_are_seen(folder: Path) -> None:
    async with watched(folder) as watch:
        await watch.until()
        file = folder / "a.yaml"
        file.write_text(manifest("a"))
        await watch.until("a")
        file.write_text(manifest("b"))
        await watch.until("b")
        (folder / "other").write_text(manifest("other"))
        await watch.until("b", "other")
        file.unlink()
        await watch.until("other")
        (folder / "moved").write_text("")
        (folder / ".new").write_text(manifest("moved"))
        (folder / ".new").rename(folder / "moved")
        await watch.until("moved", "other")


def test_an_api_pod_that_claims_to_be_from_a_manifest_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    found = ManifestFolder(tmp_path, "n1").read(0)
    assert found is not None
    file.write_text("malformed")
    claimed = [PodRecord.decode(record.raw, Origin.API) for record in found.pods]
    assert names(ManifestFolder(tmp_path, "n1", claimed).read(1)) == []


async def test_a_folder_missing_at_the_start_keeps_what_the_record_has(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    before = ManifestFolder(tmp_path, "n1").read(0)
    assert before is not None
    tmp_path.rename(tmp_path.with_name("unplugged"))
    found = await anext(watch_manifests(tmp_path, "n1", before.pods))
    assert found.pods == before.pods
    assert found.errors == (f"{tmp_path}: no such folder; static pods stay as they are until it is there",)


async def test_a_folder_that_is_missing_is_waited_for_and_said_once(folder: Path, told: list[str]) -> None:
    later = folder / "later"
    async with watched(later) as watch:
        await watch.until()
        await asyncio.sleep(0.02)
        assert len(watch.seen) == 1
        later.mkdir()
        (later / "a.yaml").write_text(manifest("a"))
        await watch.until("a")
    assert [line for line in told if "no such folder" in line] == [
        f"manifest {later}: no such folder; static pods stay as they are until it is there"
    ]


async def test_a_folder_that_goes_away_takes_no_pod_with_it(folder: Path) -> None:
    place = folder / "disk"
    place.mkdir()
    (place / "a.yaml").write_text(manifest("a"))
    async with watched(place) as watch:
        await watch.until("a")
        place.rename(folder / "unplugged")
        await eventually(lambda: len(watch.seen) > 1)
        assert [names(s) for s in watch.seen] == [["a"], ["a"]]
        assert "no such folder" in watch.seen[-1].errors[0]
        (folder / "unplugged" / "b.yaml").write_text(manifest("b"))
        (folder / "unplugged").rename(place)
        await watch.until("a", "b")


async def test_a_file_half_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "WRITING_S", 3600)
    async with watched(tmp_path) as watch:
        await watch.until()
        text = manifest("a") + "\n---\n" + manifest("b")
        with (tmp_path / "a.yaml").open("w") as file:
            file.write(text[:-40])  # by itself one good pod and a broken one
            file.flush()
            await asyncio.sleep(0.1)
            assert len(watch.seen) == 1
            file.write(text[-40:])
        await watch.until("a", "b")
    assert [s.errors for s in watch.seen] == [(), ()]


async def test_a_file_kept_open_by_its_writer_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "WRITING_S", 0.1)
    async with watched(tmp_path) as watch:
        await watch.until()
        with (tmp_path / "a.yaml").open("w") as file:
            file.write(manifest("a"))
            file.flush()
            await watch.until("a")


async def test_changes_that_change_nothing_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    async with watched(tmp_path) as watch:
        await watch.until("a")
        (tmp_path / ".a.yaml.swp").write_text("x")
        (tmp_path / "a.yaml").write_text("# a comment\n" + manifest("a"))
        (tmp_path / "a.yaml~").write_text("x")
        await asyncio.sleep(0.1)
        (tmp_path / "b.yaml").write_text(manifest("b"))
        await watch.until("a", "b")
    assert len(watch.seen) == 2


async def test_a_file_that_is_deleted_and_written_anew_has_its_pods_end_first(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(manifest("b"))
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    async with watched(tmp_path) as watch:
        await watch.until("a", "b")
        file.unlink()
        file.write_text(manifest("a"))
        await eventually(lambda: len(watch.seen) == 3)
        assert [names(one) for one in watch.seen] == [["a", "b"], ["b"], ["a", "b"]]
        # An editor's rename is a change like any other.
        draft = tmp_path / ".draft"
        draft.write_text(manifest("a"))
        draft.rename(file)
        await asyncio.sleep(0.1)
        assert len(watch.seen) == 3


async def test_a_path_that_is_a_file_is_that_manifest_alone(tmp_path: Path) -> None:
    file = tmp_path / ".pod"
    file.write_text(manifest("a"))
    (tmp_path / "other.yaml").write_text(manifest("other"))
    async with watched(file) as watch:
        await watch.until("a")
        (tmp_path / "another.yaml").write_text(manifest("another"))
        file.write_text(manifest("b"))
        await watch.until("b")
        file.unlink()
        await watch.until()


async def test_a_path_through_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "manifests"
    with pytest.raises(ConfigError, match=f"--pod-manifest-path {path}: is neither a folder nor a file"):
        await anext(watch_manifests(path, "n1"))


def test_records_survive_the_store(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    found = ManifestFolder(tmp_path, "n1").read(0)
    assert found is not None
    assert PodRecord.decode(found.pods[0].raw, Origin.FILE) == found.pods[0]
