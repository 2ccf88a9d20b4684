"""Credentials from programs of the node's owner, as the kubelet's image credential providers.

In: an image. Out: what every provider that matches it says, from its cache while that is fresh. A program that fails,
hangs or answers nonsense gives nothing: the pull goes on with what else there is. What a program answers is never told
on, for it may hold a password; what it says on standard error is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Literal
from weakref import WeakValueDictionary

import msgspec
from loguru import logger

from agent.cri._generated import api_pb2
from agent.errors import Retryable
from agent.pods.credential_config import CredentialProvider, go_seconds
from agent.pods.credentials import Credential, fits, fitting
from agent.pods.images import parse_image

TIMEOUT_S = 60.0
_SAID_BYTES = 200
_GLOBAL = "<global>"

Entries = tuple[tuple[str, Credential], ...]
"""(registry, credential), as a plugin names them."""


class _Auth(msgspec.Struct):
    username: str
    password: str


class _Response(msgspec.Struct):
    apiVersion: str
    kind: Literal["CredentialProviderResponse"]
    cacheKeyType: Literal["Image", "Registry", "Global"]
    cacheDuration: str | None = None
    auth: dict[str, _Auth] | None = None


class _Cached(msgspec.Struct, frozen=True):
    entries: Entries
    ends_at: float


class CredentialPlugins:
    def __init__(
        self,
        providers: Sequence[CredentialProvider],
        monotonic: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._plugins = [_Plugin(provider, monotonic, timeout_s) for provider in providers]

    async def credentials(self, image: str) -> tuple[Credential, ...]:
        """What fits the image, the most specific registry first; empty: nothing does."""
        repository = parse_image(image).repository
        answers = [await plugin.entries(repository) for plugin in self._plugins if plugin.matches(repository)]
        return fitting(image, [entry for entries in answers for entry in entries])


class _Plugin:
    def __init__(self, provider: CredentialProvider, monotonic: Callable[[], float], timeout_s: float) -> None:
        self._provider = provider
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._cache: dict[str, _Cached] = {}
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One question about an image at a time; the others find its answer in the cache."""

    def matches(self, repository: str) -> bool:
        return any(fits(pattern, repository) for pattern in self._provider.match_images)

    async def entries(self, repository: str) -> Entries:
        async with self._asking.setdefault(repository, asyncio.Lock()):
            if (known := self._known(repository)) is not None:
                return known
            try:
                response = await self._ask(repository)
                lasts_s = (
                    self._provider.default_cache_s
                    if response.cacheDuration is None
                    else go_seconds(response.cacheDuration)
                )
            except (Retryable, ValueError) as error:
                logger.warning("no credentials for {} from {}: {}", repository, self._provider.name, error)
                return ()
        entries = tuple(
            (registry, Credential(api_pb2.AuthConfig(username=auth.username, password=auth.password)))
            for registry, auth in (response.auth or {}).items()
        )
        if lasts_s > 0:
            key = {"Image": repository, "Registry": _registry(repository), "Global": _GLOBAL}[response.cacheKeyType]
            self._cache[key] = _Cached(entries, self._monotonic() + lasts_s)
        return entries

    def _known(self, repository: str) -> Entries | None:
        now = self._monotonic()
        self._cache = {key: cached for key, cached in self._cache.items() if cached.ends_at > now}
        keys = (repository, _registry(repository), _GLOBAL)
        return next((self._cache[key].entries for key in keys if key in self._cache), None)

    async def _ask(self, repository: str) -> _Response:
        """Raises Retryable: no answer now, the next pull asks again."""
        provider = self._provider
        request = {"apiVersion": provider.api_version, "kind": "CredentialProviderRequest", "image": repository}
        try:
            process = await asyncio.create_subprocess_exec(
                provider.program,
                *provider.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **dict(provider.env)},
                start_new_session=True,
            )
        except OSError as error:
            raise Retryable(f"{provider.program} can't be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                said, complaint = await process.communicate(msgspec.json.encode(request))
        except (TimeoutError, asyncio.CancelledError) as ended:
            # The whole group: a child of the program would keep its pipes open, and us waiting.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(ended, TimeoutError):
                raise Retryable(f"no answer in {self._timeout_s:g} s") from None
            raise
        if process.returncode != 0:
            words = " ".join(complaint[-_SAID_BYTES:].decode(errors="replace").split())
            raise Retryable(f"it ended with {process.returncode}: {words}")
        try:
            response = msgspec.json.decode(said, type=_Response)
        except msgspec.DecodeError:
            # Not `from` it, and not its text: the answer may hold a password.
            raise Retryable("its answer is no CredentialProviderResponse") from None
        if response.apiVersion != provider.api_version:
            raise Retryable(f"it answers in {response.apiVersion!r} and was asked in {provider.api_version}")
        return response


def _registry(repository: str) -> str:
    return repository.partition("/")[0]
