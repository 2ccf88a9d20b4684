"""The runtime and image clients against both generations of containerd."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from pathlib import Path

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.arrivals import Arrivals
from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import Conflict, NotFound, Permanent, Retryable
from hack.images import BUSYBOX
from hack.runtime import Containerd, Generation
from tests.integration.cri.conftest import Sandboxes, shell


async def ended(runtime: RuntimeClient, container_id: str) -> pb.ContainerStatus:
    async with asyncio.timeout(20):
        while True:
            status = (await runtime.container_status(container_id)).status
            if status.state == pb.CONTAINER_EXITED:
                return status
            await asyncio.sleep(0.02)


async def test_the_handshake_names_the_generation(containerd: Containerd, runtime: RuntimeClient) -> None:
    answer = await runtime.version()
    assert answer.runtime_name == "containerd"
    assert answer.runtime_api_version == "v1"
    assert answer.runtime_version.removeprefix("v").startswith(f"{containerd.generation}.")


async def test_runtime_and_network_are_ready(runtime: RuntimeClient) -> None:
    conditions = {c.type: c.status for c in (await runtime.status()).status.conditions}
    assert conditions["RuntimeReady"]
    assert conditions["NetworkReady"]


async def test_a_pod_lives_and_dies_as_its_config_says(
    runtime: RuntimeClient, run_sandbox: Sandboxes, tmp_path: Path
) -> None:
    sandbox_id, config = await run_sandbox()
    sandbox = (await runtime.pod_sandbox_status(sandbox_id)).status
    assert sandbox.state == pb.SANDBOX_READY
    assert sandbox.network.ip
    container_id = await runtime.create_container(sandbox_id, shell("echo hello; sleep 0.2; exit 3"), config)
    assert (await runtime.container_status(container_id)).status.state == pb.CONTAINER_CREATED
    await runtime.start_container(container_id)
    status = await ended(runtime, container_id)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert status.created_at <= status.started_at <= status.finished_at
    assert (tmp_path / "main.log").read_text().endswith("stdout F hello\n")
    await runtime.remove_container(container_id)
    with pytest.raises(NotFound):
        await runtime.container_status(container_id)
    await runtime.stop_pod_sandbox(sandbox_id)
    [listed] = await runtime.list_pod_sandbox(pb.PodSandboxFilter(label_selector=config.labels))
    assert listed.state == pb.SANDBOX_NOTREADY
    await runtime.remove_pod_sandbox(sandbox_id)
    assert not await runtime.list_pod_sandbox(pb.PodSandboxFilter(label_selector=config.labels))


async def test_a_reserved_name_is_a_conflict(runtime: RuntimeClient, run_sandbox: Sandboxes) -> None:
    sandbox_id, config = await run_sandbox()
    with pytest.raises(Conflict, match="reserved"):
        await runtime.run_pod_sandbox(config)
    await runtime.create_container(sandbox_id, shell("true"), config)
    with pytest.raises(Conflict, match="reserved"):
        await runtime.create_container(sandbox_id, shell("true"), config)


async def test_what_is_not_there_is_not_found(runtime: RuntimeClient, run_sandbox: Sandboxes) -> None:
    for missing in (
        runtime.container_status("nothing"),
        runtime.pod_sandbox_status("nothing"),
        runtime.start_container("nothing"),
        runtime.exec_sync("nothing", ["true"], 1),
    ):
        with pytest.raises(NotFound):
            await missing
    sandbox_id, config = await run_sandbox()
    without_image = shell("true")
    without_image.image.image = "registry.example/nothing:1"
    with pytest.raises(NotFound):
        await runtime.create_container(sandbox_id, without_image, config)
    await runtime.remove_container("nothing")  # removed is removed
    await runtime.remove_pod_sandbox("nothing")


async def test_a_command_runs_in_a_container_and_is_killed_at_its_time_out(
    runtime: RuntimeClient, run_sandbox: Sandboxes
) -> None:
    sandbox_id, config = await run_sandbox()
    container_id = await runtime.create_container(sandbox_id, shell("exec sleep 1000"), config)
    await runtime.start_container(container_id)
    answer = await runtime.exec_sync(container_id, ["sh", "-c", "echo out; echo err >&2; exit 5"], 10)
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 5)
    with pytest.raises(TimeoutError, match="longer than 1 s"):
        await runtime.exec_sync(container_id, ["sleep", "1000"], 0.5)
    with pytest.raises(Permanent):
        await runtime.exec_sync(container_id, ["no-such-program"], 10)
    url = await runtime.exec(container_id, ["sh"], stdin=True, stdout=True, stderr=False, tty=True)
    assert url.startswith("http://127.0.0.1:")
    assert (await runtime.container_stats(container_id)).attributes.id == container_id
    await runtime.update_container_resources(container_id, pb.LinuxContainerResources(cpu_shares=512))
    await runtime.reopen_container_log(container_id)
    await runtime.stop_container(container_id, 0)
    with pytest.raises(Permanent):
        await runtime.exec_sync(container_id, ["true"], 1)


async def test_stopping_waits_for_the_end_and_kills_after_the_grace(
    runtime: RuntimeClient, run_sandbox: Sandboxes
) -> None:
    sandbox_id, config = await run_sandbox()
    obeying = shell("trap 'exit 7' TERM; while true; do sleep 0.1; done", "obeying")
    deaf = shell("trap '' TERM; while true; do sleep 0.1; done", "deaf")
    codes = []
    for container, grace_s, longest_s in ((obeying, 30, 10.0), (deaf, 1, 15.0)):
        container_id = await runtime.create_container(sandbox_id, container, config)
        await runtime.start_container(container_id)
        await asyncio.sleep(0.3)  # until the shell has set its trap
        begin = time.monotonic()
        await runtime.stop_container(container_id, grace_s)
        assert time.monotonic() - begin < longest_s
        codes.append((await runtime.container_status(container_id)).status.exit_code)
    assert codes == [7, 137]


async def test_images_are_listed_and_found_by_name_and_id(images: ImageClient) -> None:
    image = await images.image_status(pb.ImageSpec(image=BUSYBOX))
    assert image is not None
    assert await images.image_status(pb.ImageSpec(image=image.id)) is not None
    assert image.id in {listed.id for listed in await images.list_images()}
    assert await images.image_status(pb.ImageSpec(image="registry.example/nothing:1")) is None
    for _ in range(300):  # containerd looks at its disk every 10 s, and has nothing to tell before
        if found := (await images.image_fs_info()).image_filesystems:
            break
        await asyncio.sleep(0.2)
    assert found[0].fs_id.mountpoint


async def test_a_pull_that_fails_says_why(images: ImageClient) -> None:
    with pytest.raises(Permanent, match="connection refused"):
        await images.pull_image(pb.ImageSpec(image="127.0.0.1:1/nothing:1"))


async def test_a_cancelled_pull_ends_in_the_runtime_as_well(images: ImageClient) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def registry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()  # and never answer
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(registry, "127.0.0.1", 0) as server, asyncio.timeout(20):
        port = server.sockets[0].getsockname()[1]
        async with asyncio.TaskGroup() as group:
            pull = group.create_task(images.pull_image(pb.ImageSpec(image=f"127.0.0.1:{port}/nothing:1")))
            await asked.wait()
            pull.cancel()
        await hung_up.wait()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _http(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n".encode() + body


async def test_the_first_blob_of_a_pull_is_seen_while_its_layer_does_not_come(
    channel: RuntimeChannel, images: ImageClient
) -> None:
    kind, layer = "application/vnd.oci.image", _digest(uuid.uuid4().bytes)
    rootfs = {"type": "layers", "diff_ids": [layer]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    described = _digest(config)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": described, "size": len(config)},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar", "digest": layer, "size": 1 << 20}],
        }
    ).encode()
    told = (
        f"Content-Type: {kind}.manifest.v1+json\r\nDocker-Content-Digest: {_digest(manifest)}\r\n"
        f"Content-Length: {len(manifest)}"
    )
    may_answer = asyncio.Event()

    async def registry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (first := await reader.read(1)) != b"\x16":
            first += await reader.readuntil(b"\r\n\r\n")
        line = first.partition(b"\r\n")[0].decode()
        if not line.isprintable():  # TLS: it asks again without when it sees this
            writer.write(_http("Content-Length: 0"))
        elif "/manifests/" in line:
            await may_answer.wait()
            writer.write(_http(told, b"" if line.startswith("HEAD") else manifest))
        elif described in line:
            writer.write(_http(f"Content-Length: {len(config)}", config))
        elif layer in line:
            await reader.read()
        await writer.drain()
        writer.close()

    arrivals = Arrivals(channel)
    async with await asyncio.start_server(registry, "127.0.0.1", 0) as server, asyncio.timeout(20):
        name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for _ in ("new", "again, with the first blobs here already"):
            async with asyncio.TaskGroup() as group:
                may_answer.clear()
                began = time.time()
                pull = group.create_task(images.pull_image(pb.ImageSpec(image=f"{name}/slow:1")))
                assert not await arrivals.within(time.time() - began, name)
                may_answer.set()
                while not await arrivals.within(time.time() - began, name):
                    assert not pull.done()
                    await asyncio.sleep(0.05)
                assert not await arrivals.within(60, "other.example")
                pull.cancel()


async def test_figures_and_long_lists_are_as_the_short_ones_or_unimplemented(
    runtime: RuntimeClient, images: ImageClient, run_sandbox: Sandboxes
) -> None:
    sandbox_id, config = await run_sandbox()
    container_id = await runtime.create_container(sandbox_id, shell("exec sleep 1000"), config)
    await runtime.start_container(container_id)
    [stats] = await runtime.list_container_stats(pb.ContainerStatsFilter(pod_sandbox_id=sandbox_id))
    assert stats.memory.working_set_bytes.value > 0
    in_pod, this_pod = pb.ContainerFilter(pod_sandbox_id=sandbox_id), pb.PodSandboxFilter(id=sandbox_id)
    try:
        containers = [c.id async for message in runtime.stream_containers(in_pod) for c in message.containers]
        sandboxes = [s.id async for message in runtime.stream_pod_sandboxes(this_pod) for s in message.pod_sandboxes]
        streamed = {image.id async for message in images.stream_images() for image in message.images}
    except Permanent as refusal:
        if refusal.reason != "Unimplemented":
            raise
    else:
        assert (containers, sandboxes) == ([container_id], [sandbox_id])
        assert streamed == {image.id for image in await images.list_images()}


async def test_a_call_that_a_generation_lacks_is_unimplemented(containerd: Containerd, runtime: RuntimeClient) -> None:
    if containerd.generation is Generation.DISTRIBUTION:
        with pytest.raises(Permanent) as refusal:
            await runtime.runtime_config()
        assert refusal.value.reason == "Unimplemented"
    else:
        assert (await runtime.runtime_config()).linux.cgroup_driver in (pb.CGROUPFS, pb.SYSTEMD)


async def test_a_stopped_runtime_is_retryable_and_found_again(containerd: Containerd, channel: RuntimeChannel) -> None:
    runtime = RuntimeClient(channel)
    await runtime.version()
    await asyncio.to_thread(containerd.stop)
    try:
        with pytest.raises(Retryable):
            await runtime.version()
        with pytest.raises(Retryable, match="unavailable"):
            await runtime.status()
    finally:
        await asyncio.to_thread(containerd.start)
    async with asyncio.timeout(5):
        while True:
            try:
                await runtime.version()
                break
            except Retryable:
                await asyncio.sleep(0.05)
