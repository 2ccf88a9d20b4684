"""Clients that speak WebSocket straight to the node, as API servers may from Kubernetes 1.36 on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from typing import Any
from urllib.parse import urlencode

import aiohttp
import psutil
import pytest

from agent.server.runtime_command import exit_code
from tests.integration.agent.edge import Edge, pod

MB = 1024 * 1024
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


async def talk(edge: Edge, protocol: str, script: str, stdin: bytes) -> dict[int, bytes]:
    """What came, by channel; stdin is closed after what is sent, where the protocol can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pki = edge.plane.folder / "pki"
    context.load_cert_chain(pki / "kubelet-client.crt", pki / "kubelet-client.key")
    asked = [("command", word) for word in ("sh", "-c", script)] + [
        (flag, "1") for flag in ("input", "output", "error")
    ]
    url = f"https://127.0.0.1:{edge.agent.port}/exec/{edge.namespace}/web/main?{urlencode(asked)}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=(protocol,), ssl=context, max_msg_size=0) as socket,
    ):
        assert socket.protocol == protocol

        async def send() -> None:
            for at in range(0, len(stdin), 32 * 1024):
                await socket.send_bytes(b"\x00" + stdin[at : at + 32 * 1024])
            if protocol == V5:
                await socket.send_bytes(b"\xff\x00")

        received: dict[int, bytearray] = {}
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            message: Any
            while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                received.setdefault(message.data[0], bytearray()).extend(message.data[1:])
        return {channel: bytes(data) for channel, data in received.items()}


@pytest.mark.parametrize("protocol", [V5, V4])
async def test_output_and_exit_code_arrive_on_their_channels(every_edge: Edge, protocol: str) -> None:
    every_edge.run(pod("web"))
    await asyncio.to_thread(every_edge.wait_ready, "web")
    received = await talk(every_edge, protocol, "echo out; echo err >&2; exit 3", b"")
    assert (received[1], received[2], exit_code(received[3])) == (b"out\n", b"err\n", 3)


async def test_100_mb_pass_both_ways_unchanged_and_the_agent_does_not_grow(every_edge: Edge) -> None:
    every_edge.run(pod("web"))
    await asyncio.to_thread(every_edge.wait_ready, "web")
    await talk(every_edge, V5, "cat", b"x" * MB)
    process = psutil.Process(every_edge.agent.pid)
    before = process.memory_info().rss
    sent = os.urandom(100 * MB)
    received = await talk(every_edge, V5, "cat", sent)
    assert hashlib.sha256(received[1]).hexdigest() == hashlib.sha256(sent).hexdigest()
    assert exit_code(received[3]) == 0
    assert process.memory_info().rss - before < 10 * MB
