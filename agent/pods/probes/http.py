"""One HTTP(S) GET to a container, as probes and lifecycle hooks make it.

The kubelet's rules: its User-Agent, the handler's own headers, no proxy, no check of certificates, a new connection
each time, redirects followed while they stay on the host, and no more of the body than an event can use.
"""

from __future__ import annotations

import os
import ssl
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from agent.model.container import HTTPGetAction
from agent.pods.probes.target import Target, host_port

_MAX_BODY: Final = 10 * 1024
_MAX_REDIRECTS: Final = 10
_KUBERNETES: Final = "1.36"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_AUTOMATIC: Final = ("Accept-Encoding", "User-Agent", "Accept", "Content-Type")


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: str


class BrokenOff(Exception):
    """The server answered, and its body did not come to an end. The text is fit for an event."""


class NoAnswer(Exception):
    """There was no HTTP answer. The text is fit for an event."""

    def __init__(self, url: str, why: str, not_tls: bool = False) -> None:
        super().__init__(f'Get "{url}": {why}')
        self.not_tls = not_tls
        """The server does not speak TLS."""


class HttpGetter:
    """Owns the client. Use as an async context manager, inside the running loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, target: Target, action: HTTPGetAction, *, timeout_s: float | None, purpose: str) -> Answer:
        """GET what `action` names; `purpose` is `probe` or `lifecycle`.

        Raises NoAnswer, BrokenOff, or ValueError for a port that the container has not.
        """
        url = _url(target, action)
        headers = _headers(action, purpose)
        try:
            for _ in range(_MAX_REDIRECTS):
                answer, location = await self._once(url, headers, timeout_s)
                onward = urljoin(url, location) if location else ""
                if not onward or urlsplit(onward).hostname != urlsplit(url).hostname:
                    return answer
                if urlsplit(location).scheme:
                    # The server named where to go on: the user's Host was for the first request.
                    headers = [(name, value) for name, value in headers if name.lower() != "host"]
                url = onward
        except TimeoutError:
            raise NoAnswer(url, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)") from None
        except aiohttp.ClientError as error:
            raise NoAnswer(url, _why(error), _is_plain_http(error)) from error
        raise NoAnswer(url, f"stopped after {_MAX_REDIRECTS} redirects")

    async def _once(self, url: str, headers: list[tuple[str, str]], timeout_s: float | None) -> tuple[Answer, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=False, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_AUTOMATIC,
            )
        async with self._session.get(
            url, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=timeout_s)
        ) as response:
            try:
                body = await _first_of(response.content)
            except TimeoutError:
                why = "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                raise BrokenOff(why) from None
            except aiohttp.ClientError as error:
                raise BrokenOff("unexpected EOF") from error
            location = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
            return Answer(response.status, body.decode(errors="replace")), location


async def _first_of(stream: aiohttp.StreamReader) -> bytes:
    """As much of a body as is kept, or all of it: one read may bring less."""
    body = bytearray()
    while len(body) < _MAX_BODY and (more := await stream.read(_MAX_BODY - len(body))):
        body += more
    return bytes(body)


def _url(target: Target, action: HTTPGetAction) -> str:
    address = host_port(action.host or target.pod_ip, target.port(action.port))
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{action.scheme.lower()}://{address}{path}"


def _headers(action: HTTPGetAction, purpose: str) -> list[tuple[str, str]]:
    headers = [(header.name, header.value) for header in action.httpHeaders]
    named = {name.lower() for name, _ in headers}
    if "user-agent" not in named:
        headers.append(("User-Agent", f"kube-{purpose}/{_KUBERNETES}"))
    if "accept" not in named:
        headers.append(("Accept", "*/*"))
    # Named but empty: the user wants none sent.
    return [(name, value) for name, value in headers if value or name.lower() not in ("accept", "user-agent")]


def dial_error(host: str, port: int, error: OSError) -> str:
    """Why no connection was made; asyncio words it without the system's own text."""
    known = error.errno is not None and error.errno > 0
    why = f"connect: {os.strerror(error.errno or 0).lower()}" if known else str(error)
    return f"dial tcp {host_port(host, port)}: {why}"


def _why(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientConnectorSSLError):
        return dial_error(error.host, error.port or 0, error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if _is_plain_http(error):
        return "http: server gave HTTP response to HTTPS client"
    return str(error) or type(error).__name__


def _is_plain_http(error: aiohttp.ClientError) -> bool:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    return isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
