"""One list, then every change of it, for ever.

In: a collection's path and selectors. Out: frozen events: a complete fresh list, then what was put or removed, from one
resourceVersion to the next. Broken streams, refusals, idle time-outs and cut links are answered by watching on from
where it stopped; a resourceVersion too old by a new list. Nothing is decoded but the metadata: the consumer gets bytes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Gone, Retryable
from agent.kube.answers import error_of
from agent.kube.rest import Api

PAGE = 500
RETRY_INITIAL_S = 0.2
RETRY_MAXIMUM_S = 10.0
WATCH_MINIMUM_S = 1800
"""Watches end by themselves after one to two times this, as API servers end those that name no time: a fleet spreads
over them, and a node at rest has little to ask. Where something in between ends them sooner they go on."""
RELIST_AFTER_S = 4 * 3600.0
"""Between two lists at most (when a watch ends): repairs what a watch missed. A list has every object in it again."""
RELIST_AFTER_FAILURES = 5
"""A server restored from a backup refuses our resourceVersion without saying Gone."""
SHORTEST_WATCH_S = 1.0
"""A server or proxy that ends watches sooner, and without a change in them, is not asked again at once."""
SAID_AFTER_FAILURES = 4
LINE_LIMIT_BYTES = 64 * 2**20


class Meta(msgspec.Struct, frozen=True):
    """The part of an object's metadata that names it."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class RawObject(msgspec.Struct, frozen=True):
    """An object as the API server sent it, with `kind` and `apiVersion`."""

    meta: Meta
    raw: bytes


class Listed(msgspec.Struct, frozen=True):
    """All there is, read from the API server now: what is not in it does not exist."""

    items: tuple[RawObject, ...]
    resource_version: str


class Upserted(msgspec.Struct, frozen=True):
    object: RawObject


class Removed(msgspec.Struct, frozen=True):
    object: RawObject
    """Its last state."""


class Disconnected(msgspec.Struct, frozen=True):
    """Changes are not seen now. Said once; `Resumed` or `Listed` follows."""

    error: EdgeletError


class Resumed(msgspec.Struct, frozen=True):
    """Watching on from where it stopped; nothing was missed."""


WatchEvent = Listed | Upserted | Removed | Disconnected | Resumed


class _Partial(msgspec.Struct):
    metadata: Meta
    kind: str = ""


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""
    # `continue` is a keyword.
    more: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    kind: str
    apiVersion: str
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_partials = msgspec.json.Decoder(_Partial)
_lists = msgspec.json.Decoder(_List)
_events = msgspec.json.Decoder(_Event)


