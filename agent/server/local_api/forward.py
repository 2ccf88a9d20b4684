"""Requests of callers with a credential of the cluster's: to the API server, else answered from what it said before.

In: a request with the caller's credential. Out: the API server's own answer while it answers; else the recorded answer
to the same question of the same caller, marked with its age, or 503. Writes are never answered here: they reach the API
server or they fail. Who a caller is, the API server says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from aiohttp import web
from loguru import logger

from agent.errors import Retryable
from agent.server.local_api.answers import refused
from agent.server.local_api.forward_upgrade import upgrade
from agent.server.local_api.forward_watch import ForwardedWatch
from agent.server.local_api.recorded import ANSWER_BYTES, Answer, Question, RecordedAnswers, canonical
from agent.server.local_api.upstream import Reply, Unreachable, Upstream, accepted, impersonates

READ_S = 10.0
READ_WITH_RECORD_S = 4.0
WRITE_S = 60.0
RETRY_AFTER_S = 1
"""kubectl tries ten times, with this wait between, before it says anything."""
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = b'{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}'
AWAY = frozenset({500, 502, 503, 504})
_KEPT_HEADERS = ("Content-Type", "Retry-After", "Warning", "WWW-Authenticate", "Audit-Id", "Location", "Allow")


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()


class _ReviewStatus(msgspec.Struct):
    userInfo: _User = msgspec.field(default_factory=_User)


class _Review(msgspec.Struct):
    status: _ReviewStatus = msgspec.field(default_factory=_ReviewStatus)


class Forwarder:
    def __init__(self, upstream: Upstream, recorded: RecordedAnswers) -> None:
        self._upstream = upstream
        self._recorded = recorded
        self._watches = ForwardedWatch(upstream, recorded)

    @property
    def reachable(self) -> bool:
        return self._upstream.reachable

    async def answer(self, request: web.Request, credential: str) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return await upgrade(request, self._upstream)
        if request.method not in ("GET", "HEAD"):
            return await self._write(request)
        await self._recorded.load()
        if request.query.get("watch", "").lower() in ("1", "true"):
            caller = self._recorded.caller(credential) or await self._introduce(request, credential)
            return await self._watches.answer(request, self._question(request, caller))
        return await self._read(request, credential)

    # ------------------------------------------------------------ reads

    async def _read(self, request: web.Request, credential: str) -> web.StreamResponse:
        is_stream = request.path.endswith("/log") or "/proxy" in request.path
        known = self._find(request, credential)
        if not self._upstream.reachable and known is not None:
            return self._from_record(known)
        patience = READ_S if known is None else READ_WITH_RECORD_S
        response: web.StreamResponse | None = None
        try:
            async with self._upstream.send(request, request.raw_path, begin_s=patience) as answer:
                headers = _headers(answer)
                body, is_all = await answer.read_up_to(0 if is_stream else ANSWER_BYTES, patience)
                if is_all and not is_stream:
                    return await self._taken(request, credential, answer.status, headers, body, known)
                # A log, or more than is kept: it goes through as it comes.
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                await response.write(body)
                async for block in answer.pieces():
                    await response.write(block)
                await response.write_eof()
                return response
        except Retryable as error:
            if response is not None:
                if request.transport is not None:
                    request.transport.abort()  # too late for a status: not mistaken for the end
                return response
            logger.debug("{} is answered from the record: {}", request.path, error)
            return self._away(request, known)

    async def _taken(
        self,
        request: web.Request,
        credential: str,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        known: Answer | None,
    ) -> web.StreamResponse:
        if status in AWAY and known is not None:
            return self._from_record(known)
        if status == 401:
            self._recorded.disown(credential)
        elif status == 200 and request.method == "GET":
            caller = self._recorded.caller(credential) or await self._introduce(request, credential, is_taken=True)
            if (question := self._question(request, caller)) is not None:
                question = _without_limit(question, request, body)
                self._recorded.put(question, headers.get("Content-Type", "application/json"), body)
        elif status in (403, 404):
            for question in self._questions(request, self._recorded.caller(credential)):
                self._recorded.drop(question)
        return web.Response(status=status, headers=dict(headers), body=body)

    async def _introduce(self, request: web.Request, credential: str, *, is_taken: bool = False) -> str | None:
        """Ask the API server who this is: a service account's next token is the same caller's.

        None where it does not say; `is_taken`: it has just taken the credential, which by itself tells callers apart.
        """
        if impersonates(request):
            return None  # it would name somebody else
        user = _User()
        try:
            sent = self._upstream.send(
                request,
                REVIEWS,
                body=REVIEW,
                accept="application/json",
                method="POST",
                content_type="application/json",
                begin_s=READ_WITH_RECORD_S,
            )
            async with sent as answer:
                is_taken = is_taken or answer.status in (201, 403)
                if answer.status == 201:
                    user = msgspec.json.decode(await answer.read(READ_WITH_RECORD_S), type=_Review).status.userInfo
        except (Retryable, msgspec.DecodeError) as error:
            logger.debug("who asked is told by the credential alone: {}", error)
        if not is_taken:
            return None
        caller = f"credential:{hashlib.sha256(credential.encode('utf-8', 'surrogateescape')).hexdigest()}"
        if user.username:
            caller = f"user:{user.username}\n{user.uid}\n{','.join(sorted(user.groups))}"
        self._recorded.know(credential, caller)
        return caller

    def _find(self, request: web.Request, credential: str) -> Answer | None:
        for question in self._questions(request, self._recorded.caller(credential)):
            if (found := self._recorded.get(question)) is not None:
                return found
        return None

    def _question(self, request: web.Request, caller: str | None) -> Question | None:
        return next(iter(self._questions(request, caller)), None)

    def _questions(self, request: web.Request, caller: str | None) -> tuple[Question, ...]:
        """What may be recorded of it: a list without a page's limit, then with it. None for who is not known."""
        if caller is None or impersonates(request):
            return ()
        form = _form(request)
        queries = dict.fromkeys(canonical(request.query, without_limit=cut) for cut in (True, False))
        return tuple(Question(caller, request.rel_url.raw_path, query, form) for query in queries)

    def _from_record(self, answer: Answer) -> web.Response:
        age = self._recorded.age(answer)
        headers = {
            "Content-Type": answer.media_type,
            "Warning": f'299 - "recorded {age:.0f} s ago: the API server does not answer"',
            "X-Edgelet-Age": f"{age:.0f}",
        }
        return web.Response(body=answer.content(), headers=headers)

    def _away(self, request: web.Request, known: Answer | None) -> web.Response:
        if known is not None:
            return self._from_record(known)
        why = f"the API server does not answer, and no answer to {request.path} is recorded for this credential"
        return refused(503, why, retry_after_s=RETRY_AFTER_S)

    # ------------------------------------------------------------ writes

    async def _write(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            async with self._upstream.send(request, request.raw_path, body=body, begin_s=WRITE_S) as answer:
                return web.Response(status=answer.status, headers=_headers(answer), body=await answer.read(WRITE_S))
        except Unreachable as error:
            why = f"the API server does not answer ({error}); nothing is changed while it is away"
            return refused(503, why, retry_after_s=RETRY_AFTER_S)
        except Retryable as error:
            why = f"the API server was asked and did not answer ({error}): whether it made the change is not known"
            return refused(503, why, retry_after_s=RETRY_AFTER_S)


def _headers(answer: Reply) -> dict[str, str]:
    return {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}


def _form(request: web.Request) -> str:
    accept = accepted(request)
    first = accept.split(",")[0].replace(" ", "")
    return "json" if first in ("application/json", "*/*", "application/*") else first


def _without_limit(question: Question, request: web.Request, body: bytes) -> Question:
    """A page that has a next one stands for itself only."""
    if "limit" not in request.query or b'"continue":"' not in body[:4096]:
        return question
    return Question(question.caller, question.path, canonical(request.query, without_limit=False), question.form)
