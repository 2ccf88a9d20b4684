"""The kubelet's HTTPS API: who may ask, what is served, and how errors are told.

In: requests with a client certificate of the cluster's CA or a token (`agent.server.gate`). Out: what the provider and
the record answer. Our errors become HTTP statuses in one place; whatever else goes wrong in a handler is one line in
the log and a bare 500. A client that goes away takes its handler with it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack

from aiohttp import web
from loguru import logger

from agent.clock import Clock, SystemClock
from agent.config import Settings
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.server.checkpoint import CheckpointRoutes
from agent.server.connections import SERVER, Connections, mark_busy
from agent.server.container_logs import container_log
from agent.server.gate import Gate
from agent.server.host_logs import HostLogs
from agent.server.log_query import INVALID
from agent.server.node_routes import NodeRoutes
from agent.server.ports import Pods, PodStatuses
from agent.server.reviews import ApiServer, Lives, Reviews
from agent.server.stats import StatsRoutes
from agent.server.streaming import StreamingRoutes
from agent.server.takeover import Upgraded
from agent.server.tls import ServingTls

STOP_S = 0.2
"""Time for requests under way when the agent stops: a follower of a log would stay for ever."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubeletServer:
    """One listener. `provider` answers for pods, and for logs where it is a ReadsLogs.

    `client_ca` is the cluster's CA in PEM; the settings' own file wins over it, and without either nobody is let in.
    `addresses` are the node's, for the certificate. `api` says who a token is and what a client may do.
    """

    def __init__(
        self,
        settings: Settings,
        provider: Pods,
        statuses: PodStatuses,
        client_ca: bytes | None,
        addresses: Sequence[str],
        clock: Clock | None = None,
        api: ApiServer | None = None,
        read_addresses: Callable[[], Sequence[str]] | None = None,
        foreign: Callable[[], str] = str,
    ) -> None:
        """`read_addresses` blocks and tells the addresses as they are now; without it they are `addresses` for ever."""
        self._settings = settings
        self._foreign = foreign
        self._api = api
        self._provider = provider
        self._statuses = statuses
        self._clock = clock or SystemClock()
        fixed = tuple(addresses)
        self._tls = ServingTls(settings, client_ca, read_addresses or (lambda: fixed), self._clock)

    def certificate_changed(self) -> None:
        """Another one lies on the disk: take it up now."""
        self._tls.changed()

    async def run(self, listener: socket.socket | None = None) -> None:
        """Serve until cancelled, on `listener` where one is given. Port 0 in the settings: serve nothing.

        Raises ConfigError (port in use, certificate or CA unusable) before anything is served.
        """
        if listener is None and self._settings.port == 0:
            await asyncio.get_running_loop().create_future()
            return
        await self._tls.load()
        node = NodeRoutes(self._settings, self._provider, self._statuses, self._foreign)
        stats = StatsRoutes(self._provider)
        routes = [
            *node.routes(),
            *stats.routes(),
            web.get("/containerLogs/{namespace}/{pod}/{container}", self._container_logs),
            *StreamingRoutes(self._provider, self._settings.streaming_connection_idle_timeout).routes(),
            *CheckpointRoutes(self._provider).routes(),
            *HostLogs(self._settings.enable_system_log_handler).routes(),
        ]
        async with AsyncExitStack() as stack:
            opened = listener or _listen(self._settings.address, self._settings.port, "--port")
            serving = [await self._serving(stack, opened, self._application(routes, self._gate()), self._tls)]
            if port := self._settings.read_only_port:
                opened = _listen(self._settings.address, port, "--read-only-port")
                readable = self._application([*node.readable(), *stats.routes()], None)
                serving.append(await self._serving(stack, opened, readable, None))
            async with asyncio.TaskGroup() as tasks:
                for connections, opened in serving:
                    tasks.create_task(connections.accept(opened), name="connections")
                await self._tls.run()

    async def _serving(
        self, stack: AsyncExitStack, listener: socket.socket, app: web.Application, tls: ServingTls | None
    ) -> tuple[Connections, socket.socket]:
        stack.callback(listener.close)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_S)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        assert runner.server is not None
        logger.info("kubelet API on port {}{}", listener.getsockname()[1], "" if tls else ", read only")
        return Connections(runner.server, tls.context if tls else None), listener

    def _application(self, routes: Iterable[web.AbstractRouteDef], gate: Gate | None) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            mark_busy(request)
            response = await self._answer(request, handler, gate)
            if "Upgrade" in request.headers:
                response.force_close()  # a client whose upgrade is refused uses the connection for nothing else
            return response

        app = web.Application(middlewares=[guard])
        app.on_response_prepare.append(_name)
        app.router.add_routes(routes)
        return app

    def _gate(self) -> Gate:
        settings = self._settings
        lives = Lives(
            token=settings.authentication_token_webhook_cache_ttl,
            allowed=settings.authorization_webhook_cache_authorized_ttl,
            denied=settings.authorization_webhook_cache_unauthorized_ttl,
        )
        return Gate(
            Reviews(self._api, settings.node_name, lives, self._clock),
            takes_tokens=settings.authentication_token_webhook,
            allows_all=settings.authorization_mode == "AlwaysAllow",
        )

    # ------------------------------------------------------------ every request

    async def _answer(self, request: web.Request, handler: Handler, gate: Gate | None) -> web.StreamResponse:
        try:
            if gate is not None and (refusal := await gate.refusal(request)) is not None:
                return refusal
            return await handler(request)
        except web.HTTPException:
            raise
        except NotFound as error:
            return web.Response(status=404, text=str(error))
        except Permanent as error:
            return web.Response(status=422 if error.reason == INVALID else 400, text=str(error))
        except Retryable as error:
            return web.Response(status=503, text=str(error))
        except Exception as error:  # the boundary: a fault in one answer is no reason to stop the node
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                logger.debug("{} {}: the client went away", request.method, request.path)
                return Upgraded()
            logger.error("{} {}: {}: {}", request.method, request.path, type(error).__name__, error)
            return web.Response(status=500, text="internal error, see the node's log")

    # ------------------------------------------------------------ routes

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        return await container_log(request, self._provider, namespace, name, container)


async def _name(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


def _listen(address: str, port: int, flag: str) -> socket.socket:
    """A listening socket; without an address one for IPv4 and IPv6 alike. Raises ConfigError."""
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family, backlog=128)
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return socket.create_server(("", port), backlog=128)  # a kernel without IPv6
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = "; does a kubelet run on this machine?" if error.errno == errno.EADDRINUSE else ""
        where = f"{address or '*'}:{port}"
        raise ConfigError(f"{flag} {port}: cannot listen on {where}: {why}{hint}") from error
