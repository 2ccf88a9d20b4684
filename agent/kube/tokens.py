"""Bound service-account tokens: asked for, kept, renewed in time, and kept over a cut.

In: a pod, an audience and a life. Out: a token that the API server made for exactly that pod. One request serves all
volumes that want the same token until 80 % of its life (24 h at most) is over. Every token is in the record, so that a
pod starts without a network; a token that has ended while the API server is away is handed out, an event says so, and
the pod's annotation once the API server answers; then it is replaced at once, but only by one that is in hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import EdgeletError, Forbidden, NotFound, Retryable
from agent.kube.authorize import authorized
from agent.kube.events import EventRecorder
from agent.kube.pods_api import PodsApi
from agent.kube.rest import CALL_TIMEOUT_S, JSON, Api
from agent.model.objects import ObjectReference, Token
from agent.model.pod import Pod
from agent.model.status import timestamp
from agent.store.base import Delete, Store

PREFIX = "tokens/"
UNAUTHORIZED = "Unauthorized"
"""The reason of a 401: it is our own credential that is refused, which says nothing of the pod's account."""
RENEW_AT = 0.8
RENEW_AFTER_S = 24 * 3600.0
RETRY_PAUSE_S = 10.0
ANNOTATION = "edgelet.io/stale-token"
CLOCK_SLACK_S = 300.0
"""Between this clock and the API server's; what is further off has jumped."""
FALLBACK_TIMEOUT_S = 2.0
"""How long a pod waits for a newer token while there is an older one."""


class _RequestSpec(msgspec.Struct):
    expirationSeconds: int = 3600


class _RequestStatus(msgspec.Struct):
    token: str
    expirationTimestamp: datetime


class _TokenRequest(msgspec.Struct):
    spec: _RequestSpec
    status: _RequestStatus


class _Recorded(msgspec.Struct, frozen=True):
    token: str
    expires_at: float
    life_s: float


class _Held(msgspec.Struct):
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    last: _Recorded | None = None
    renew_at: float = 0.0
    """Monotonic: a clock that jumps moves neither this nor the token's end."""
    read: bool = False
    pod: Pod | None = None
    overdue: bool = False
    """The last try to renew it failed."""
    stale_since: float | None = None
    """Unix seconds at which the token that is mounted has ended, where a pod was told of it."""
    annotated: bool = False
    """The pod says so in the API server."""


