"""GET, LIST and WATCH of what this node has, as an API server answers them.

In: a request below /api/v1. Out: objects, lists in pages, watches with bookmarks, and each of them as a Table or as
metadata alone where the client asks for that. Revisions are the local API's own (`collection`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from agent.clock import Clock
from agent.errors import Gone, NotFound, Permanent, Retryable
from agent.server.local_api import tables
from agent.server.local_api.answers import json_response, status_body, watch_line
from agent.server.local_api.collection import Change, Collection, Item, Key, Revisions
from agent.server.local_api.resources import Resource
from agent.server.local_api.selectors import BAD_REQUEST, Test, by_fields, by_labels
from agent.server.local_api.sources import Sources

BOOKMARK_EVERY_S = 60.0
SETTLE_S = 0.05
"""Changes that come together are one look at what is."""
RETRY_S = 1.0
WATCH_S = 1800.0
"""The end of a watch that names none."""
INITIAL_END = "k8s.io/initial-events-end"

Json = dict[str, Any]
_objects = msgspec.json.Decoder(dict[str, Any])


class Target(msgspec.Struct, frozen=True):
    """What a path names; `name` empty: the collection."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    stream: str = ""


class _Form(msgspec.Struct, frozen=True):
    """As what the client wants objects."""

    kind: str = ""
    """Table, PartialObjectMetadata or nothing."""
    with_objects: str = "Metadata"

    @property
    def media_type(self) -> str:
        return f"application/json;as={self.kind};v=v1;g=meta.k8s.io" if self.kind == "Table" else "application/json"


