"""Requests to the API server: bytes in, bytes out, our errors.

In: a path below the server's URL, parameters and a JSON body. Out: the body of the answer, or one of our errors with
the message of the API server's Status in it. Every call has a deadline, every connection is checked while idle, so that
a link that is up but dead is noticed within seconds. Says in the log once when the API server goes away and once when
it is back. An answer of another cluster's is none. Bodies are never decoded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from errno import EHOSTUNREACH, ETIMEDOUT
from typing import Final, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from loguru import logger
from yarl import URL

from agent import __version__, own_metrics
from agent.clock import uptime
from agent.errors import EdgeletError, Retryable
from agent.kube.answers import check, error_of, is_word
from agent.kube.credentials import Access, Credentials
from agent.kube.link import Link, Wait

CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
"""Time for the kernel's first three tries; a new connection is sooner there than its fourth."""
PROBE_PAUSE_S = 0.5
PROBE_TIMEOUTS_S: Final = (1.5, 1.5, 1.5, 6.0)
"""Of the questions whether it answers again: a link that is back is known within two seconds, a slow one too."""
PARALLEL_CALLS = 8
"""A burst of pods shares this many connections: each costs a TLS handshake, on both sides. Watches do not count.

On a link with a round trip of 300 ms that is still two calls for each pod that starts.
"""
KEEP_CONNECTIONS_S = 60.0

JSON: Final = "application/json"
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
"""Accepted in place of JSON: half of the bytes (`agent.kube.packed`)."""
METADATA: Final = f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""The same, and of the object its metadata only: for answers that nobody reads."""

NO_ANSWER: Final = "<error>"
"""What a request that got no answer counts as."""

Params = Mapping[str, str]


class Call(msgspec.Struct, frozen=True):
    """A request but for who sends it."""

    method: str
    path: str
    params: Params | None = None
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    timeout_s: float = CALL_TIMEOUT_S


class Ask(Protocol):
    async def __call__(self, path: str) -> tuple[int, bytes, Mapping[str, str]]:
        """GET: status, body and headers, whoever answers. Raises Retryable where nobody does."""


class Judge(Protocol):
    """Says whose word an answer is: `agent.kube.cluster.ClusterGuard`."""

    async def believe(self, headers: Mapping[str, str], ask: Ask) -> None:
        """Return where an answer with these headers is of this node's cluster, else raise Retryable."""