class ServiceAccountTokens:
    """Fits `agent.pods.ports.Tokens`."""

    def __init__(
        self,
        api: Api,
        store: Store,
        clock: Clock,
        events: EventRecorder | None = None,
        wake: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`wake` is called with the UID of a pod whose tokens should be asked for anew."""
        self._api = api
        self._store = store
        self._clock = clock
        self._events = events
        self._wake = wake
        self._held: dict[str, _Held] = {}
        api.link.on_return(self._returned)

    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:
        """Raises Retryable, Forbidden or NotFound (no such service account) where there is no token at all."""
        account = pod.spec.serviceAccountName or "default"
        key = f"{PREFIX}{pod.uid}/{account}/{quote(audience, safe='')}/{expiration_s}"
        held = self._held.setdefault(key, _Held())
        async with held.lock:
            if not held.read:
                await self._read(key, held)
            held.pod = pod
            if held.last is None or self._clock.monotonic() >= held.renew_at:
                await self._renew(key, held, pod, account, audience, expiration_s)
            assert held.last is not None
            return Token(held.last.token, held.last.expires_at)

    async def forget(self, pod_uid: str) -> None:
        """The pod is gone: its tokens too."""
        prefix = f"{PREFIX}{pod_uid}/"
        for key in [key for key in self._held if key.startswith(prefix)]:
            del self._held[key]
        if rows := await self._store.list(prefix):
            await self._store.batch([Delete(row.key) for row in rows])

    def _returned(self) -> None:
        """The API server answers again: what could not be renewed is renewed now."""
        for held in self._held.values():
            if held.overdue and held.pod is not None:
                held.renew_at = self._clock.monotonic()
                self._wake(held.pod.uid)

    async def _read(self, key: str, held: _Held) -> None:
        row = await self._store.get(key)
        held.read = True
        if row is None:
            return
        try:
            held.last = msgspec.json.decode(row.value, type=_Recorded)
        except msgspec.DecodeError as error:
            logger.error("record row {} is not a token and is replaced: {}", row.key, error)
            return
        # Its age is known by the wall clock only; a wrong one costs a request too many or a late renewal.
        # On a clock behind its making nothing of its age is known: then it is asked for anew.
        left = held.last.expires_at - self._clock.wall()
        left = left if left <= held.last.life_s + CLOCK_SLACK_S else 0.0
        held.renew_at = self._clock.monotonic() + left - (1 - RENEW_AT) * held.last.life_s

    async def _renew(self, key: str, held: _Held, pod: Pod, account: str, audience: str, expiration_s: int) -> None:
        try:
            made = await self._request(pod, account, audience, expiration_s, spare=held.last is not None)
        except (Retryable, Forbidden) as error:
            if held.last is None:
                raise
            held.overdue = True
            held.renew_at = self._clock.monotonic() + RETRY_PAUSE_S
            if held.last.expires_at > self._clock.wall():
                return
            if isinstance(error, Forbidden) and error.reason != UNAUTHORIZED:
                raise
            await self._say_stale(held, pod, account, str(error))
            return
        await self._store.put(key, msgspec.json.encode(made))
        held.last = made
        held.overdue = False
        held.renew_at = self._clock.monotonic() + min(RENEW_AT * made.life_s, RENEW_AFTER_S)
        if held.stale_since is not None:
            await self._say_replaced(held.stale_since, pod, account)
            held.stale_since, held.annotated = None, False

    async def _say_stale(self, held: _Held, pod: Pod, account: str, why: str) -> None:
        """Once, until it is replaced: by an event at once, on the pod as soon as the API server answers."""
        assert held.last is not None
        ended = timestamp(held.last.expires_at)
        if held.stale_since is None:
            held.stale_since = held.last.expires_at
            message = (
                f'The token of service account "{account}" ended {ended} and is mounted all the'
                f" same, for no newer one can be had: {why}"
            )
            if self._events is not None:
                self._events.record(ObjectReference.of(pod), "Warning", "StaleToken", message)
        if self._api.reachable and not held.annotated:
            held.annotated = await self._annotate(pod, f"{account}: ended {ended}, not replaced yet: {why}")

    async def _say_replaced(self, since: float, pod: Pod, account: str) -> None:
        """On the pod: whoever asks why its requests were refused finds it there."""
        said = f"{account}: ended {timestamp(since)}, replaced {timestamp(self._clock.wall())}"
        if self._events is not None:
            about = ObjectReference.of(pod)
            self._events.record(about, "Normal", "TokenReplaced", f"The ended token of service account {said}")
        await self._annotate(pod, said)

    async def _annotate(self, pod: Pod, said: str) -> bool:
        """False: it may be tried again."""
        body = {"metadata": {"uid": pod.uid, "annotations": {ANNOTATION: said}}}
        try:
            await PodsApi(self._api).patch_pod_status(
                pod.metadata.namespace, pod.metadata.name, msgspec.json.encode(body)
            )
        except EdgeletError as error:
            logger.bind(pod=pod.full_name).warning("the pod's annotation {} is not set: {}", ANNOTATION, error)
            return not isinstance(error, Retryable)
        return True

    async def _request(self, pod: Pod, account: str, audience: str, expiration_s: int, spare: bool) -> _Recorded:
        if spare and not self._api.reachable:
            raise Retryable("the API server does not answer")
        meta = pod.metadata
        body = msgspec.json.encode(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    # Empty: the API server's own audience.
                    "audiences": [audience] if audience else [],
                    "expirationSeconds": expiration_s,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
                },
            }
        )
        path = f"/api/v1/namespaces/{meta.namespace}/serviceaccounts/{account}/token"
        timeout_s = FALLBACK_TIMEOUT_S if spare else CALL_TIMEOUT_S

        async def post() -> bytes:
            return await self._api.request("POST", path, body=body, content_type=JSON, timeout_s=timeout_s)

        # A server whose cache lags behind knows a pod that was just bound no more than its authorizer does.
        answer = await authorized(post, self._clock.sleep, NotFound)
        try:
            made = msgspec.json.decode(answer, type=_TokenRequest)
        except msgspec.DecodeError as error:
            raise Retryable(f"POST {path}: the answer is no token: {error}") from error
        ends = made.status.expirationTimestamp.timestamp()
        return _Recorded(made.status.token, ends, float(made.spec.expirationSeconds))


class StandaloneTokens:
    """Without an API server nobody can issue a token."""

    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:  # noqa: ARG002
        raise NotFound("no API server to issue service-account tokens: the node runs standalone")

    async def forget(self, pod_uid: str) -> None:
        """There are none."""
