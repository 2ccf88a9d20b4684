"""Ask the API server who a token belongs to and what a client may do, and remember its answers for a while.

In: a token, or a client with the right that it needs. Out: the client; yes or no; or Undecided where the API server
gave no answer. An answer holds until it ends, also while the API server is away. Few questions are under way at once
and few wait: who floods the node's API with tokens gets neither the agent's connections nor its memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import EdgeletError, Retryable
from agent.server.clients import Client, authenticated
from agent.server.rights import Right

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REMEMBERED = 2048
UNDER_WAY = 4
WAITING = 64
CALL_S = 10.0
CALL_AWAY_S = 2.0
"""While the API server is known not to answer: a refusal must not take long."""
TOKEN_LIMIT = 16 * 1024

T = TypeVar("T")


class Undecided(EdgeletError):
    """Nobody could say; `str()` is the reason, fit for a stranger."""


class ApiServer(Protocol):
    @property
    def reachable(self) -> bool: ...

    async def request(self, method: str, path: str, *, body: bytes, timeout_s: float) -> bytes: ...


class Lives(msgspec.Struct, frozen=True):
    """How long answers hold, in seconds."""

    token: float = 120.0
    no_token: float = 10.0
    allowed: float = 300.0
    denied: float = 30.0


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User | None = None
    error: str = ""


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


class Reviews:
    """`api` is None on a standalone node: then every question is undecided."""

    def __init__(self, api: ApiServer | None, node_name: str, lives: Lives, clock: Clock) -> None:
        self._api = api
        self._node_name = node_name
        self._lives = lives
        self._salt = os.urandom(32)
        self._clients: _Remembered[Client | None] = _Remembered(clock)
        self._decisions: _Remembered[bool] = _Remembered(clock)
        self._turns = asyncio.Semaphore(UNDER_WAY)
        self._waiting = 0

    async def client(self, token: str) -> Client | None:
        """None: the API server does not know the token. Raises Undecided."""
        if not token or len(token) > TOKEN_LIMIT:
            return None
        # The token itself is not kept.
        key = hmac.digest(self._salt, token.encode("utf-8", "surrogateescape"), hashlib.sha256)

        async def ask() -> tuple[Client | None, float]:
            spec = {"token": token}
            answer = await self._ask(TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
            status = _decoded(answer, _TokenReview).status
            if not status.authenticated or status.user is None or not status.user.username:
                return None, self._lives.no_token
            user = status.user
            groups = authenticated(user.groups or ())
            return Client(user.username, groups, user.uid, user.extra or {}), self._lives.token

        return await self._clients.get(key, ask)

    async def may(self, client: Client, right: Right) -> bool:
        """Whether one of the rights is the client's. Raises Undecided where none is known to be."""
        unknown: Undecided | None = None
        for subresource in right.subresources:
            try:
                if await self._may(client, right.verb, subresource):
                    return True
            except Undecided as error:
                unknown = error
        if unknown is not None:
            raise unknown
        return False

    async def _may(self, client: Client, verb: str, subresource: str) -> bool:
        spec = {
            "user": client.user,
            "groups": client.groups,
            "uid": client.uid,
            "extra": client.extra,
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node_name,
            },
        }
        key = hmac.digest(self._salt, msgspec.json.encode(spec), hashlib.sha256)

        async def ask() -> tuple[bool, float]:
            answer = await self._ask(ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
            status = _decoded(answer, _AccessReview).status
            is_allowed = status.allowed and not status.denied
            return is_allowed, self._lives.allowed if is_allowed else self._lives.denied

        return await self._decisions.get(key, ask)

    async def _ask(self, path: str, version: str, kind: str, spec: object) -> bytes:
        if self._api is None:
            raise Undecided("this node has no API server to ask")
        if self._waiting >= WAITING:
            raise Undecided("too many requests wait for the API server's answer")
        body = msgspec.json.encode({"apiVersion": version, "kind": kind, "spec": spec})
        self._waiting += 1
        try:
            async with self._turns:
                timeout_s = CALL_S if self._api.reachable else CALL_AWAY_S
                return await self._api.request("POST", path, body=body, timeout_s=timeout_s)
        except Retryable as error:
            raise Undecided("the API server does not answer") from error
        except EdgeletError as error:
            logger.warning("kubelet API: the API server refuses a {} of this node: {}", kind, error)
            raise Undecided("the API server does not let this node ask") from error
        finally:
            self._waiting -= 1


class _Remembered(Generic[T]):
    """Answers by key, each until its end, the most recent REMEMBERED. One question for those who ask at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[T, float]] = OrderedDict()
        self._asking: dict[bytes, _Turn] = {}

    async def get(self, key: bytes, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        if (held := self._held(key)) is not None:
            return held[0]
        turn = self._asking.setdefault(key, _Turn())
        turn.users += 1
        try:
            # A lock and no shared task: whose client goes away leaves the question to the next.
            async with turn.lock:
                if (held := self._held(key)) is not None:
                    return held[0]
                answer, life_s = await ask()
                if life_s > 0:
                    self._answers[key] = answer, self._clock.monotonic() + life_s
                    if len(self._answers) > REMEMBERED:
                        self._answers.popitem(last=False)
                return answer
        finally:
            turn.users -= 1
            if not turn.users:
                del self._asking[key]

    def _held(self, key: bytes) -> tuple[T] | None:
        if (found := self._answers.get(key)) is None:
            return None
        answer, ends_at = found
        if self._clock.monotonic() >= ends_at:
            del self._answers[key]
            return None
        self._answers.move_to_end(key)
        return (answer,)


class _Turn:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise Undecided("the API server's answer is not understood") from error
