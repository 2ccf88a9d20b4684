"""Requests to the API server in a caller's name: with its credential, and never with the node's.

In: a request as it came, and how the agent reaches the API server. Out: the API server's answer as it comes. The node's
client certificate would win over a caller's token, so connections are made without it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from agent.errors import Retryable
from agent.kube.credentials import Access
from agent.kube.rest import Api, checked_socket

CONNECT_S = 3.0
BEGIN_S = 10.0
PASSED_ON = ("Authorization", "Content-Type", "User-Agent", "Kubectl-Command", "Kubectl-Session")
IMPERSONATE = "impersonate-"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class Upstream:
    """Make it inside the running loop, `close` it at the end."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._access: Access | None = None
        self._tls: ssl.SSLContext | None = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0, socket_factory=checked_socket),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        )

    @property
    def reachable(self) -> bool:
        """As the agent's own requests found it last."""
        return self._api.reachable

    async def close(self) -> None:
        await self._session.close()

    def tls(self) -> ssl.SSLContext | None:
        """Trusts whom the kubeconfig trusts and has no certificate of its own; None: plain HTTP."""
        access = self._api.access
        if self._access is not access:
            self._access, self._tls = access, _without_identity(access)
        return self._tls

    @property
    def access(self) -> Access:
        return self._api.access

    @asynccontextmanager
    async def send(
        self,
        request: web.Request,
        target: str,
        *,
        body: bytes | None = None,
        accept: str = "",
        method: str = "",
        content_type: str = "",
        begin_s: float = BEGIN_S,
    ) -> AsyncIterator[Reply]:
        """`target`: path and query. Raises Retryable where there is no answer within `begin_s`."""
        access = self._api.access
        try:
            async with asyncio.timeout(begin_s):
                response = await self._session.request(
                    method or request.method,
                    URL(f"{access.server}{target}", encoded=True),
                    data=body,
                    headers=passed_on(request, accept, content_type),
                    ssl=self.tls() or True,
                    server_hostname=access.server_hostname,
                    proxy=access.proxy,
                    allow_redirects=False,
                )
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            raise Unreachable(_plain(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Retryable(_plain(error)) from error
        try:
            yield Reply(response)
        finally:
            response.close()


class Reply(msgspec.Struct, frozen=True):
    """An answer that has begun. What breaks while it is read is Retryable."""

    response: aiohttp.ClientResponse

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.response.headers

    async def read(self, within_s: float) -> bytes:
        with _translated():
            async with asyncio.timeout(within_s):
                return await self.response.read()

    async def read_up_to(self, limit_bytes: int, within_s: float) -> tuple[bytes, bool]:
        """What comes until the limit is passed, and whether that is all."""
        found = bytearray()
        with _translated():
            async with asyncio.timeout(within_s):
                while piece := await self.response.content.readany():
                    found += piece
                    if len(found) > limit_bytes:
                        return bytes(found), False
        return bytes(found), True

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            with _translated():
                piece = await self.response.content.readany()
            if not piece:
                return
            yield piece


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Retryable(_plain(error)) from error


class Unreachable(Retryable):
    """The request did not even leave this machine."""


def passed_on(request: web.Request, accept: str = "", content_type: str = "") -> list[tuple[str, str]]:
    found = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    if content_type:
        found["Content-Type"] = content_type
    impersonated = [(name, value) for name, value in request.headers.items() if name.lower().startswith(IMPERSONATE)]
    return [*found.items(), *impersonated, ("Accept", accept or accepted(request))]


def impersonates(request: web.Request) -> bool:
    return any(name.lower().startswith(IMPERSONATE) for name in request.headers)


def accepted(request: web.Request) -> str:
    """What the client takes, without the binary form that nothing here could read."""
    parts = ",".join(request.headers.getall("Accept", [])).split(",")
    kept = [part.strip() for part in parts if part.strip() and not part.strip().startswith(PROTOBUF)]
    return ",".join(kept) or "application/json"


def _without_identity(access: Access) -> ssl.SSLContext | None:
    if access.tls is None:
        return None
    made = ssl.create_default_context(cadata=access.cluster_ca.decode() if access.cluster_ca else None)
    made.verify_flags = access.tls.verify_flags
    made.check_hostname = access.tls.check_hostname
    made.verify_mode = access.tls.verify_mode
    return made


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
