"""Images for containers: policies, credentials, backoff, and what users hear of it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.pods.pulls import PullGate
from agent.pods.silence import SILENT_S, Silence
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, container_record, record, scene

BUSYBOX = "busybox:latest"


def pull_secret(s: Scene, name: str, registry: str, user: str) -> None:
    auth = base64.b64encode(f"{user}:pw".encode()).decode()
    config = base64.b64encode(f'{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}'.encode()).decode()
    s.objects.put("secrets", name, type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": config})


@with_skipped_time
async def test_an_image_that_is_here_is_not_pulled(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image("busybox:1")
        await s.running(container_record(image="busybox:1"))
        assert "PullImage" not in s.moves
        assert s.events.messages("Pulled") == [
            'Container image "busybox:1" already present on machine and can be accessed by the pod'
        ]


@pytest.mark.parametrize("image", ["busybox", "busybox:latest"])
@with_skipped_time
async def test_the_latest_image_is_pulled_even_if_it_is_here(tmp_path: Path, image: str) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image(BUSYBOX)
        await s.running(container_record(image=image))
        assert [request.image.image for request in s.cri.called("PullImage")] == [BUSYBOX]


@with_skipped_time
async def test_always_pulls_what_is_here(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image("busybox:1")
        await s.running(container_record(image="busybox:1", imagePullPolicy="Always"))
        assert s.moves.count("PullImage") == 1


@with_skipped_time
async def test_never_pulls_nothing_and_starts_when_somebody_brings_the_image(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(container_record(image="busybox:1", imagePullPolicy="Never"))
        await s.until(lambda: s.waits() == "ErrImageNeverPull")
        s.cri.add_image("busybox:1")
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        assert "PullImage" not in s.moves


@with_skipped_time
async def test_an_image_that_cannot_be_pulled_backs_off_and_starts_when_it_can(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.registry = set()
        s.start()
        await s.until(lambda: s.waits() == "ErrImagePull")
        s.skip(2)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        s.skip(7)
        await quiet()
        assert s.moves.count("PullImage") == 1
        s.cri.registry.add(BUSYBOX)
        s.skip(2)
        await s.until(lambda: s.phase == "Running")
        assert s.told_waits() == ["ContainerCreating", "ErrImagePull", "ImagePullBackOff"]
        assert s.events.messages("BackOff") == ['Back-off pulling image "busybox"']
        (failed, error, wait) = s.events.messages("Failed")
        assert failed.startswith('Failed to pull image "busybox": ')
        assert (error, wait) == ("Error: ErrImagePull", "Error: ImagePullBackOff")


@pytest.mark.parametrize(("said", "again"), [("dial tcp: connection refused", True), ("not found", False)])
@with_skipped_time
async def test_when_a_network_is_back_what_waits_for_a_registry_that_was_away_is_pulled_at_once(
    tmp_path: Path, said: str, again: bool
) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, said)
        worker = s.start()
        await s.until(lambda: s.waits() == "ErrImagePull")
        s.skip(2)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        worker.link_returned()
        if again:
            await s.until(lambda: s.phase == "Running")
        else:
            await quiet()
            assert s.waits() == "ImagePullBackOff"
        assert s.moves.count("PullImage") == 1 + again


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        ("no route", "ErrImagePull", "no route"),
        (
            "RegistryUnavailable: no route",
            "RegistryUnavailable",
            "image pull failed for busybox because the registry is unavailable: no route",
        ),
        (
            "SignatureValidationFailed: unsigned",
            "SignatureValidationFailed",
            "image pull failed for busybox because the signature validation failed: unsigned",
        ),
    ],
)
@with_skipped_time
async def test_who_sees_a_backoff_sees_what_the_last_pull_said(
    tmp_path: Path, said: str, reason: str, message: str
) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, said)
        s.start()
        await s.until(lambda: s.waits() == reason)
        waiting = s.main().state.waiting
        assert waiting is not None
        assert waiting.message == message
        assert f'Failed to pull image "busybox": {said}' in s.events.messages("Failed")
        assert f"Error: {reason}" in s.events.messages("Failed")
        s.skip(2)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        waiting = s.main().state.waiting
        assert waiting is not None
        assert waiting.message == f'Back-off pulling image "busybox": {reason}: {message}'


@with_skipped_time
async def test_a_pulled_image_is_told_with_its_time_and_size(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.pulls = PullGate(1, 0, 1)
        pulled = s.cri.hold("PullImage")
        s.start()
        await s.cri.reached("PullImage")
        s.start(record({"name": "other", "uid": "u-2"}, containers=[{"name": "main", "image": "other:1"}]))
        await s.until(lambda: len(s.events.messages("Pulling")) == 2)
        s.skip(61.25)
        pulled.set()
        await s.until(lambda: len(s.events.messages("Pulled")) == 2)
        first, second = (re.sub(r"\.\d+s", "s", text) for text in s.events.messages("Pulled"))
        assert first == 'Successfully pulled image "busybox" in 1m1s (1m1s including waiting). Image size: 1 bytes.'
        assert re.fullmatch(
            r'Successfully pulled image "other:1" in \d+(ms|s) \(1m1s including waiting\). Image size: 1 bytes.', second
        )


@with_skipped_time
async def test_every_refusal_is_told_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for name, user in (("a", "anna"), ("b", "bert"), ("c", "carl")):
            pull_secret(s, name, "registry.example", user)
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "401", times=2)
        s.cri.registry = set()
        s.start(
            record(
                imagePullSecrets=[{"name": name} for name in "abc"],
                containers=[{"name": "main", "image": "registry.example/web:1"}],
            )
        )
        await s.until(lambda: s.waits() == "ErrImagePull")
        waiting = s.main().state.waiting
        assert waiting is not None
        assert waiting.message.startswith("[401, PullImage: ")
        assert waiting.message.count("401") == 1


@with_skipped_time
async def test_a_pod_that_always_pulls_pulls_once_for_each_start(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(container_record(image="busybox:1", imagePullPolicy="Always"))
        s.exit("main", 1)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        assert s.moves.count("PullImage") == 2


@with_skipped_time
async def test_the_runtime_is_told_the_pods_annotations_with_its_image(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record({"annotations": {"example.com/snapshotter": "x"}}))
        (request,) = s.cri.called("PullImage")
        assert dict(request.image.annotations) == {"example.com/snapshotter": "x"}


@with_skipped_time
async def test_the_second_failure_backs_off_for_twenty_seconds(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.registry = set()
        s.start()
        for pulls, wait in ((1, 10), (2, 20)):
            await s.until(lambda: s.moves.count("PullImage") == pulls and s.waits() == "ErrImagePull")  # noqa: B023
            s.skip(2)
            await s.until(lambda: s.waits() == "ImagePullBackOff")
            s.skip(wait - 3)
            await quiet()
            assert s.moves.count("PullImage") == pulls
            s.skip(2)
        await s.until(lambda: s.moves.count("PullImage") == 3)


@with_skipped_time
async def test_one_images_backoff_does_not_hurry_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.registry = set()
        s.start(record(containers=[{"name": "main", "image": "a:1"}, {"name": "side", "image": "b:1"}]))
        await s.until(lambda: s.updates and s.waits() == s.waits("side") == "ErrImagePull")
        # Somebody else brings the first: its backoff stays as it was, long over.
        s.cri.add_image("a:1")
        s.skip(11)
        await s.until(lambda: s.main().state.running and s.moves.count("PullImage") == 3)
        s.skip(2)
        await s.until(lambda: s.waits("side") == "ImagePullBackOff")
        before = len(s.cri.called("ImageStatus"))
        s.skip(1)
        await quiet()
        assert len(s.cri.called("ImageStatus")) == before


@with_skipped_time
async def test_every_pull_secret_that_fits_is_tried(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        pull_secret(s, "wrong", "registry.example/shop", "nobody")
        pull_secret(s, "right", "registry.example", "somebody")
        pull_secret(s, "other", "elsewhere.example", "else")
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "401 Unauthorized")
        names = [{"name": name} for name in ("right", "wrong", "other", "missing")]
        await s.running(
            record(imagePullSecrets=names, containers=[{"name": "main", "image": "registry.example/shop/web:1"}])
        )
        assert [request.auth.username for request in s.cri.called("PullImage")] == ["nobody", "somebody"]
        assert s.events.messages("Failed") == []


@with_skipped_time
async def test_a_pull_secret_that_comes_later_is_used_by_the_next_try(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "401 Unauthorized")
        worker = s.start(
            record(
                imagePullSecrets=[{"name": "late"}],
                containers=[{"name": "main", "image": "registry.example/web:1"}],
            )
        )
        await s.until(lambda: s.waits() == "ErrImagePull")
        pull_secret(s, "late", "registry.example", "somebody")
        worker.objects_changed()
        s.skip(2)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        s.skip(9)
        await s.until(lambda: s.phase == "Running")
        assert [request.auth.username for request in s.cri.called("PullImage")] == ["", "somebody"]


@with_skipped_time
async def test_a_pull_secret_that_cannot_be_read_is_an_error_of_the_pull(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("secrets", "bad", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "e3s="})
        s.start(record(imagePullSecrets=[{"name": "bad"}]))
        await s.until(lambda: s.waits() == "ErrImagePull")
        waiting = s.main().state.waiting
        assert waiting is not None
        assert waiting.message == "imagePullSecret shop/bad: .dockerconfigjson is not a Docker configuration"


@with_skipped_time
async def test_a_name_that_is_no_image_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(container_record(image="BusyBox"))
        await s.until(lambda: s.waits() == "InvalidImageName")
        assert "InspectFailed" in s.events.reasons
        assert "PullImage" not in s.moves


@with_skipped_time
async def test_an_image_that_cannot_be_looked_at_is_no_error_of_a_run(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("ImageStatus", grpc.StatusCode.UNKNOWN, "the content store is broken")
        s.start()
        await s.until(lambda: s.waits() == "ImageInspectError")
        assert 'Failed to inspect image "busybox": the content store is broken' in s.events.messages("InspectFailed")
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_container_that_crashed_runs_again_though_its_registry_is_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(container_record(image="busybox:1"))
        s.cri.registry = set()
        s.exit("main", 1)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)


@with_skipped_time
async def test_no_more_images_are_pulled_at_once_than_allowed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.pulls = PullGate(1, 0, 1)
        pulled = s.cri.hold("PullImage")
        s.start(record())
        s.start(record({"name": "other", "uid": "u-2"}, containers=[{"name": "main", "image": "other:1"}]))
        await s.cri.reached("PullImage")
        await quiet()
        assert s.moves.count("PullImage") == 1
        pulled.set()
        await s.until(lambda: sum(c.state == pb.CONTAINER_RUNNING for c in s.cri.containers.values()) == 2)


AWAY = 'failed to do request: Head "https://r.example/v2/": dial tcp 10.0.0.1:443: connect: connection refused'
REFUSED = "failed to resolve reference: pull access denied, repository does not exist or may require authorization"


@with_skipped_time
async def test_while_the_registry_is_away_always_means_the_image_that_is_here(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image("busybox:1")
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, AWAY)
        await s.running(container_record(image="busybox:1", imagePullPolicy="Always"))
        (told,) = s.events.messages("OfflineImage")
        assert told.startswith('The registry of image "busybox:1" can\'t be reached, using the image on the machine: ')


class Nothing:
    """Nothing came from any registry."""

    async def within(self, seconds: float, registry: str) -> bool:
        return False


@with_skipped_time
async def test_a_registry_that_never_answers_is_waited_for_once_and_pods_start_all_the_same(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        s.machine.silence = Silence(Nothing(), s.time.monotonic)
        s.machine.pulls = PullGate(1, 0, 1)
        s.cri.add_image("busybox:1")
        s.cri.hold("PullImage")
        s.start(container_record(image="busybox:1", imagePullPolicy="Always"))
        await s.cri.reached("PullImage")
        main = {"name": "main", "image": "busybox:1", "imagePullPolicy": "Always"}
        s.start(record({"name": "other", "uid": "u-2"}, containers=[main]))
        s.start(record({"name": "absent", "uid": "u-3"}, containers=[{"name": "main", "image": "absent:1"}]))
        await quiet()
        assert not s.events.messages("OfflineImage")
        s.skip(SILENT_S + 1)
        await s.until(lambda: sum(c.state == pb.CONTAINER_RUNNING for c in s.cri.containers.values()) == 2)
        assert s.moves.count("PullImage") == 1
        assert all(
            re.search("docker.io did not answer within 1[56]s", told) for told in s.events.messages("OfflineImage")
        )
        await s.until(lambda: "Error: RegistryUnavailable" in s.events.messages("Failed"))


@pytest.mark.parametrize("why", [REFUSED, "manifest unknown: not found"])
@with_skipped_time
async def test_what_the_registry_refuses_is_not_taken_from_the_machine(tmp_path: Path, why: str) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image("busybox:1")
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, why)
        s.start(container_record(image="busybox:1", imagePullPolicy="Always"))
        await s.until(lambda: s.waits() == "ErrImagePull")
        assert not s.events.messages("OfflineImage")
