"""Rows of the record as values."""

from __future__ import annotations

import msgspec

from agent.store.rows import read_rows
from tests.fakes.store import MemoryStore


class Thing(msgspec.Struct):
    size: int


async def test_a_row_of_another_form_is_left_alone_and_the_rest_is_read() -> None:
    store = MemoryStore()
    rows = {"things/a": b'{"size":1}', "things/b": b"{", "things/c/d": b'{"size":2}', "others/a": b'{"size":3}'}
    for key, value in rows.items():
        await store.put(key, value)
    assert await read_rows(store, "things/", Thing, "thing") == {"a": Thing(1), "c/d": Thing(2)}
    assert await store.get("things/b") is not None
