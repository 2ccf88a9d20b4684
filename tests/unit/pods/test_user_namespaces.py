"""Ranges of the host's IDs: one a pod, durable before use, free again when the pod is gone."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import Permanent, Retryable
from agent.model.pod import Pod
from agent.pods.user_namespaces import UserNamespaces
from tests.fakes.store import MemoryStore
from tests.unit.pods.pods import make_pod


def pod(uid: str) -> Pod:
    return make_pod({"uid": uid}, hostUsers=False)


async def users(store: MemoryStore, *handlers: str) -> UserNamespaces:
    made = UserNamespaces(store)
    made.handlers = frozenset(handlers)
    await made.load()
    return made


async def test_each_pod_has_a_range_of_its_own_and_keeps_it() -> None:
    own = await users(MemoryStore(), "")
    for uid in ("a", "b", "a"):
        await own.take(pod(uid), "")
    assert (own.first_id("a"), own.first_id("b")) == (65536, 131072)


async def test_a_range_survives_a_restart_and_is_free_once_its_pod_is_gone() -> None:
    store = MemoryStore()
    own = await users(store, "")
    await own.take(pod("a"), "")
    await own.take(pod("b"), "")
    own = await users(store, "")
    await own.take(pod("c"), "")
    assert own.first_id("c") == 196608
    await own.forget("a")
    own = await users(store, "")
    assert own.first_id("a") is None
    await own.take(pod("d"), "")
    assert own.first_id("d") == 65536


@pytest.mark.parametrize("asked", [None, True])
async def test_who_does_not_ask_has_the_hosts_users(asked: bool | None) -> None:
    own = await users(MemoryStore())
    await own.take(make_pod(hostUsers=asked), "")
    assert own.first_id("u-1") is None


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("", "can't set `spec.hostUsers: false`, runtime does not support user namespaces"),
        ("kata", 'can\'t set `spec.hostUsers: false`, RuntimeClass handler "kata" does not support user namespaces'),
    ],
)
async def test_a_runtime_without_them_is_said(handler: str, message: str) -> None:
    own = await users(MemoryStore(), "runc")
    with pytest.raises(Permanent) as raised:
        await own.take(pod("a"), handler)
    assert str(raised.value) == message


async def test_a_range_that_is_not_in_the_record_is_not_taken() -> None:
    class Full(MemoryStore):
        async def batch(self, changes: Any) -> int:
            raise Retryable("disk full")

    own = await users(Full(), "")
    with pytest.raises(Retryable):
        await own.take(pod("a"), "")
    assert own.first_id("a") is None


async def test_a_row_that_is_no_range_is_left_alone() -> None:
    store = MemoryStore()
    await store.put("userns/x", b"many")
    assert (await users(store, "")).first_id("x") is None
