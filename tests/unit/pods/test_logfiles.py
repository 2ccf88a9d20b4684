from pathlib import Path

import pytest

from agent.config import Settings
from agent.model.meta import ObjectMeta
from agent.model.pod import Pod, PodSpec
from agent.pods.logfiles import LogFiles

POD = Pod(metadata=ObjectMeta(name="web", namespace="shop", uid="u-1"), spec=PodSpec())


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    return LogFiles(tmp_path / "pods", tmp_path / "containers")


def made(files: LogFiles, attempt: int = 0, container_id: str = "c0ffee", pod: Pod = POD) -> Path:
    """What a run leaves on disk."""
    files.make_container_folder(pod, "main")
    file = files.file(pod, "main", attempt)
    file.write_text("log")
    files.make_link(pod, "main", attempt, container_id)
    return file


def test_paths_are_the_kubelets() -> None:
    files = LogFiles.of(Settings(node_name="n"))
    assert str(files.file(POD, "main", 3)) == "/var/log/pods/shop_web_u-1/main/3.log"
    assert str(files.link(POD, "main", "c0ffee")) == "/var/log/containers/web_shop_main-c0ffee.log"


def test_a_name_too_long_for_a_file_is_cut_before_its_suffix(files: LogFiles) -> None:
    pod = Pod(metadata=ObjectMeta(name="n" * 200, namespace="shop", uid="u"), spec=PodSpec())
    container_id = "0123456789abcdef" * 4
    made(files, container_id=container_id, pod=pod)
    link = files.link(pod, "main", container_id)
    assert link.name == f"{'n' * 200}_shop_main-{container_id}"[:251] + ".log"
    assert link.read_text() == "log"


def test_folders_can_be_made_again_and_are_readable_by_all(files: LogFiles) -> None:
    for _ in range(2):
        files.make_pod_folder(POD)
        files.make_container_folder(POD, "main")
    assert (files.pods / "shop_web_u-1" / "main").stat().st_mode & 0o777 == 0o755


def test_a_link_leads_to_its_log_and_is_made_anew_when_it_led_elsewhere(files: LogFiles) -> None:
    made(files, attempt=0)
    made(files, attempt=0)
    assert files.link(POD, "main", "c0ffee").read_text() == "log"
    files.make_link(POD, "main", 1, "c0ffee")
    assert files.link(POD, "main", "c0ffee").readlink() == files.file(POD, "main", 1)


def test_one_run_goes_with_its_rotated_files_and_leaves_the_others(files: LogFiles) -> None:
    old, kept = made(files, 1, "old"), made(files, 10, "new")
    rotated = old.with_name("1.log.20260102-030405.gz")
    rotated.write_text("z")
    for _ in range(2):
        files.remove_run(POD, "main", 1, "old")
    assert sorted(p.name for p in kept.parent.iterdir()) == ["10.log"]
    assert [p.name for p in files.links.iterdir()] == ["web_shop_main-new.log"]


def test_a_pod_goes_with_its_links_and_nothing_else(files: LogFiles, tmp_path: Path) -> None:
    other = Pod(metadata=ObjectMeta(name="web", namespace="shop", uid="u-11"), spec=PodSpec())
    file, kept = made(files), made(files, pod=other, container_id="other")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (file.parent / "out").symlink_to(outside)
    for _ in range(2):
        files.remove_pod(POD)
    assert [p.name for p in files.pods.iterdir()] == ["shop_web_u-11"]
    assert [p.name for p in files.links.iterdir()] == ["web_shop_main-other.log"]
    assert kept.exists()
    assert (outside / "precious").exists()


def test_stale_links_are_ours_without_a_log(files: LogFiles, tmp_path: Path) -> None:
    assert files.stale_links() == ()
    made(files).unlink()
    made(files, 1, "alive")
    (files.links / "foreign.log").symlink_to(tmp_path / "nowhere")
    (files.links / "climbing.log").symlink_to(files.pods / ".." / "nowhere")
    (files.links / "plain.log").write_text("x")
    assert files.stale_links() == (files.link(POD, "main", "c0ffee"),)


def test_a_link_that_another_pods_clean_up_takes_meanwhile_is_no_error(
    files: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(files)

    def gone(link: Path) -> Path:
        raise FileNotFoundError(link)

    monkeypatch.setattr(Path, "readlink", gone)
    files.remove_pod(POD)
    assert not files.pod_folder(POD).exists()


def test_the_runs_that_left_a_log_are_known_also_by_a_rotated_one(files: LogFiles) -> None:
    made(files, 0)
    made(files, 2)
    (files.pod_folder(POD) / "main" / "5.log.20260101-000000.gz").touch()
    (files.pod_folder(POD) / "main" / "notes").touch()
    (files.pod_folder(POD) / "stray").touch()
    assert files.attempts(POD) == {"main": {0, 2, 5}}


def test_a_pod_without_a_folder_has_no_runs(files: LogFiles) -> None:
    assert files.attempts(POD) == {}


def test_the_pods_that_have_a_folder_are_known_by_its_name(files: LogFiles) -> None:
    assert files.pods_on_disk() == {}
    made(files)
    (files.pods / "lost+found").mkdir()
    (files.pods / "a_file_u-2").touch()
    (files.pods / "a_link_u-3").symlink_to(files.pods)
    assert files.pods_on_disk() == {"u-1": ("shop", "web")}


def test_a_removal_that_was_broken_off_is_finished_and_found_again(files: LogFiles) -> None:
    made(files)
    files.pod_folder(POD).rename(files.pods / "shop_web_u-1.removed")
    assert files.pods_on_disk() == {"u-1.removed": ("shop", "web")}
    files.remove_pod(POD)
    assert list(files.pods.iterdir()) == []


def test_whoever_holds_logs_is_told_before_any_of_them_goes(tmp_path: Path) -> None:
    told: list[tuple[Path, list[str]]] = []
    files = LogFiles(
        tmp_path / "pods",
        tmp_path / "containers",
        lambda folder: told.append((folder, sorted(one.name for one in folder.rglob("*.log")))),
    )
    made(files, attempt=0)
    made(files, attempt=1)
    files.remove_run(POD, "main", 0, "c0ffee")
    files.remove_pod(POD)
    folder = files.pod_folder(POD)
    assert told == [(folder, ["0.log", "1.log"]), (folder, ["1.log"])]
