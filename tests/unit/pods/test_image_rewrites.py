"""Images that come from elsewhere than their names say, and keep their names."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from agent.errors import Permanent
from agent.model import labels
from agent.pods.image_rewrites import NO_REWRITES, Rewrites
from agent.pods.translate.identity import spec_hash
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.scene import container_record, record, scene
from tests.unit.pods.test_image_pull import pull_secret

HUB = "r.example:5000/hub"
DIGEST = "sha256:" + "a" * 64
REWRITES = Rewrites((("docker.io", "r.example/all"), ("docker.io/library", HUB), ("quay.io/a/b", "r.example/b")))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox", f"{HUB}/busybox:latest"),
        ("index.docker.io/library/busybox:1", f"{HUB}/busybox:1"),
        (f"busybox:1@{DIGEST}", f"{HUB}/busybox:1@{DIGEST}"),
        ("shop/web:2", "r.example/all/shop/web:2"),
        ("docker.io/librarian/web:2", "r.example/all/librarian/web:2"),
        ("quay.io/a/b:1", "r.example/b:1"),
        (f"quay.io/a/b@{DIGEST}", f"r.example/b@{DIGEST}"),
        ("quay.io/a/b/c:1", "r.example/b/c:1"),
        ("quay.io/a/bc:1", "quay.io/a/bc:1"),
        (f"{HUB}/busybox", f"{HUB}/busybox:latest"),
    ],
)
def test_the_longest_beginning_of_whole_parts_counts_and_what_comes_of_it_is_final(image: str, name: str) -> None:
    assert REWRITES.name(image) == name


def test_without_rewriting_a_short_name_stays_short_and_what_is_no_name_is_refused() -> None:
    assert NO_REWRITES.name("busybox") == "busybox:latest"
    with pytest.raises(Permanent, match="must be lowercase"):
        REWRITES.name("BusyBox")
    with pytest.raises(Permanent, match="must not be more than 255"):
        REWRITES.name(f"docker.io/{'a' * 253}/b")


def test_what_pods_call_an_image_is_found_from_what_the_runtime_calls_it() -> None:
    assert REWRITES.originals([f"{HUB}/busybox:1"]) == ("docker.io/library/busybox:1",)
    # docker.io/library/… goes elsewhere, so it can't be what this one was.
    assert REWRITES.originals(["r.example/all/library/busybox:1"]) == ()
    assert REWRITES.originals(["r.example/all/shop/web:2", "other.example/x:1"]) == ("docker.io/shop/web:2",)
    assert NO_REWRITES.originals([f"{HUB}/busybox:1"]) == ()


@with_skipped_time
async def test_it_is_pulled_from_elsewhere_and_the_status_has_the_name_that_the_user_wrote(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.rewrites = REWRITES
        await s.running(container_record(image="busybox:1"))
        assert [call.image.image for call in s.cri.called("PullImage")] == [f"{HUB}/busybox:1"]
        assert (s.main().image, s.main().imageID) == ("busybox:1", f"sha256:{HUB}/busybox:1")
        (request,) = s.cri.called("CreateContainer")
        assert request.config.annotations[labels.CONTAINER_HASH] == spec_hash(
            container_record(image="busybox:1").pod.spec.containers[0]
        )
        assert s.events.messages("Pulling") == ['Pulling image "busybox:1"']


@with_skipped_time
async def test_what_is_here_under_either_name_is_not_pulled(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.rewrites = REWRITES
        s.cri.add_image("busybox:1")
        await s.running(container_record(image="busybox:1", imagePullPolicy="Never"))
        s.cri.add_image(f"{HUB}/other:1")
        other = record({"name": "o", "uid": "u-2"}, containers=[{"name": "main", "image": "other:1"}])
        await s.running(other)
        await s.until(lambda: len(s.cri.called("StartContainer")) == 2)
        assert "PullImage" not in s.moves


@with_skipped_time
async def test_always_asks_the_registry_where_it_comes_from_and_backs_off_under_its_name(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.rewrites = REWRITES
        s.cri.add_image("busybox:1")
        s.cri.registry = set()
        s.start(container_record(image="busybox:1", imagePullPolicy="Always"))
        await s.until(lambda: s.waits() == "ErrImagePull")
        s.skip(2)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        s.cri.registry = {f"{HUB}/busybox:1"}
        s.skip(9)
        await s.until(lambda: s.phase == "Running")
        assert {call.image.image for call in s.cri.called("PullImage")} == {f"{HUB}/busybox:1"}


@with_skipped_time
async def test_while_the_other_registry_is_away_what_is_here_under_the_users_name_does(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.rewrites = REWRITES
        s.cri.add_image("busybox:1")
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "dial tcp: connection refused")
        await s.running(container_record(image="busybox:1", imagePullPolicy="Always"))
        assert "OfflineImage" in s.events.reasons


@with_skipped_time
async def test_a_secret_for_the_registry_in_the_name_is_not_shown_to_the_one_that_is_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.rewrites = REWRITES
        pull_secret(s, "hub", "docker.io", "for-the-hub")
        pull_secret(s, "own", "r.example:5000", "for-ours")
        await s.running(record(imagePullSecrets=[{"name": "hub"}, {"name": "own"}]))
        assert [call.auth.username for call in s.cri.called("PullImage")] == ["for-ours"]
