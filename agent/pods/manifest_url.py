"""The static pods that a URL gives, asked for again and again.

In: the URL, and headers to send. Out: the complete set of its pods each time it changes. An answer that cannot be used
(none, an error, an empty one, a manifest with faults) is told in one line, once, and takes no pod away: the last good
ones stay, also over a restart of the agent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

import msgspec
from loguru import logger

from agent.clock import Clock, SystemClock
from agent.errors import EdgeletError, Permanent, Retryable
from agent.model.record import PodRecord
from agent.pods.static_pods import LONGEST_BYTES, ManifestSource, static_pods

ANSWER_WITHIN_S = 10.0

Fetch = Callable[[str, Mapping[str, str]], Awaitable[bytes]]


class ManifestUrl(msgspec.Struct, frozen=True):
    url: str
    """It may have a password in it: `shown` is what others see."""
    headers: Mapping[str, str]
    every_s: float

    @property
    def shown(self) -> str:
        scheme, _, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


async def watch_manifest_url(
    source: ManifestUrl,
    node_name: str,
    known: Iterable[PodRecord] = (),
    *,
    clock: Clock | None = None,
    fetch: Fetch | None = None,
) -> AsyncGenerator[tuple[PodRecord, ...], None]:
    """The URL's pods now and after every change, for ever. Nothing before its first good answer.

    `known` are its pods in the record: one that is the same stays the very record, with the time of its first sight.
    """
    clock, fetch = clock or SystemClock(), fetch or fetch_manifest
    pods: tuple[PodRecord, ...] | None = None
    same = {record.uid: record for record in known}
    last, said = b"", ""
    while True:
        trouble = ""
        try:
            content = await fetch(source.url, source.headers)
            if content != last:
                found = static_pods(content, ManifestSource(source.url), node_name, clock.wall())
                last = content
                found = tuple(same.get(record.uid, record) for record in found)
                same = {record.uid: record for record in found}
                if found != pods:
                    pods = found
                    yield found
        except EdgeletError as error:
            trouble = str(error)
        if trouble and trouble != said:
            logger.error("manifest {}: {}{}", source.shown, trouble, "; its last good pods stay" if same else "")
        elif said and not trouble:
            logger.info("manifest {}: is good again", source.shown)
        said = trouble
        await clock.sleep(source.every_s)


async def fetch_manifest(url: str, headers: Mapping[str, str]) -> bytes:
    """One GET, with the proxy that the environment names. Raises Retryable, or Permanent for what is too long."""
    import aiohttp  # a standalone node without a URL has no other use for it

    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=dict(headers)) as response,
        ):
            if response.status != 200:
                raise Retryable(f"HTTP {response.status} {response.reason or ''}".rstrip())
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > LONGEST_BYTES:
                    raise Permanent("InvalidManifest", f"longer than {LONGEST_BYTES} bytes")
            return bytes(content)
    except TimeoutError as error:
        raise Retryable(f"no answer within {ANSWER_WITHIN_S:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Retryable(" ".join(str(error).split()) or type(error).__name__) from error
