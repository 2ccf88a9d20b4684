"""What a pod refers to, in its worker: waited for, written into volumes, renewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.errors import Retryable
from agent.model.record import PodRecord
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, container_record, record, scene

CONFIG_VOLUME: dict[str, Any] = {"name": "config", "configMap": {"name": "settings"}}
TOKEN_VOLUME: dict[str, Any] = {
    "name": "token",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]},
}


@with_skipped_time
async def test_a_volumes_missing_config_map_is_waited_for_and_its_coming_starts_the_pod_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(record(volumes=[CONFIG_VOLUME]))
        await fail_for_long(s)
        assert s.events.messages("FailedMount")
        assert "CreateContainer" not in s.moves
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker.objects_changed()
        await s.until(lambda: s.phase == "Running")


async def fail_for_long(s: Scene) -> None:
    """Until the next try is eight seconds away."""
    await s.until(lambda: s.objects.asked)
    for wait in (1, 2, 4):
        await quiet()
        before = s.objects.asked
        s.skip(wait)
        await s.until(lambda: s.objects.asked > before)  # noqa: B023
    await quiet()


def with_env() -> PodRecord:
    source = {"configMapKeyRef": {"name": "settings", "key": "a"}}
    return container_record(env=[{"name": "A", "valueFrom": source}])


@with_skipped_time
async def test_a_variables_missing_config_map_is_waited_for_and_its_coming_starts_the_pod_at_once(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(with_env())
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        await fail_for_long(s)
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker.objects_changed()
        await s.until(lambda: s.phase == "Running")
        (request,) = s.cri.called("CreateContainer")
        assert ("A", b"1") in [(e.key, e.value) for e in request.config.envs]


@with_skipped_time
async def test_a_missing_config_map_is_looked_for_again_even_if_nobody_tells(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(with_env())
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        s.objects.put("configmaps", "settings", data={"a": "1"})
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_changed_config_map_is_written_into_the_running_pods_volume(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker = await s.running(record(volumes=[CONFIG_VOLUME]))
        s.objects.put("configmaps", "settings", data={"a": "2"})
        worker.objects_changed()
        file = s.volume("configmap", "config") / "a"
        await s.until(lambda: file.read_text() == "2")
        assert s.moves.count("CreateContainer") == 1


@with_skipped_time
async def test_changed_labels_reach_a_downward_volume(tmp_path: Path) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [{"name": "info", "downwardAPI": {"items": items}}]
    async with scene(tmp_path) as s:
        worker = await s.running(record({"labels": {"app": "web"}}, volumes=volumes))
        worker.update(record({"labels": {"app": "shop"}}, volumes=volumes))
        file = s.volume("downward-api", "info") / "labels"
        await s.until(lambda: file.read_text().strip() == 'app="shop"')


@with_skipped_time
async def test_a_token_is_written_anew_when_most_of_its_life_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record(volumes=[TOKEN_VOLUME]))
        file = s.volume("projected", "token") / "token"
        assert file.read_text() == "token-1"
        s.skip(0.8 * 3600 - 10)
        await quiet()
        assert file.read_text() == "token-1"
        s.skip(15)
        await s.until(lambda: file.read_text() == "token-2")


@with_skipped_time
async def test_a_clock_that_was_years_behind_does_not_keep_an_old_token_for_years(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.tokens.life_s = 50 * 365 * 86400  # as an expiry of today reads in 1976
        await s.running(record(volumes=[TOKEN_VOLUME]))
        s.skip(3600)
        await s.until(lambda: s.tokens.issued == 2)


@with_skipped_time
async def test_a_token_that_cannot_be_renewed_leaves_the_old_one_and_is_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        await s.running(record(volumes=[TOKEN_VOLUME, CONFIG_VOLUME]))
        s.objects.error = Retryable("the API server is away")
        s.skip(0.8 * 3600 + 1)
        await s.until(lambda: s.events.messages("FailedMount"))
        file = s.volume("projected", "token") / "token"
        assert file.read_text() == "token-1"
        s.objects.error = None
        s.skip(1)
        await s.until(lambda: file.read_text() != "token-1")
