"""The listener of the local API: TLS on loopback, health for everybody, the rest by token.

In: the agent's parts. Out: files by which this machine's programs find and trust it, and answers (`dispatch`), whose
code is loaded with the first request that needs it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.errors import ConfigError
from agent.kube.rest import Api
from agent.server.connections import LONGEST_REQUEST_LINE_BYTES
from agent.server.local_api.access import KUBECONFIG, LocalAccess, local_access
from agent.server.ports import Pods, PodStatuses
from agent.store.base import Store

if TYPE_CHECKING:
    from agent.server.local_api.dispatch import Dispatch
    from agent.server.local_api.recorded import RecordedAnswers
    from agent.server.local_api.upstream import Upstream
    from agent.server.local_api.view import LocalView

CERTIFICATE_CHECK_S = 3600.0
LEARN_S = 2 * 3600.0
"""A pod's volume with its token is written anew at least once an hour."""
LISTEN_AGAIN_S = 10.0
STOP_S = 0.2
HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
BODY_BYTES = 16 * 2**20


class Parts(msgspec.Struct, frozen=True):
    """What the agent gives. `node` is its Node as it would tell it now, `events` its own of late."""

    provider: Pods
    pods: PodStatuses
    store: Store
    node: Callable[[], dict[str, Any] | None]
    events: Callable[[], Iterable[dict[str, Any]]]
    api: Api | None


class LocalApiServer:
    def __init__(self, settings: Settings, parts: Parts, clock: Clock) -> None:
        self._settings = settings
        self._parts = parts
        self._clock = clock
        self._access: LocalAccess | None = None
        self._dispatch: Dispatch | None = None
        self._view: LocalView | None = None
        self._recorded: RecordedAnswers | None = None
        self._upstream: Upstream | None = None
        self._asked = asyncio.Event()

    def changed(self, plural: str) -> None:
        """Something of this resource is new on the node."""
        if self._view is not None:
            self._view.changed(plural)

    async def run(self, listener: socket.socket | None = None) -> None:
        """Serve until cancelled. Raises ConfigError before anything is served."""
        address, port = self._settings.local_api or ("", 0)
        if not address and listener is None:
            await asyncio.get_running_loop().create_future()
            return
        listener = listener or await self._listen(address, port)
        address, port = listener.getsockname()[:2]
        access = await self._prepare(address, port)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(access.files.certificate, access.files.key)
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=STOP_S,
            max_line_size=LONGEST_REQUEST_LINE_BYTES,
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener, ssl_context=context).start()
            logger.info("local API on {}:{}, for kubectl: {}", address, port, self._settings.root_dir / KUBECONFIG)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_answers(), name="recorded answers")
                await self._keep_certificate(context, address, port)
        finally:
            await runner.cleanup()
            if self._upstream is not None:
                await self._upstream.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in HEALTH and request.method in ("GET", "HEAD"):
            return web.Response(text="ok")
        assert self._access is not None
        if self._dispatch is None:
            self._dispatch = self._load()
        return await self._dispatch.answer(request, self._access)

    def _load(self) -> Dispatch:
        from agent.server.local_api.dispatch import Dispatch
        from agent.server.local_api.forward import Forwarder
        from agent.server.local_api.pod_streams import PodStreams
        from agent.server.local_api.recorded import RecordedAnswers
        from agent.server.local_api.sources import Sources
        from agent.server.local_api.upstream import Upstream
        from agent.server.local_api.view import LocalView

        parts, forwarder = self._parts, None
        if parts.api is not None:
            self._upstream = Upstream(parts.api)
            self._recorded = RecordedAnswers(parts.store, self._clock)
            forwarder = Forwarder(self._upstream, self._recorded)
            self._asked.set()
        self._view = LocalView(Sources(parts.pods, parts.store, parts.node, parts.events), self._clock)
        streams = PodStreams(parts.provider, self._settings.streaming_connection_idle_timeout)
        return Dispatch(self._view, streams, forwarder, self._clock, secrets=self._settings.local_api_secrets)

    async def _keep_answers(self) -> None:
        await self._asked.wait()
        assert self._recorded is not None
        await self._recorded.run()

    async def _listen(self, address: str, port: int) -> socket.socket:
        """Waits for an address that is taken or not there yet: no reason to stop a node."""
        said = ""
        while True:
            try:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                return socket.create_server((address, port), family=family, backlog=64)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
            if why != said:
                logger.warning("--local-api: cannot listen on {} port {} now: {}", address, port, why)
                said = why
            await self._clock.sleep(LISTEN_AGAIN_S)

    async def _prepare(self, address: str, port: int) -> LocalAccess:
        try:
            self._access = await asyncio.to_thread(local_access, self._settings, address, port, self._clock.wall())
        except OSError as error:
            raise ConfigError(f"--root-dir: the local API's files cannot be kept: {error}") from error
        return self._access

    async def _keep_certificate(self, context: ssl.SSLContext, address: str, port: int) -> None:
        """Our own is made anew a month before it ends, and with it the files that name it.

        It is shown a while later: pods' volumes must have it by then.
        """
        while True:
            await self._clock.sleep(CERTIFICATE_CHECK_S)
            before = self._access
            try:
                access = await self._prepare(address, port)
            except ConfigError as error:
                logger.warning("local API: the present certificate stays: {}", error)
                continue
            if before is None or access.ca != before.ca:
                await self._clock.sleep(LEARN_S)
                context.load_cert_chain(access.files.certificate, access.files.key)
