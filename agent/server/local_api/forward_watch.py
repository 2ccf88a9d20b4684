"""A watch through a link that comes and goes: the client sees one stream, whatever happens behind it.

In: a client's watch. Out: the API server's events, each once and in order. When the API server goes away the client
waits; when it is back the watch goes on from the last revision that went through. Only where the API server has
forgotten that revision, or refuses, the client hears of it. Lists that are recorded are kept new by what passes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from loguru import logger

from agent.errors import Retryable
from agent.server.local_api.answers import refused, status_body, watch_line
from agent.server.local_api.recorded import Question, RecordedAnswers
from agent.server.local_api.relist import Key, Listed, difference, key_of, listed
from agent.server.local_api.upstream import Upstream

BEGIN_S = 10.0
LIST_S = 30.0
UNKNOWN_YET_S = 15.0
"""A watch that was allowed before is refused for so long before its client hears of it."""
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 2.0
AWAY = frozenset({429, 500, 502, 503, 504})
INITIAL_END = "k8s.io/initial-events-end"


class _Meta(msgspec.Struct):
    resourceVersion: str = ""


class _Code(msgspec.Struct):
    code: int = 0


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_events = msgspec.json.Decoder(_Event)
_objects = msgspec.json.Decoder(_Object)


class _Watch(msgspec.Struct):
    request: web.Request
    question: Question | None
    query: dict[str, str]
    ends_at: float | None
    revision: str = ""
    """Where to go on from; empty: the client named none, and nothing that orders the events has come yet."""
    response: web.StreamResponse | None = None
    held: dict[Key, bytes] | None = None
    """What the client has by now; None: not known."""
    over: bool = False
    refused_since: float | None = None

    async def say(self, kind: str, raw: bytes) -> None:
        assert self.response is not None
        await self.response.write(watch_line(kind, raw))


class Again(Exception):
    """The API server ends this watch; the next one goes on."""


class ForwardedWatch:
    def __init__(self, upstream: Upstream, recorded: RecordedAnswers) -> None:
        self._upstream = upstream
        self._recorded = recorded

    async def answer(self, request: web.Request, question: Question | None) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        seconds = request.query.get("timeoutSeconds", "")
        ends_at = loop.time() + float(seconds) if seconds.isascii() and seconds.isdigit() and int(seconds) else None
        query = {name: value for name, value in request.query.items() if name != "timeoutSeconds"}
        watch = _Watch(request, question, query, ends_at)
        stated = query.get("resourceVersion", "")
        watch.revision = "" if stated == "0" else stated
        if query.get("sendInitialEvents", "").lower() == "true":
            watch.revision = ""
        if watch.revision and question is not None and (known := self._recorded.get(question)) is not None:
            # A client that has just listed has what was recorded of it.
            watch.held = dict(known.items) if known.items is not None and known.revision == watch.revision else None
        delay = RETRY_FIRST_S
        try:
            async with asyncio.timeout_at(ends_at):
                while not watch.over:
                    began = loop.time()
                    try:
                        refusal = await self._once(watch)
                        if refusal is not None:
                            return refusal
                    except Retryable as error:
                        logger.debug("watch {}: {}", request.path, error)
                        if watch.response is None and not self._may_wait(watch):
                            return refused(503, f"the API server does not answer: {error}", retry_after_s=2)
                        await self._begin(watch)
                    if watch.over:
                        break
                    delay = RETRY_FIRST_S if loop.time() - began > 5 else min(delay * 2, RETRY_MOST_S)
                    await asyncio.sleep(delay * random.uniform(0.75, 1.0))  # noqa: S311 - spreads a fleet
        except TimeoutError:
            pass
        except ConnectionError:
            logger.debug("{}: the watcher went away", request.path)
        if watch.response is None:
            return refused(503, "the API server does not answer", retry_after_s=2)
        with suppress(ConnectionError):
            await watch.response.write_eof()
        return watch.response

    def _may_wait(self, watch: _Watch) -> bool:
        """Who is known and says where to go on from may be kept waiting: its list told it what there is."""
        return watch.question is not None and bool(watch.revision)

    async def _once(self, watch: _Watch) -> web.StreamResponse | None:
        """One watch at the API server, to its end. A refusal before anything was said is the answer."""
        if not watch.revision and watch.question is not None and watch.question.form == "json":
            refusal = await self._initial(watch)
            if refusal is not None or watch.over:
                return refusal
        query = dict(watch.query)
        if watch.revision:
            for name in ("sendInitialEvents", "resourceVersionMatch"):
                query.pop(name, None)
            query |= {"resourceVersion": watch.revision}
        if watch.ends_at is not None:
            left = watch.ends_at - asyncio.get_running_loop().time()
            query["timeoutSeconds"] = str(max(int(left), 1))
        async with self._upstream.send(watch.request, f"{_path(watch)}?{urlencode(query)}") as answer:
            if answer.status != 200:
                return await self._refused(watch, answer.status, await answer.read(BEGIN_S))
            watch.refused_since = None
            await self._begin(watch, answer.headers.get("Content-Type", "application/json"))
            if watch.question is not None:
                self._recorded.confirm(watch.question)
            try:
                async for line in _lines(answer.pieces()):
                    await self._pass_on(watch, line)
                    if watch.over:
                        return None
            except Again:
                return None
        if not watch.revision:
            watch.over = True  # nothing says where to go on from: the client must list again
        return None

    async def _initial(self, watch: _Watch) -> web.StreamResponse | None:
        """The state that a watch without a revision begins with, and with it the revision to go on from.

        Several events of unordered revisions would not say where to go on from after a cut.
        """
        body = await self._list(watch, _list_query(watch))
        if body is None:
            return None  # it may watch but not list: as it comes, then
        if isinstance(body, web.StreamResponse):
            return body
        now = _listed(body)
        if watch.question is not None:
            self._recorded.put(watch.question, "application/json", body)
        await self._begin(watch)
        for raw in now.items.values():
            await watch.say("ADDED", raw)
        watch.revision, watch.held = now.revision, now.items
        if watch.query.get("sendInitialEvents", "").lower() == "true":
            meta = {"resourceVersion": watch.revision, "annotations": {INITIAL_END: "true"}}
            mark = {"kind": now.kind, "apiVersion": now.api_version, "metadata": meta}
            await watch.say("BOOKMARK", msgspec.json.encode(mark))
        return None

    async def _heal(self, watch: _Watch) -> bool:
        """The API server has forgotten our revision (it was started anew): tell what is different from what we told.

        False where that is not known.
        """
        if watch.held is None:
            return False
        body = await self._list(watch, _list_query(watch))
        if not isinstance(body, bytes):
            return False
        now = _listed(body)
        for kind, raw in difference(watch.held, now):
            await watch.say(kind, raw)
        watch.revision, watch.held = now.revision, now.items
        if watch.question is not None:
            self._recorded.put(watch.question, "application/json", body)
        return True

    async def _list(self, watch: _Watch, query: Mapping[str, str]) -> bytes | web.StreamResponse | None:
        path = f"{_path(watch)}?{urlencode(query)}" if query else _path(watch)
        async with self._upstream.send(watch.request, path) as answer:
            body = await answer.read(LIST_S)
        match answer.status:
            case 200:
                return body
            case 403:
                return None
            case status:
                return await self._refused(watch, status, body)

    async def _refused(self, watch: _Watch, status: int, body: bytes) -> web.StreamResponse | None:
        """Raises Retryable where it may be otherwise soon."""
        if status in AWAY:
            raise Retryable(f"HTTP {status}")
        if status in (401, 403) and watch.response is not None:
            # An API server that was just started knows neither roles nor accounts yet.
            now = asyncio.get_running_loop().time()
            watch.refused_since = watch.refused_since or now
            if now - watch.refused_since < UNKNOWN_YET_S:
                raise Retryable(f"HTTP {status}")
        if watch.response is None:
            watch.over = True
            return web.Response(status=status, body=body, headers={"Content-Type": "application/json"})
        if status == 410 and await self._heal(watch):
            return None
        try:
            said = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            said = {}
        await watch.say("ERROR", body if "code" in said else msgspec.json.encode(status_body(status, f"HTTP {status}")))
        watch.over = True
        return None

    async def _begin(self, watch: _Watch, media_type: str = "application/json") -> None:
        if watch.response is None:
            watch.response = web.StreamResponse(headers={"Content-Type": media_type})
            watch.response.enable_chunked_encoding()
            await watch.response.prepare(watch.request)

    async def _pass_on(self, watch: _Watch, line: bytes) -> None:
        assert watch.response is not None
        try:
            event = _events.decode(line)
            raw = bytes(event.object)
            meta = _objects.decode(raw).metadata
        except msgspec.DecodeError as error:
            raise Retryable(f"broken stream: {error}") from error
        if event.type == "ERROR":
            if _code(raw) == 410 and await self._heal(watch):
                raise Again
            watch.over = True
        await watch.response.write(line + b"\n")
        if watch.over:
            return
        if watch.held is not None:
            if event.type == "DELETED":
                watch.held.pop(key_of(raw), None)
            elif event.type != "BOOKMARK":
                watch.held[key_of(raw)] = raw
        if watch.revision or event.type == "BOOKMARK":
            watch.revision = meta.resourceVersion or watch.revision
        if watch.question is not None and watch.question.form == "json":
            self._recorded.told(watch.question, event.type, raw)


def _path(watch: _Watch) -> str:
    """As it was sent, quoted: decoded it could be another request."""
    return watch.request.rel_url.raw_path


def _list_query(watch: _Watch) -> dict[str, str]:
    left_out = ("watch", "allowWatchBookmarks", "sendInitialEvents", "resourceVersion", "resourceVersionMatch")
    return {name: value for name, value in watch.query.items() if name not in left_out}


def _listed(body: bytes) -> Listed:
    """Raises Retryable."""
    try:
        return listed(body)
    except msgspec.DecodeError as error:
        raise Retryable(f"the answer is no list: {error}") from error


def _code(raw: bytes) -> int:
    return msgspec.json.decode(raw, type=_Code).code


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines; what no newline follows was cut off and is not handed on."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        *whole, last = rest.split(b"\n")
        for line in whole:
            if line:
                yield bytes(line)
        rest = bytearray(last)
