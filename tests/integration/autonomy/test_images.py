"""A registry that is away does not keep a container from an image that is on the machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hack import images, oci
from hack.images import BUSYBOX
from hack.processes import free_port
from hack.registry import Registry
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


@pytest.fixture
def registry(outpost: Outpost, tmp_path: Path) -> Iterator[Registry]:
    """It has an image, and is away."""
    made = Registry(tmp_path / "registry")
    made.start()
    made.push(oci.Image((), (oci.layer(images.busybox_files()),), command=("sh",)), "late", "1")
    made.stop()
    yield made
    made.stop()
    outpost.runtime.ctr("images", "remove", "--sync", f"{made.address}/late:1")


def test_with_the_networks_return_an_image_whose_registry_was_away_is_pulled_at_once(
    outpost: Outpost, registry: Registry
) -> None:
    outpost.run(pod("late", {**container(), "image": f"{registry.address}/late:1"}))
    for waits in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull"):
        wait_until(partial(_waits, outpost, "late", waits))
    # From here it is 20 s to the next try.
    outpost.cut()
    wait_until(lambda: "does not answer" in outpost.agent_log(), 5)
    registry.start()
    outpost.heal()
    outpost.wait_ready("late", timeout=10)


def _waits(outpost: Outpost, name: str, reason: str) -> bool:
    return bool(status_of(outpost.pod(name))["state"].get("waiting", {}).get("reason") == reason)


@pytest.fixture
def silent() -> Iterator[str]:
    """A registry that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_registry_that_never_answers_is_away_after_a_while_and_keeps_nobody_else_waiting(
    outpost: Outpost, silent: str
) -> None:
    present = f"{silent}/app:1"
    outpost.runtime.ctr("images", "tag", BUSYBOX, present)
    try:
        always = {"imagePullPolicy": "Always"}
        outpost.run(
            *(pod(name, {**container(), **always, "image": present}) for name in ("first", "second")),
            pod("absent", {**container(), **always, "image": f"{silent}/absent:1"}),
            pod("other"),
        )
        outpost.wait_ready("other", timeout=10)
        outpost.wait_ready("first", "second", timeout=25)
        (told,) = wait_until(
            lambda: [message for reason, message in outpost.events("first") if reason == "OfflineImage"]
        )
        assert f"{silent} did not answer within" in told
        # From now on it is known: who comes later does not wait.
        outpost.run(
            pod("later", {**container(), **always, "image": present}),
            pod("nothing", {**container(), **always, "image": f"{silent}/nothing:1"}),
        )
        outpost.wait_ready("later", timeout=10)
        wait_until(lambda: status_of(outpost.pod("nothing"))["state"]["waiting"]["reason"] == "ImagePullBackOff")
    finally:
        outpost.runtime.ctr("images", "remove", "--sync", present)


@pytest.mark.parametrize("outpost_flags", [["--offline-images=none"]])
def test_where_it_is_not_wanted_always_waits_for_the_registry(outpost: Outpost, present: str) -> None:
    outpost.run(pod("present", {**container(), "image": present, "imagePullPolicy": "Always"}))
    wait_until(lambda: status_of(outpost.pod("present"))["state"]["waiting"]["reason"] == "ErrImagePull")
    assert "OfflineImage" not in {reason for reason, _ in outpost.events("present")}
