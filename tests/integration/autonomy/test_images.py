"""A registry that is away does not keep a container from an image that is on the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.images import BUSYBOX
from hack.processes import free_port
from tests.integration.agent.edge import condition, container, pod, status_of
from tests.integration.autonomy.conftest import Outpost
from tests.integration.support.waiting import wait_until


def away() -> str:
    """An image of a registry at which nobody listens."""
    return f"127.0.0.1:{free_port()}/app:1"


@pytest.fixture
def present(outpost: Outpost) -> Iterator[str]:
    """Such an image, on the machine all the same. Its tag goes after the test: a runtime shows any tag of an image."""
    reference = away()
    outpost.runtime.ctr("images", "tag", BUSYBOX, reference)
    yield reference
    outpost.runtime.ctr("images", "remove", "--sync", reference)


def test_always_means_the_present_image_while_the_registry_is_away_and_what_is_absent_waits(
    outpost: Outpost, present: str
) -> None:
    absent = away()
    always = {"imagePullPolicy": "Always"}
    outpost.run(
        pod("present", {**container(), **always, "image": present}),
        pod("absent", {**container(), **always, "image": absent}),
        pod("other"),
    )
    outpost.wait_ready("present", "other", timeout=15)
    (told,) = wait_until(lambda: [message for reason, message in outpost.events("present") if reason == "OfflineImage"])
    assert f'The registry of image "{present}" can\'t be reached' in told
    wait_until(lambda: status_of(outpost.pod("absent"))["state"]["waiting"]["reason"] == "ImagePullBackOff")
    wait_until(lambda: "BackOff" in {reason for reason, _ in outpost.events("absent")})
    assert condition(outpost.pod("other"), "Ready")["status"] == "True"


@pytest.mark.parametrize("outpost_flags", [["--offline-images=none"]])
def test_where_it_is_not_wanted_always_waits_for_the_registry(outpost: Outpost, present: str) -> None:
    outpost.run(pod("present", {**container(), "image": present, "imagePullPolicy": "Always"}))
    wait_until(lambda: status_of(outpost.pod("present"))["state"]["waiting"]["reason"] == "ErrImagePull")
    assert "OfflineImage" not in {reason for reason, _ in outpost.events("present")}