class LocalView:
    """`run` must be running while watches are served: it owns who follows the record."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock
        self._revisions = Revisions(clock.wall())
        self._collections: dict[str, Collection] = {}
        self._stale: dict[str, asyncio.Event] = {}
        self._watched: dict[str, int] = {}

    def changed(self, plural: str) -> None:
        """Something of this resource is new. Costs nothing while nobody watches."""
        if (stale := self._stale.get(plural)) is not None:
            stale.set()

    async def answer(self, target: Target, request: web.Request) -> web.StreamResponse:
        """Raises NotFound, Permanent, Gone, Retryable."""
        form = _form(request)
        if target.name:
            return await self._get(target, form)
        if request.query.get("watch", "").lower() in ("1", "true"):
            return await self._watch(target, request, form)
        return await self._list(target, request.query, form)

    async def find(self, target: Target) -> Json:
        """Raises NotFound."""
        collection = self._collection(target.resource)
        await collection.refresh()
        if (item := collection.get((target.namespace, target.name))) is None:
            raise NotFound(f'{target.resource.plural} "{target.name}" not found on this node')
        return _objects.decode(item.raw)

    async def _get(self, target: Target, form: _Form) -> web.Response:
        found = await self.find(target)
        match form.kind:
            case "Table":
                made = self._formed(target, form, [found], found["metadata"]["resourceVersion"])
            case "PartialObjectMetadata":
                made = tables.partial(found)
            case _:
                made = found
        return json_response(made, media_type=form.media_type)

    async def _list(self, target: Target, query: Mapping[str, str], form: _Form) -> web.Response:
        test = _selected(target, query)
        after, revision = _continued(query.get("continue", ""))
        collection = self._collection(target.resource)
        items, now = await collection.list()
        if after is None:
            revision = now
        else:
            # The first page's revision stands for all: a watch from it tells what the later pages are ahead of it.
            collection.since(revision)
        limit = _whole(query, "limit")
        found: list[Json] = []
        last, more = ("", ""), ""
        for item in items:
            if after is not None and item.key <= after:
                continue
            if not _is_within(target, item) or not test(candidate := _objects.decode(item.raw)):
                continue
            if limit and len(found) == limit:
                more = _token(last, revision)
                break
            found.append(candidate)
            last = item.key
        made = self._formed(target, form, found, str(revision))
        if more:
            made["metadata"]["continue"] = more
        return json_response(made, media_type=form.media_type)

    def _formed(self, target: Target, form: _Form, found: list[Json], revision: str) -> Json:
        kind = target.resource.kind
        match form.kind:
            case "Table":
                made = tables.table(kind, found, self._clock.wall(), with_objects=form.with_objects)
            case "PartialObjectMetadata":
                head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
                made = {**head, "metadata": {}, "items": [tables.partial(one) for one in found]}
            case _:
                items = [
                    {key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in found
                ]
                made = {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items}
        made["metadata"]["resourceVersion"] = revision
        return made

    # ------------------------------------------------------------ watch

    async def _watch(self, target: Target, request: web.Request, form: _Form) -> web.StreamResponse:
        query = request.query
        test = _selected(target, query)
        plural = target.resource.plural
        collection = self._collection(target.resource)
        initial = query.get("sendInitialEvents", "").lower() == "true"
        wants_bookmarks = query.get("allowWatchBookmarks", "").lower() in ("1", "true")
        stated = query.get("resourceVersion", "")
        stale = self._stale.setdefault(plural, asyncio.Event())
        self._watched[plural] = self._watched.get(plural, 0) + 1
        try:
            items, since = await collection.list()
            first: list[tuple[str, bytes]] = []
            if initial or stated in ("", "0"):
                first = [
                    ("ADDED", item.raw)
                    for item in items
                    if _is_within(target, item) and test(_objects.decode(item.raw))
                ]
            else:
                since = _revision(stated)
                collection.since(since)
            response = web.StreamResponse(headers={"Content-Type": form.media_type})
            response.enable_chunked_encoding()
            await response.prepare(request)
            has_columns = False

            async def send(kind: str, raw: bytes) -> None:
                nonlocal has_columns
                if form.kind and kind != "BOOKMARK":
                    raw = self._in_watch(target, form, raw, columns=not has_columns)
                    has_columns = True
                await response.write(watch_line(kind, raw))

            for kind, raw in first:
                await send(kind, raw)
            if initial and wants_bookmarks:
                await send("BOOKMARK", _bookmark(target.resource, since, form, {INITIAL_END: "true"}))
            seconds = float(_whole(query, "timeoutSeconds") or WATCH_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                    following = self._sources.follow(target.resource, stale.set)
                    helpers = (
                        tasks.create_task(following, name=f"local API follows {plural}"),
                        tasks.create_task(self._keep_fresh(collection, stale), name=f"local API looks at {plural}"),
                    )
                    with suppress(ConnectionError):
                        await self._changes(target, collection, since, test, send, form, wants_bookmarks)
                    for helper in helpers:
                        helper.cancel()
            with suppress(ConnectionError):
                await response.write_eof()
            return response
        finally:
            self._watched[plural] -= 1
            if not self._watched[plural]:
                self._stale.pop(plural, None)

    async def _changes(
        self,
        target: Target,
        collection: Collection,
        since: int,
        test: Test,
        send: Callable[[str, bytes], Awaitable[None]],
        form: _Form,
        wants_bookmarks: bool,
    ) -> None:
        """Until the client goes; one that reads too slowly is told that it has missed too much, and lists again."""
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_EVERY_S):
                    await collection.changed(since)
            except TimeoutError:
                if wants_bookmarks:
                    since = max(since, collection.now)
                    await send("BOOKMARK", _bookmark(target.resource, since, form, {}))
                continue
            try:
                changes = collection.since(since)
            except Gone as error:
                await send("ERROR", msgspec.json.encode(status_body(410, str(error))))
                return
            for change in changes:
                since = change.revision
                if told := _told(change, target, test):
                    await send(*told)

    async def _keep_fresh(self, collection: Collection, stale: asyncio.Event) -> None:
        while True:
            await stale.wait()
            stale.clear()
            await self._clock.sleep(SETTLE_S)
            try:
                await collection.refresh()
            except Retryable:
                stale.set()  # the record can't be read now
                await self._clock.sleep(RETRY_S)

    def _in_watch(self, target: Target, form: _Form, raw: bytes, *, columns: bool) -> bytes:
        found = _objects.decode(raw)
        if found.get("kind") == "Status":
            return raw
        if form.kind == "PartialObjectMetadata":
            return msgspec.json.encode(tables.partial(found))
        made = tables.table(
            target.resource.kind, [found], self._clock.wall(), with_objects=form.with_objects, columns=columns
        )
        made["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        return msgspec.json.encode(made)

    def _collection(self, resource: Resource) -> Collection:
        if (known := self._collections.get(resource.plural)) is None:
            known = Collection(lambda: self._sources.read(resource), self._revisions)
            self._collections[resource.plural] = known
        return known


def _told(change: Change, target: Target, test: Test) -> tuple[str, bytes] | None:
    """The event of a change for one watch: an object may come into its selection, or leave it."""

    def shows(item: Item | None) -> bool:
        return item is not None and _is_within(target, item) and test(_objects.decode(item.raw))

    was, now = shows(change.before), shows(change.now)
    if now:
        assert change.now is not None
        return "MODIFIED" if was else "ADDED", change.now.raw
    if was:
        last = change.now or change.before
        assert last is not None
        return "DELETED", _at_revision(last.raw, change.revision)
    return None


def _at_revision(raw: bytes, revision: int) -> bytes:
    found = _objects.decode(raw)
    found["metadata"]["resourceVersion"] = str(revision)
    return msgspec.json.encode(found)


def _bookmark(resource: Resource, revision: int, form: _Form, annotations: Mapping[str, str]) -> bytes:
    meta: Json = {"resourceVersion": str(revision)}
    if annotations:
        meta["annotations"] = dict(annotations)
    kind, version = (form.kind, "meta.k8s.io/v1") if form.kind else (resource.kind, "v1")
    body: Json = {"kind": kind, "apiVersion": version, "metadata": meta}
    if kind == "Table":
        body |= {"columnDefinitions": [], "rows": []}
    return msgspec.json.encode(body)


def _is_within(target: Target, item: Item) -> bool:
    return not target.namespace or item.key[0] == target.namespace


def _selected(target: Target, query: Mapping[str, str]) -> Test:
    labels = by_labels(query.get("labelSelector", ""))
    fields = by_fields(query.get("fieldSelector", ""), target.resource)
    return lambda found: labels(found) and fields(found)


def _form(request: web.Request) -> _Form:
    """The first form in Accept that is ours. Raises Permanent("NotAcceptable") where none is."""
    accept = ",".join(request.headers.getall("Accept", ["*/*"])) or "*/*"
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        values = dict(word.partition("=")[::2] for word in parameters)
        if kind not in ("application/json", "application/*", "*/*", "application/yaml"):
            continue
        match values.get("as", ""):
            case "":
                return _Form()
            case "Table" if values.get("v") == "v1":
                return _Form("Table", request.query.get("includeObject", "Metadata"))
            case "PartialObjectMetadata" | "PartialObjectMetadataList" if values.get("v") == "v1":
                return _Form("PartialObjectMetadata")
    raise Permanent("NotAcceptable", "only application/json is served here, also as Table and PartialObjectMetadata")


def _whole(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Permanent(BAD_REQUEST, f"{name}: {text!r} is not a whole number")
    return int(text)


def _revision(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Permanent(BAD_REQUEST, f"invalid resource version: {text!r}")
    return int(text)


def _token(key: Key, revision: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([revision, *key])).decode()


def _continued(token: str) -> tuple[Key | None, int]:
    if not token:
        return None, 0
    try:
        revision, namespace, name = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str, str])
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise Permanent(BAD_REQUEST, "continue key is not valid") from error
    return (namespace, name), revision
