"""The channel: endpoints that cannot be, runtimes that are away, slow, or come back."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel, check_socket, socket_path
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import ConfigError, Retryable
from tests.fakes.cri import FakeRuntime, serve_at, serving
from tests.fakes.waiting import PATIENCE_S
from tests.unit.cri.conftest import Rig

BUSYBOX = pb.ImageSpec(image="busybox")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/run/containerd/containerd.sock",
        "unix://",
        "unix://run/containerd.sock",
        "unix:/run/containerd.sock",
        "tcp://127.0.0.1:1234",
        "npipe:////./pipe/containerd",
        "unix:///run/containerd/",
        "unix:///" + "a" * 120,
    ],
)
def test_an_endpoint_that_is_no_absolute_socket_path_is_refused_in_one_line_that_names_it(endpoint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        socket_path(endpoint)
    assert repr(endpoint) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_endpoint_gives_its_path() -> None:
    assert socket_path("unix:///run/containerd/containerd.sock") == "/run/containerd/containerd.sock"


def test_a_channel_to_a_bad_endpoint_is_never_made() -> None:
    with pytest.raises(ConfigError):
        RuntimeChannel("tcp://127.0.0.1:1234")


def test_a_socket_that_is_not_there_yet_may_come(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="no such file"):
        check_socket(f"unix://{tmp_path}/none.sock")


def test_a_file_in_the_socket_s_place_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(ConfigError, match="not a socket"):
        check_socket(f"unix://{tmp_path}/plain")


def test_a_socket_that_may_not_be_opened_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        monkeypatch.setattr("agent.cri.channel.os.access", lambda path, mode: False)
        with pytest.raises(ConfigError, match="permission denied"):
            check_socket(f"unix://{tmp_path}/s")


async def test_a_call_without_a_runtime_fails_at_once_and_says_what_the_system_said() -> None:
    async with RuntimeChannel("unix:///nowhere/cri.sock") as channel:
        with pytest.raises(Retryable) as away:
            await RuntimeClient(channel).status()
    said = str(away.value).removesuffix(" (2)")  # the errno, which older gRPC adds
    assert said == "Status: the runtime at unix:///nowhere/cri.sock is unavailable: No such file or directory"


async def test_a_runtime_that_is_too_busy_to_greet_at_once_is_waited_for(tmp_path: Path) -> None:
    endpoint = f"unix://{tmp_path}/cri.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(f"{tmp_path}/cri.sock")
        busy.listen()
        async with RuntimeChannel(endpoint) as channel, asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(RuntimeClient(channel).status())
            done, _ = await asyncio.wait({asked}, timeout=0.25)
            assert not done
            asked.cancel()


async def test_a_runtime_that_comes_back_is_found_again() -> None:
    fake = FakeRuntime()
    async with serving(fake) as endpoint:
        second = endpoint + "2"
        async with RuntimeChannel(second) as channel:
            runtime = RuntimeClient(channel)
            with pytest.raises(Retryable):
                await runtime.status()
            server = await serve_at(fake, second)
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        await runtime.status()
                        break
                    except Retryable:
                        await asyncio.sleep(0.02)
            await server.stop(None)


async def test_a_runtime_that_never_answers_meets_the_deadline(rig: Rig) -> None:
    gate = rig.fake.hold("PullImage")
    with pytest.raises(Retryable, match="did not answer in time"):
        await ImageClient(rig.channel).pull_image(BUSYBOX, deadline_s=0.05)
    gate.set()


async def test_a_cancelled_task_cancels_its_call(rig: Rig) -> None:
    rig.fake.hold("PullImage")
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(rig.images.pull_image(BUSYBOX))
        await rig.fake.reached("PullImage")
        pull.cancel()
    assert pull.cancelled()
    assert not rig.fake.images


async def test_closing_the_channel_fails_open_calls_instead_of_cancelling_their_tasks(rig: Rig) -> None:
    rig.fake.hold("PullImage")

    async def close_under_a_pull() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.images.pull_image(BUSYBOX))
            await rig.fake.reached("PullImage")
            await rig.channel.close()

    with pytest.raises(ExceptionGroup) as failed:
        await close_under_a_pull()
    assert failed.group_contains(Retryable, match="was closed")


async def test_a_stream_broken_by_the_runtime_ends_with_our_error(rig: Rig) -> None:
    rig.fake.fail("GetContainerEvents", grpc.StatusCode.UNAVAILABLE, "going down")
    with pytest.raises(Retryable, match=r"GetContainerEvents: the runtime at .* is unavailable: going down"):
        await anext(rig.runtime.container_events())
