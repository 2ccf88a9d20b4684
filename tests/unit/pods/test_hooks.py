import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from agent.errors import Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.pods.hooks import Hooks
from agent.pods.probes.http import HttpGetter
from agent.pods.probes.target import Target
from tests.unit.pods.probes.servers import Ended, FakeExec, http_server, reply, target


class Ledger:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.slept: list[float] = []

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        # That a hook was asked again without TLS is told of the pod, all else of the container.
        assert about.fieldPath == ("" if reason == "LifecycleHTTPFallback" else "spec.containers{c}")
        self.events.append((kind, reason, message))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def runtime() -> FakeExec:
    return FakeExec()


@pytest.fixture
async def hooks(runtime: FakeExec, ledger: Ledger) -> AsyncIterator[Hooks]:
    async with HttpGetter() as http:
        yield Hooks(runtime, http, ledger, sleep=ledger.sleep)


def post_start(port: int = 1, **handler: object) -> Target:
    return target(port, lifecycle={"postStart": handler})


def pre_stop(**handler: object) -> Target:
    return target(lifecycle={"preStop": handler})


async def test_a_container_without_hooks_has_nothing_to_run(hooks: Hooks, runtime: FakeExec) -> None:
    await hooks.post_start(target())
    await hooks.pre_stop(target())
    await hooks.post_start(pre_stop(exec={"command": ["x"]}))
    assert runtime.ran == []


async def test_a_command_hook_runs_in_the_container_without_a_limit(hooks: Hooks, runtime: FakeExec) -> None:
    await hooks.post_start(post_start(exec={"command": ["echo", "$(A)"]}))
    assert runtime.ran == [("id", ("echo", "$(A)"), None)]


async def test_a_failed_post_start_ends_the_container_and_keeps_its_output_out_of_the_event(
    hooks: Hooks, runtime: FakeExec, ledger: Ledger
) -> None:
    runtime.answer = Ended(3, b"pass", b"word")
    with pytest.raises(Permanent) as caught:
        await hooks.post_start(post_start(exec={"command": ["a", "b"]}))
    assert caught.value.reason == "PostStartHookError"
    assert str(caught.value) == (
        'Exec lifecycle hook ([a b]) for Container "c" in Pod "p_ns(u)" failed - '
        "error: command 'a b' exited with 3: word, message: \"password\""
    )
    assert ledger.events == [("Warning", "FailedPostStartHook", "PostStartHook failed")]


async def test_a_runtime_that_cannot_run_the_hook_is_a_failed_hook(hooks: Hooks, runtime: FakeExec) -> None:
    runtime.answer = Retryable("runtime away")
    with pytest.raises(Permanent, match="runtime away"):
        await hooks.post_start(post_start(exec={"command": ["a"]}))


async def test_a_failed_pre_stop_is_told_and_does_not_hold_the_end_up(
    hooks: Hooks, runtime: FakeExec, ledger: Ledger
) -> None:
    runtime.answer = Ended(1)
    await hooks.pre_stop(pre_stop(exec={"command": ["a"]}))
    assert ledger.events == [("Warning", "FailedPreStopHook", "PreStopHook failed")]


async def test_a_sleep_sleeps(hooks: Hooks, ledger: Ledger) -> None:
    await hooks.pre_stop(pre_stop(sleep={"seconds": 7}))
    await hooks.pre_stop(pre_stop(sleep={"seconds": 0}))
    assert ledger.slept == [7, 0]


async def test_any_http_answer_is_a_good_one(hooks: Hooks) -> None:
    async with http_server(lambda _: reply(500)) as (port, seen):
        await hooks.post_start(post_start(port, httpGet={"port": "web", "path": "/up"}))
    assert seen[0].startswith("GET /up ")
    assert "User-Agent: kube-lifecycle/1.36" in seen[0]


async def test_a_server_without_tls_is_asked_again_without(hooks: Hooks, ledger: Ledger) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        seen.append(first)
        writer.write(reply(200) if first.startswith(b"GET") else reply(400))
        await writer.drain()
        writer.close()

    seen: list[bytes] = []
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        headers = [{"name": "Authorization", "value": "Bearer x"}, {"name": "X-A", "value": "1"}]
        await hooks.post_start(post_start(port, httpGet={"port": port, "scheme": "HTTPS", "httpHeaders": headers}))
    assert seen[-1].startswith(b"GET / ")
    assert b"X-A: 1" in seen[-1]
    assert b"Authorization" not in seen[-1], "credentials do not go out in the clear"
    message = f"request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
    assert ledger.events == [("Warning", "LifecycleHTTPFallback", message)]


async def test_no_answer_is_a_failed_hook(hooks: Hooks) -> None:
    with pytest.raises(Permanent, match=r"HTTP lifecycle hook \(/\).*port ghost not found"):
        await hooks.post_start(post_start(httpGet={"port": "ghost"}))


async def test_a_tcp_handler_is_refused_as_no_node_has_ever_run_one(hooks: Hooks) -> None:
    with pytest.raises(Permanent, match="names none of exec, httpGet and sleep"):
        await hooks.post_start(post_start(tcpSocket={"port": 1}))
