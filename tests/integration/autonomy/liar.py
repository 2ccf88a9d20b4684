"""What stands where one agent looks for its API server: honest until it is told what lie to tell.

A TLS server on loopback in a thread of the test, with a certificate of the cluster's CA. It passes every request on
under the node's identity, streams watches, and changes answers by the lie of the moment. A change of the lie breaks
every connection, as a change of what is behind an address does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Coroutine
from enum import Enum, auto
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hack.control_plane import ControlPlane

PODS = "/api/v1/pods"
EMPTY = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}
PORTAL = b"<html><body>Welcome! Please log in to use this network.</body></html>"
HOP_BY_HOP = {"content-length", "transfer-encoding", "connection", "host", "content-encoding", "accept-encoding"}


class Lie(Enum):
    """What is said in place of the truth."""

    NO_PODS = auto()
    """Every list of pods is empty."""
    UNAUTHORIZED = auto()
    """401 to everything."""
    BROKEN = auto()
    """500 to everything."""
    CUT = auto()
    """Objects, lists and lines of watches end in the middle."""
    PORTAL = auto()
    """A page with 200 for everything."""


class Liar:
    def __init__(self, plane: ControlPlane, node: str, folder: Path) -> None:
        self._node = node
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._lie: Lie | None = None
        self.asked_for_pods = 0
        """Lists and watches of all the node's pods since the last change."""
        self.lists = 0
        self._transports: set[asyncio.Transport] = set()
        self._upstream: tuple[str, ssl.SSLContext]
        self._point_at(plane)
        certificate, key = plane.serving_certificate(folder, f"liar-{node}", ["kubernetes"])
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self.port = 0
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner
        self._do(self._listen())

    def tell(self, lie: Lie | None) -> None:
        """None: the truth."""
        self._do(self._change(lie, None))

    def stand_for(self, plane: ControlPlane) -> None:
        """Another control plane is behind this address from now on, under its own identity of the node."""
        self._do(self._change(None, plane))

    def close(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _point_at(self, plane: ControlPlane) -> None:
        pair = plane.client(f"system:node:{self._node}", ["system:nodes"])
        file = self._folder / f"liar-{self._node}.pem"
        file.touch(mode=0o600)
        file.write_bytes(pair.certificate + pair.key)
        tls = ssl.create_default_context(cafile=str(plane.client_ca))
        tls.load_cert_chain(file)
        self._upstream = plane.url, tls

    async def _listen(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]

    async def _change(self, lie: Lie | None, plane: ControlPlane | None) -> None:
        if plane is not None:
            self._point_at(plane)
        self._lie = lie
        self.asked_for_pods = self.lists = 0
        for transport in tuple(self._transports):
            transport.abort()

    async def _end(self) -> None:
        await self._change(None, None)
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self._transports.add(transport)
        try:
            return await self._say(request)
        except (aiohttp.ClientError, ConnectionError):
            transport.abort()
            return web.Response(status=502)
        finally:
            if transport.is_closing():
                self._transports.discard(transport)

    async def _say(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") == "1"
        if request.path == PODS:
            self.asked_for_pods += 1
            self.lists += not is_watch
        match self._lie:
            case Lie.UNAUTHORIZED:
                return _status(401, "Unauthorized")
            case Lie.BROKEN:
                return _status(500, "InternalError")
            case Lie.PORTAL:
                return web.Response(body=PORTAL, content_type="text/html")
            case Lie.NO_PODS | Lie.CUT if request.path == PODS and is_watch:
                # So that lists are asked for.
                return _status(410, "Expired")
            case _:
                return await self._pass_on(request, is_watch)

    async def _pass_on(self, request: web.Request, is_watch: bool) -> web.StreamResponse:
        url, tls = self._upstream
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method, url + request.raw_path, data=body or None, headers=headers, ssl=tls
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if is_watch and answer.status == 200:
                return await self._pass_watch_on(request, answer, kept)
            said = await answer.read()
        if request.method == "GET" and answer.status == 200 and request.path != "/readyz":
            if self._lie is Lie.CUT:
                said = said[: len(said) // 2]
            elif self._lie is Lie.NO_PODS and request.path == PODS:
                said = json.dumps(EMPTY).encode()
        return web.Response(status=answer.status, body=said, headers=kept)

    async def _pass_watch_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for piece in answer.content.iter_any():
                await response.write(piece[: len(piece) // 2] if self._lie is Lie.CUT else piece)
                if self._lie is Lie.CUT:
                    break
        return response


def _status(code: int, reason: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code}
    return web.json_response(body, status=code)
