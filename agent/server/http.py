"""The kubelet's HTTPS API: who may ask, what is served, and how errors are told.

In: requests of the API server (`kubectl logs`) with a client certificate of the cluster's CA. Out: what the provider
and the record answer. Our errors become HTTP statuses in one place; whatever else goes wrong in a handler is one line
in the log and a bare 500. A client that goes away takes its handler with it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from loguru import logger

from agent.clock import Clock, SystemClock
from agent.config import Settings
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.model.record import PodRecord
from agent.providers.contract import ReadsLogs
from agent.server.certificate import CertificateFiles, server_certificate
from agent.server.clients import client_of
from agent.server.log_query import INVALID, log_options
from agent.server.ports import Pods, PodStatuses
from agent.server.stats import StatsRoutes
from agent.server.streaming import StreamingRoutes
from agent.server.takeover import Upgraded

CERTIFICATE_CHECK_S = 3600.0
STOP_S = 0.2
"""Time for requests under way when the agent stops: a follower of a log would stay for ever."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubeletServer:
    """One listener. `provider` answers for pods, and for logs where it is a ReadsLogs.

    `client_ca` is the cluster's CA in PEM; the settings' own file wins over it, and without either nobody is let in.
    `addresses` are the node's, for the certificate.
    """

    def __init__(
        self,
        settings: Settings,
        provider: Pods,
        statuses: PodStatuses,
        client_ca: bytes | None,
        addresses: Sequence[str],
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._statuses = statuses
        self._client_ca = client_ca
        self._addresses = tuple(addresses)
        self._clock = clock or SystemClock()

    async def run(self, listener: socket.socket | None = None) -> None:
        """Serve until cancelled, on `listener` where one is given. Port 0 in the settings: serve nothing.

        Raises ConfigError (port in use, certificate or CA unusable) before anything is served.
        """
        if listener is None and self._settings.port == 0:
            await asyncio.get_running_loop().create_future()
            return
        files = await self._certificate()
        context = await asyncio.to_thread(self._tls, files)
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._container_logs)
        app.router.add_routes(StreamingRoutes(self._provider).routes())
        app.router.add_routes(StatsRoutes(self._provider).routes())
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            listener = listener or _listen(self._settings.address, self._settings.port)
            await web.SockSite(runner, listener, ssl_context=context).start()
            logger.info("kubelet API on port {}", listener.getsockname()[1])
            await self._keep_certificate(context, files)
        finally:
            await runner.cleanup()

    # ------------------------------------------------------------ TLS

    async def _certificate(self) -> CertificateFiles:
        try:
            return await asyncio.to_thread(server_certificate, self._settings, self._addresses, self._clock.wall())
        except OSError as error:
            raise ConfigError(f"--root-dir: the server's certificate cannot be kept: {error}") from error

    def _tls(self, files: CertificateFiles) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key)
        if (authorities := self._authorities()) is not None:
            # Asked for, not demanded: a client without one is told 401, which a failed handshake cannot say.
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(cadata=authorities)
            except ssl.SSLError as error:
                source = self._settings.client_ca_file or "the kubeconfig's certificate-authority"
                raise ConfigError(f"--client-ca-file: {source} is not a PEM certificate") from error
        return context

    def _authorities(self) -> str | None:
        file = self._settings.client_ca_file
        try:
            content = self._client_ca if file is None else file.read_bytes()
            return None if content is None else content.decode("ascii")
        except OSError as error:
            raise ConfigError(f"--client-ca-file {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--client-ca-file: {file or 'the CA'} is not a PEM certificate") from error

    async def _keep_certificate(self, context: ssl.SSLContext, files: CertificateFiles) -> None:
        """For as long as the server runs: renew our own, take up a given one that was replaced."""
        version = await asyncio.to_thread(files.version)
        while True:
            await self._clock.sleep(CERTIFICATE_CHECK_S)
            try:
                files = await self._certificate()
                if (now := await asyncio.to_thread(files.version)) != version:
                    context.load_cert_chain(files.certificate, files.key)  # connections made from now on have it
                    version = now
                    logger.info("kubelet API: new server certificate")
            except (ConfigError, OSError) as error:
                logger.warning("kubelet API: the present certificate stays: {}", error)

    # ------------------------------------------------------------ every request

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await self._answer(request, handler)
        if "Upgrade" in request.headers:
            response.force_close()  # a client whose upgrade is refused uses the connection for nothing else
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        client = client_of(request.get_extra_info("peercert"))
        if client is None:
            return web.Response(status=401, text="Unauthorized")
        if not client.is_allowed:
            return web.Response(status=403, text=f"Forbidden: user {client.user!r} may not use this node's API")
        try:
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

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _pods(self, _request: web.Request) -> web.Response:
        items = [_item(record, status) for record, status in self._statuses.with_status()]
        body = msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        return web.Response(body=body, content_type="application/json")

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        options = log_options(request.query, self._clock.wall())
        if not isinstance(self._provider, ReadsLogs):
            return web.Response(status=501, text="container logs are not implemented by this node's provider")
        try:
            record = await self._provider.get_pod(namespace, name)
        except NotFound as error:
            raise NotFound(f'pod "{name}" does not exist') from error
        spec = record.pod.spec
        if container not in (c.name for c in spec.all_containers):
            raise NotFound(f'container "{container}" not found in pod "{name}"')
        log = self._provider.get_container_logs(namespace, name, container, options)
        try:
            return await _stream(request, log)
        finally:
            if isinstance(log, AsyncGenerator):
                await log.aclose()


async def _stream(request: web.Request, blocks: AsyncIterator[bytes]) -> web.StreamResponse:
    # The first block tells that there is a log: until then an error is still a status.
    first = await anext(blocks, b"")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    try:
        if first:
            await response.write(first)
        async for block in blocks:
            if block:
                await response.write(block)
        await response.write_eof()
    except ConnectionError:
        logger.debug("{}: the reader went away", request.path)
    except Exception as error:  # too late for a status: a broken connection is not mistaken for the end
        logger.error("{}: {}: {}", request.path, type(error).__name__, error)
        if request.transport is not None:
            request.transport.abort()
    return response


def _item(record: PodRecord, status: Any) -> dict[str, Any]:
    """The pod as it came, with our status for its own."""
    pod = msgspec.json.decode(record.raw, type=dict[str, msgspec.Raw])
    return pod if status is None else {**pod, "status": status}


def _listen(address: str, port: int) -> socket.socket:
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
        raise ConfigError(f"--port {port}: cannot listen on {where}: {why}{hint}") from error