async def list_watch(
    api: Api,
    path: str,
    field_selector: str = "",
    label_selector: str = "",
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[WatchEvent]:
    """Never ends and raises nothing of the API server's. Close it (`contextlib.aclosing`) to stop watching.

    Retries after 0.2 s doubling to 10 s, jittered, or when the server wishes.
    """
    selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
    selectors = {name: value for name, value in selectors.items() if value}
    log = logger.bind(watch=f"{path}?{field_selector}")
    version = ""
    listed_at = 0.0
    failures = 0
    connected = True
    said: set[str] = set()
    now = asyncio.get_running_loop().time
    while True:
        try:
            if not version or now() - listed_at > RELIST_AFTER_S:
                listed = await _list(api, path, selectors)
                version, listed_at, connected = listed.resource_version, now(), True
                yield listed
            began, progressed = now(), False
            async with aclosing(_watch(api, path, selectors, version)) as events:
                async for change in events:
                    if change is None:
                        if not connected:
                            connected = True
                            yield Resumed()
                        continue
                    failures, progressed = 0, True
                    if said:
                        # Only now: a broken server opens streams too.
                        said.clear()
                        log.info("watching {} again", path)
                    if isinstance(change, str):
                        version = change
                        continue
                    version = change.object.meta.resourceVersion or version
                    yield change
            if progressed or now() - began >= SHORTEST_WATCH_S:
                failures = 0
                continue
            failure: EdgeletError = Retryable(f"watch {path}: ended at once")
        except Gone as error:
            log.debug("listing again: {}", error)
            version = ""
            if failures == 0:
                failures = 1
                continue
            failure = error
        except EdgeletError as error:
            failure = error
        failures += 1
        if failures % RELIST_AFTER_FAILURES == 0:
            version = ""
        why = type(failure).__name__
        if failures >= SAID_AFTER_FAILURES and api.link.up and why not in said and not isinstance(failure, Gone):
            # An absence is said by Api, for all watches together; an authorizer may just be late.
            said.add(why)
            log.warning("cannot watch {}, so what is known of it stays as it is: {}", path, failure)
        if connected:
            connected = False
            yield Disconnected(failure)
        wait: float = min(RETRY_INITIAL_S * 2 ** min(failures - 1, 10), RETRY_MAXIMUM_S)
        wait *= random.uniform(0.5, 1.0)  # noqa: S311
        after = failure.after if isinstance(failure, Retryable) else None
        await api.link.pause(max(wait, after or 0.0), sleep)


async def _list(api: Api, path: str, selectors: dict[str, str]) -> Listed:
    """A complete list without a resourceVersion, so read by quorum. Raises Gone where a page expired meanwhile."""
    items: dict[str, RawObject] = {}
    version = more = ""
    while True:
        params = {**selectors, "limit": str(PAGE)}
        if more:
            params["continue"] = more
        answer = await api.get(path, params, timeout_s=30.0)
        try:
            page = _lists.decode(answer)
            found = [_object(raw, page.kind.removesuffix("List"), page.apiVersion) for raw in page.items or ()]
        except msgspec.DecodeError as error:
            raise Retryable(f"GET {path}: the answer is no list: {error}") from error
        if doubt := _doubt(page, path, version) or ("twice the same object" if _repeats(found, items) else ""):
            # A proxy's or a broken server's answer must never read as "no pods".
            raise Retryable(f"GET {path}: the answer is no list: {doubt}")
        items.update((one.meta.uid, one) for one in found)
        version, more = page.metadata.resourceVersion, page.metadata.more
        if not more:
            return Listed(tuple(items.values()), version)


def _doubt(page: _List, path: str, version: str) -> str:
    """Why this is not the (next) page of a list of what the path names; `version` is that of the page before."""
    kind = page.kind.removesuffix("List")
    if kind == page.kind or not path.rpartition("/")[2].startswith(kind.lower()):
        return f"it is of kind {page.kind}"
    if not page.metadata.resourceVersion:
        return "it has no resourceVersion"
    if version and page.metadata.resourceVersion != version:
        return f"its pages are of different times ({version}, {page.metadata.resourceVersion})"
    return ""


def _repeats(found: list[RawObject], before: dict[str, RawObject]) -> bool:
    uids = {one.meta.uid for one in found}
    return len(uids) < len(found) or not uids.isdisjoint(before)


async def _watch(
    api: Api, path: str, selectors: dict[str, str], version: str
) -> AsyncGenerator[Upserted | Removed | str | None]:
    """None once the stream stands, then changes, and a bookmark's resourceVersion as str. Ends as the server wishes."""
    seconds = random.randint(WATCH_MINIMUM_S, 2 * WATCH_MINIMUM_S)  # noqa: S311
    params = {**selectors, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
    if not selectors.get("fieldSelector", "").startswith("metadata.name="):
        # A bookmark a minute saves a list of all of them when the watch has ended. One object is shorter than they are.
        params["allowWatchBookmarks"] = "true"
    async with api.stream(path, params, timeout_s=seconds + 30.0) as pieces:
        yield None
        async for line in _lines(pieces):
            try:
                if not line.isascii():
                    line.decode()
                event = _events.decode(line)
                match event.type:
                    case "ADDED" | "MODIFIED":
                        yield Upserted(_object(event.object))
                    case "DELETED":
                        yield Removed(_object(event.object))
                    case "BOOKMARK":
                        yield _partials.decode(event.object).metadata.resourceVersion
                    case "ERROR":
                        raise _refusal(bytes(event.object), path)
                    case other:
                        raise Retryable(f"watch {path}: unknown event {other!r}")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Retryable(f"watch {path}: broken stream: {error}") from error


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Lines of a stream, however long; a piece at the end that no newline follows is a line too (and a broken one)."""
    buffer = bytearray()
    async for piece in pieces:
        searched = len(buffer)
        buffer += piece
        start = 0
        while (end := buffer.find(b"\n", max(start, searched))) >= 0:
            if end > start:
                yield bytes(memoryview(buffer)[start:end])
            start = end + 1
        del buffer[:start]
        if len(buffer) > LINE_LIMIT_BYTES:
            raise Retryable(f"watch: a line of more than {LINE_LIMIT_BYTES >> 20} MiB")
    if buffer:
        yield bytes(buffer)


def _object(raw: msgspec.Raw, kind: str = "", api_version: str = "") -> RawObject:
    partial = _partials.decode(raw)
    if not partial.metadata.uid or not partial.metadata.name:
        raise msgspec.ValidationError("an object without a name or UID")
    content = bytes(raw)
    if not partial.kind and kind:
        # In a list only the list says what its items are.
        content = b'{"kind":"%b","apiVersion":"%b",%b' % (kind.encode(), api_version.encode(), content.lstrip()[1:])
    return RawObject(partial.metadata, content)


class _Code(msgspec.Struct):
    code: int = 500


def _refusal(status: bytes, path: str) -> EdgeletError:
    """An ERROR event carries a Status with the HTTP code that a plain answer would have had."""
    return error_of(msgspec.json.decode(status, type=_Code).code or 500, status, {}, f"watch {path}")