class Api:
    """The API server. Make it inside the running loop, `close` it at the end."""

    def __init__(self, credentials: Credentials, judge: Judge | None = None) -> None:
        """`judge` is asked of every answer that somebody acts on."""
        self._credentials = credentials
        self._judge = judge
        self._calls = asyncio.Semaphore(PARALLEL_CALLS)
        self.link = Link()
        self._date = ""
        self._dated_at = 0.0
        self._unauthorized = False
        self.dated: Callable[[float], None] = lambda _: None
        """Told the API server's time, in Unix seconds, whenever an answer brings a new one."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_CONNECTIONS_S, socket_factory=checked_socket, ttl_dns_cache=30
            ),
            headers={"User-Agent": f"edgelet/{__version__}"},
            # Only lists are long enough for the API server to compress them.
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        )

    @property
    def access(self) -> Access:
        """Server, CA and user as last loaded."""
        return self._credentials.access

    @property
    def reachable(self) -> bool:
        """False from a call that got no answer until one that did."""
        return self.link.up

    async def look_for_it(self) -> None:
        """For as long as the agent lives: while the API server does not answer, ask whether it does again."""
        while True:
            await self.link.down.wait()
            for timeout_s in PROBE_TIMEOUTS_S:
                await asyncio.sleep(PROBE_PAUSE_S * random.uniform(0.8, 1.2))  # noqa: S311
                if self.link.up:
                    break
                with contextlib.suppress(EdgeletError):
                    # Past the limit of calls: all of them may wait for nothing.
                    access = await self._credentials.current()
                    await self._call(access, Call("GET", "/readyz", timeout_s=timeout_s))

    @property
    def unauthorized(self) -> bool:
        """Whether the last answer was that it does not know who we are (401)."""
        return self._unauthorized

    def server_time(self) -> float | None:
        """Unix seconds by the API server's clock, to about a second; None: it has not answered yet."""
        try:
            stated = parsedate_to_datetime(self._date).timestamp()
        except ValueError:
            return None
        return stated + uptime() - self._dated_at

    async def get(self, path: str, params: Params | None = None, *, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
        return await self.request("GET", path, params=params, timeout_s=timeout_s)

    async def post(self, path: str, body: bytes, params: Params | None = None, *, accept: str = JSON) -> bytes:
        return await self.request("POST", path, params=params, body=body, accept=accept)

    async def put(self, path: str, body: bytes, *, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
        return await self.request("PUT", path, body=body, timeout_s=timeout_s)

    async def patch(
        self, path: str, body: bytes, content_type: str = STRATEGIC_MERGE_PATCH, *, accept: str = JSON
    ) -> bytes:
        return await self.request("PATCH", path, body=body, content_type=content_type, accept=accept)

    async def delete(self, path: str, body: bytes | None = None, *, accept: str = JSON) -> bytes:
        return await self.request("DELETE", path, body=body, accept=accept)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> bytes:
        """One call; the deadline covers connecting and the whole answer.

        Raises NotFound, Conflict, Gone, Forbidden, Permanent, or Retryable where there was no answer or the server is
        overloaded.
        """
        call = Call(method, path, params, body, content_type, accept, timeout_s)
        async with self._calls:
            access = await self._credentials.current()
            status, answer, headers = await self._call(access, call)
            if status == 401:
                renewed = await self._credentials.renew(access)
                if renewed is not access:
                    status, answer, headers = await self._call(renewed, call)
        if status >= 300:
            raise error_of(status, answer, headers, f"{method} {path}")
        check(method, path, answer)
        return answer

    @asynccontextmanager
    async def stream(self, path: str, params: Params, *, timeout_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """A long answer (a watch) in pieces as they come.

        The answer must begin within the deadline of a call, and end within `timeout_s`. Entering raises as `request`
        does, reading raises Retryable where the stream breaks.
        """
        access = await self._credentials.current()
        began = asyncio.get_running_loop().time()
        deadline = began + timeout_s
        response: aiohttp.ClientResponse | None = None
        try:
            wait = Wait()
            async with (
                _translated(f"GET {path}", CALL_TIMEOUT_S, lambda why: None if wait.broken_off else self._lost(why)),
                asyncio.timeout(CALL_TIMEOUT_S) as head,
            ):
                with self.link.held(wait, head):
                    response = await self._send(access, Call("GET", path, params))
                    refusal = await response.read() if response.status != 200 else b""
            if response.status == 401:
                await self._credentials.renew(access)
            if response.status != 200:
                raise error_of(response.status, refusal, response.headers, f"GET {path}")
            await self._believe(access, response.headers)
            self._answered(began)
            yield self._pieces(response, path, deadline)
        finally:
            if response is not None:
                # A watch has no end of its own: the connection cannot be used again.
                response.close()

    async def close(self) -> None:
        await self._session.close()

    async def _call(self, access: Access, call: Call) -> tuple[int, bytes, Mapping[str, str]]:
        wait = Wait()
        status, answer, headers = await self._exchange(access, call, wait)
        if is_word(status):
            await self._believe(access, headers)
        if status not in (502, 503, 504):
            self._answered(wait.since)
            self._unauthorized = status == 401
            self._note_date(headers.get("Date", ""))
        return status, answer, headers

    async def _exchange(self, access: Access, call: Call, wait: Wait) -> tuple[int, bytes, Mapping[str, str]]:
        what = f"{call.method} {call.path}"
        async with (
            _translated(what, call.timeout_s, lambda why: None if wait.broken_off else self._lost(why)),
            asyncio.timeout(call.timeout_s) as deadline,
        ):
            with self.link.held(wait, deadline):
                async with await self._send(access, call) as response:
                    answer = await response.read()
        return response.status, answer, response.headers

    def _note_date(self, date: str) -> None:
        is_new, self._date, self._dated_at = date != self._date, date, uptime()
        if is_new and (now := self.server_time()) is not None:
            self.dated(now)

    async def _believe(self, access: Access, headers: Mapping[str, str]) -> None:
        """Raises Retryable where the answer is not this cluster's: that is as good as none."""
        if self._judge is None:
            return

        async def ask(path: str) -> tuple[int, bytes, Mapping[str, str]]:
            return await self._exchange(access, Call("GET", path), Wait())

        try:
            await self._judge.believe(headers, ask)
        except Retryable:
            # The judge has said why.
            self.link.lost()
            raise

    async def _send(self, access: Access, call: Call) -> aiohttp.ClientResponse:
        query = f"?{urlencode(call.params, quote_via=quote)}" if call.params else ""
        headers = {**access.headers, "Accept": call.accept}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        elif call.method == "GET":
            headers["Accept-Encoding"] = "gzip"
        began, code = time.monotonic(), NO_ANSWER
        try:
            response = await self._session.request(
                call.method,
                URL(f"{access.server}{call.path}{query}", encoded=True),
                data=call.body,
                headers=headers,
                ssl=access.tls or True,
                server_hostname=access.server_hostname,
                proxy=access.proxy,
                allow_redirects=False,
            )
            code = str(response.status)
            return response
        finally:
            _count(access.server, call.method, call.path, code, time.monotonic() - began)

    def _answered(self, began: float) -> None:
        if self.link.answered(began):
            logger.info("the API server {} answers again", self.access.server)

    def _lost(self, why: str) -> None:
        if self.link.lost():
            logger.warning("the API server {} does not answer: {}", self.access.server, why)

    async def _pieces(self, response: aiohttp.ClientResponse, path: str, ends_at: float) -> AsyncIterator[bytes]:
        # The deadline is set around each read, never around a yield: it would cancel whoever consumes this.
        protocol = response.connection.protocol if response.connection else None

        def broken(why: str) -> None:
            # A stream that ends in whatever other manner says nothing of the link.
            if protocol is not None and _given_up(protocol.exception()):
                self._lost(why)

        while True:
            async with _translated(f"watch {path}", None, broken), asyncio.timeout_at(ends_at) as deadline:
                with self.link.held(Wait(stream=True), deadline):
                    piece = await response.content.readany()
            if not piece:
                return
            yield piece


def resource_of(path: str) -> str:
    """What a path is about, without the names in it: pods, pods/status, nodes."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join(rest[0:1] + rest[2:3])


def _count(server: str, method: str, path: str, code: str, seconds: float) -> None:
    own_metrics.API_REQUESTS.inc(code, method, server.partition("://")[2])
    own_metrics.API_BY_RESOURCE.inc(method, resource_of(path), code)
    own_metrics.API_DURATION.observe(seconds, method)


@asynccontextmanager
async def _translated(what: str, timeout_s: float | None, lost: Callable[[str], None]) -> AsyncIterator[None]:
    """The network's errors as Retryable; `lost` is told why."""
    try:
        yield
    except TimeoutError as error:
        # The kernel's ETIMEDOUT is a TimeoutError too, and has its own words.
        why = str(error) or ("no end in time" if timeout_s is None else f"no answer within {timeout_s:.0f} s")
        lost(why)
        raise Retryable(f"{what}: {why}") from error
    except (aiohttp.ClientError, OSError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        lost(why)
        raise Retryable(f"{what}: {why}") from error


def _given_up(error: BaseException | None) -> bool:
    """Whether the kernel had no sign of the peer for as long as `checked_socket` says."""
    return isinstance(error, OSError) and error.errno in (ETIMEDOUT, EHOSTUNREACH)


def checked_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket on which the kernel notices a dead peer: 5 s of silence, then three probes 3 s apart; what was sent
    must be acknowledged within 12 s. Without it a watch over a cut link would wait for hours."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_000)
    return made
