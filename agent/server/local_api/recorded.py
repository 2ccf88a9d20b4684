"""Answers of the API server, kept for the time when it does not answer: by caller, bounded, the least used go first.

In: whole answers to GET and LIST, and what watches of the same lists tell. Out: the newest answer of the same question
to the same caller, with its age. A list is kept in its parts, so that a watch keeps it new. What is here goes into the
record (sealed) now and then, so that it outlives the agent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import Retryable
from agent.store.base import BATCH_LIMIT, Delete, Put, Store

PREFIX = "answers/"
CALLERS = "answers-callers"
TOTAL_BYTES = 16 * 2**20
ANSWER_BYTES = 4 * 2**20
"""A longer answer is not kept."""
CALLERS_KEPT = 256
WRITE_EVERY_S = 20.0


class Question(msgspec.Struct, frozen=True):
    """What was asked, by whom, in which form."""

    caller: str
    path: str
    query: str
    """Without what does not change the answer, sorted."""
    form: str

    @property
    def row(self) -> str:
        asked = "\0".join((self.caller, self.path, self.query, self.form)).encode()
        return PREFIX + hashlib.sha256(asked).hexdigest()[:40]


class _Kept(msgspec.Struct, kw_only=True):
    """As the record has it."""

    caller: str
    path: str
    query: str
    form: str
    media_type: str
    at: float
    body: bytes


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""
    more: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    kind: str = ""
    apiVersion: str = ""
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_lists = msgspec.json.Decoder(_List)
_objects = msgspec.json.Decoder(_Object)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Answer(msgspec.Struct):
    """One answer. `items` where it is a list that is kept in parts, else `body`."""

    media_type: str
    at: float
    """Unix seconds, when the API server last confirmed it."""
    seen: float
    """The same moment on the monotonic clock."""
    body: bytes = b""
    kind: str = ""
    api_version: str = ""
    revision: str = ""
    items: dict[tuple[str, str], bytes] | None = None
    size: int = 0

    def content(self) -> bytes:
        if self.items is None:
            return self.body
        head = {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": {"resourceVersion": self.revision},
            "items": [msgspec.Raw(raw) for _, raw in sorted(self.items.items())],
        }
        return msgspec.json.encode(head)


class RecordedAnswers(msgspec.Struct):
    """One owner calls `run`. Everything else may be called before."""

    store: Store
    clock: Clock
    _answers: OrderedDict[Question, Answer] = msgspec.field(default_factory=OrderedDict)
    _callers: OrderedDict[str, str] = msgspec.field(default_factory=OrderedDict)
    """Caller by the digest of a credential that the API server has taken."""
    _bytes: int = 0
    _dirty: set[Question] = msgspec.field(default_factory=set)
    _gone: set[str] = msgspec.field(default_factory=set)
    _callers_dirty: bool = False
    _loaded: bool = False
    _loading: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    # ------------------------------------------------------------ callers

    def caller(self, credential: str) -> str | None:
        """Who has this credential, None where the API server has never taken it."""
        digest = _digest(credential)
        if (known := self._callers.get(digest)) is not None:
            self._callers.move_to_end(digest)
        return known

    def know(self, credential: str, caller: str) -> None:
        self._callers[_digest(credential)] = caller
        while len(self._callers) > CALLERS_KEPT:
            self._callers.popitem(last=False)
        self._callers_dirty = True

    def disown(self, credential: str) -> None:
        """The API server does not take it any more."""
        if self._callers.pop(_digest(credential), None) is not None:
            self._callers_dirty = True

    # ------------------------------------------------------------ answers

    def get(self, question: Question) -> Answer | None:
        found = self._answers.get(question)
        if found is not None:
            self._answers.move_to_end(question)
        return found

    def age(self, answer: Answer) -> float:
        """Seconds."""
        return max(self.clock.monotonic() - answer.seen, 0.0)

    def put(self, question: Question, media_type: str, body: bytes) -> None:
        answer = self._made(question, media_type, body, self.clock.wall(), self.clock.monotonic())
        if answer.size > ANSWER_BYTES:
            self.drop(question)
            return
        self._hold(question, answer)
        self._dirty.add(question)
        self._gone.discard(question.row)

    def drop(self, question: Question) -> None:
        if (answer := self._answers.pop(question, None)) is not None:
            self._bytes -= answer.size
            self._dirty.discard(question)
            self._gone.add(question.row)

    def told(self, question: Question, kind: str, raw: bytes) -> None:
        """An event of a watch of the same list."""
        answer = self._answers.get(question)
        if answer is None or answer.items is None:
            return
        meta = _objects.decode(raw).metadata
        key = (meta.namespace, meta.name)
        before = len(answer.items.get(key, b""))
        after = 0
        if kind == "DELETED":
            answer.items.pop(key, None)
        elif kind != "BOOKMARK":
            answer.items[key] = _as_item(raw)
            after = len(answer.items[key])
        answer.size += after - before
        self._bytes += after - before
        answer.revision = meta.resourceVersion or answer.revision
        answer.at, answer.seen = self.clock.wall(), self.clock.monotonic()
        self._dirty.add(question)
        if answer.size > ANSWER_BYTES:
            self.drop(question)
        self._evict()

    def confirm(self, question: Question) -> None:
        """A watch of it stands: it is as new as can be."""
        if (answer := self._answers.get(question)) is not None:
            answer.at, answer.seen = self.clock.wall(), self.clock.monotonic()

    # ------------------------------------------------------------ the record

    async def load(self) -> None:
        """What an agent before this one kept, once."""
        async with self._loading:
            if self._loaded:
                return
            try:
                rows = await self.store.list(PREFIX)
                callers = await self.store.get(CALLERS)
            except Retryable as error:
                logger.warning("recorded answers can't be read now: {}", error)
                return
            self._loaded = True
            kept = []
            for row in rows:
                try:
                    kept.append(msgspec.msgpack.decode(row.value, type=_Kept))
                except msgspec.DecodeError as error:
                    logger.error("record row {} is no answer and is left out: {}", row.key, error)
            now, monotonic = self.clock.wall(), self.clock.monotonic()
            for one in sorted(kept, key=lambda one: one.at):
                question = Question(one.caller, one.path, one.query, one.form)
                if question not in self._answers:
                    seen = monotonic - max(now - one.at, 0.0)
                    self._hold(question, self._made(question, one.media_type, one.body, one.at, seen))
            if callers is not None:
                known = msgspec.json.decode(callers.value, type=dict[str, str])
                self._callers = OrderedDict({**known, **self._callers})

    async def run(self) -> None:
        """Write what is new, for as long as the agent lives."""
        while True:
            await self.clock.sleep(WRITE_EVERY_S)
            try:
                await self.save()
            except Retryable as error:
                logger.debug("recorded answers are not written now: {}", error)

    async def save(self) -> None:
        """Raises Retryable; what was not written stays to be written."""
        dirty, gone = set(self._dirty), set(self._gone)
        changes: list[Put | Delete] = [Delete(row) for row in gone]
        if self._callers_dirty:
            changes.append(Put(CALLERS, msgspec.json.encode(dict(self._callers))))
            self._callers_dirty = False
        for question in dirty:
            if (answer := self._answers.get(question)) is not None:
                kept = _Kept(
                    caller=question.caller,
                    path=question.path,
                    query=question.query,
                    form=question.form,
                    media_type=answer.media_type,
                    at=answer.at,
                    body=answer.content(),
                )
                changes.append(Put(question.row, msgspec.msgpack.encode(kept)))
        self._dirty -= dirty
        self._gone -= gone
        try:
            for start in range(0, len(changes), BATCH_LIMIT):
                await self.store.batch(changes[start : start + BATCH_LIMIT])
        except Retryable:
            self._dirty |= dirty
            self._gone |= gone
            self._callers_dirty = True
            raise

    def _made(self, question: Question, media_type: str, body: bytes, at: float, seen: float) -> Answer:
        answer = Answer(media_type, at, seen, body, size=len(body))
        if question.form != "json":
            return answer
        try:
            listed = _lists.decode(body)
            if listed.kind.endswith("List") and listed.metadata.resourceVersion and not listed.metadata.more:
                answer.items = {_key(item): bytes(item) for item in listed.items or ()}
                answer.kind, answer.api_version = listed.kind, listed.apiVersion
                answer.revision, answer.body = listed.metadata.resourceVersion, b""
        except msgspec.DecodeError:
            pass  # not JSON, or no list: kept as it came
        return answer

    def _hold(self, question: Question, answer: Answer) -> None:
        before = self._answers.pop(question, None)
        self._bytes += answer.size - (before.size if before is not None else 0)
        self._answers[question] = answer
        self._evict()

    def _evict(self) -> None:
        while self._bytes > TOTAL_BYTES and self._answers:
            self.drop(next(iter(self._answers)))


def canonical(query: Mapping[str, str], *, without_limit: bool) -> str:
    """A query's part that changes the answer."""
    left_out = {"resourceVersion", "resourceVersionMatch", "timeoutSeconds", "timeout", "watch", "allowWatchBookmarks"}
    left_out |= {"sendInitialEvents"} | ({"limit"} if without_limit else set())
    return "&".join(sorted(f"{name}={value}" for name, value in query.items() if name not in left_out and value))


def _key(raw: msgspec.Raw) -> tuple[str, str]:
    meta = _objects.decode(raw).metadata
    return meta.namespace, meta.name


def _as_item(raw: bytes) -> bytes:
    """In a list only the list says what its items are."""
    found = _fields.decode(raw)
    return msgspec.json.encode({name: value for name, value in found.items() if name not in ("kind", "apiVersion")})


def _digest(credential: str) -> str:
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).hexdigest()
