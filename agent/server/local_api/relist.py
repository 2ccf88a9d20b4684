"""What a watch missed while the API server forgot the way there: the difference of two lists, as events.

In: the objects that the client has, and a new list. Out: events that bring the client from the one to the other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

Key = tuple[str, str]
"""Namespace and name."""


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""


class _List(msgspec.Struct):
    kind: str
    apiVersion: str
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class Listed(msgspec.Struct, frozen=True):
    kind: str
    """Of one item."""
    api_version: str
    revision: str
    items: dict[Key, bytes]
    """Whole objects: with kind and apiVersion."""


_lists = msgspec.json.Decoder(_List)
_objects = msgspec.json.Decoder(_Object)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def listed(body: bytes) -> Listed:
    """Raises msgspec.DecodeError."""
    found = _lists.decode(body)
    kind = found.kind.removesuffix("List")
    head = {
        name: msgspec.Raw(msgspec.json.encode(value))
        for name, value in (("kind", kind), ("apiVersion", found.apiVersion))
    }
    items = {key_of(item): msgspec.json.encode({**head, **_fields.decode(item)}) for item in found.items or ()}
    return Listed(kind, found.apiVersion, found.metadata.resourceVersion, items)


def key_of(raw: bytes | msgspec.Raw) -> Key:
    meta = _objects.decode(raw).metadata
    return meta.namespace, meta.name


def difference(held: Mapping[Key, bytes], now: Listed) -> Iterator[tuple[str, bytes]]:
    """Events in the order of their revisions: a client may go on from any of them."""
    before = {key: _objects.decode(raw).metadata for key, raw in held.items()}
    after = {key: _objects.decode(raw).metadata for key, raw in now.items.items()}
    # What went is told last, with the new list's revision; but before who came anew under its name.
    replaced = {key for key, meta in after.items() if key in before and before[key].uid != meta.uid}
    for key in replaced:
        yield "DELETED", held[key]
    for key, meta in sorted(after.items(), key=lambda pair: _order(pair[1].resourceVersion)):
        if key not in before or key in replaced:
            yield "ADDED", now.items[key]
        elif before[key].resourceVersion != meta.resourceVersion:
            yield "MODIFIED", now.items[key]
    for key in before.keys() - after.keys():
        yield "DELETED", _last(held[key], now)


def _order(revision: str) -> tuple[int, str]:
    return (int(revision), "") if revision.isascii() and revision.isdigit() else (0, revision)


def _last(raw: bytes, now: Listed) -> bytes:
    found = _fields.decode(raw)
    meta = msgspec.json.decode(found["metadata"], type=dict[str, msgspec.Raw])
    meta["resourceVersion"] = msgspec.Raw(msgspec.json.encode(now.revision))
    head = {"kind": now.kind, "apiVersion": now.api_version}
    return msgspec.json.encode({**head, **found, "metadata": meta})
