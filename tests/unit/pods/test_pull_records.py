"""An image that one pod pulled with its secret is not for every pod."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.errors import Retryable
from agent.model.objects import ObjectKey
from agent.pods.credentials import Credential, SecretSource
from agent.pods.image_access import MAX_SECRETS, Grant, Verification, must_be_shown
from agent.pods.pull_records import PullRecords
from tests.fakes.skipped_time import with_skipped_time
from tests.fakes.store import MemoryStore
from tests.unit.pods.scene import Scene, record, scene

IMAGE, ID = "registry.example/web:1", "sha256:1"
MINE = SecretSource("s-1", "shop", "mine", "aa")


def by(source: SecretSource) -> Credential:
    return Credential(pb.AuthConfig(), source)


async def must_pull(records: PullRecords, *sources: SecretSource, image: str = IMAGE, image_id: str = ID) -> bool:
    async def shown() -> Iterable[SecretSource]:
        return sources

    return await records.must_pull(image, image_id, shown)


async def nothing() -> list[str]:
    return []


async def present() -> list[str]:
    return [ID]


@pytest.mark.parametrize(
    ("policy", "pulled_here", "image", "shown"),
    [
        ("NeverVerify", True, "a/web:1", False),
        ("NeverVerifyPreloadedImages", True, "a/web:1", True),
        ("NeverVerifyPreloadedImages", False, "a/web:1", False),
        ("AlwaysVerify", False, "a/web:1", True),
        ("NeverVerifyAllowlistedImages", True, "a/web:1", False),
        ("NeverVerifyAllowlistedImages", True, "a/web", False),
        ("NeverVerifyAllowlistedImages", True, f"a/web@sha256:{'0' * 64}", False),
        ("NeverVerifyAllowlistedImages", False, "a/website:1", True),
        ("NeverVerifyAllowlistedImages", False, "registry.example/own/x/y:1", False),
        ("NeverVerifyAllowlistedImages", False, "registry.example/owner/x:1", True),
    ],
)
def test_which_images_need_a_record_of_access(policy: str, pulled_here: bool, image: str, shown: bool) -> None:
    allowed = ("a/web", "registry.example/own/*")
    assert must_be_shown(Verification(policy), allowed, image, pulled_here=pulled_here) is shown


@pytest.mark.parametrize(
    ("shown", "pulls"),
    [
        (MINE, False),
        (SecretSource("s-2", "other", "copy", "aa"), False),
        (SecretSource("s-1", "shop", "mine", "rotated"), False),
        (SecretSource("s-3", "shop", "mine", "bb"), True),
        (None, True),
    ],
)
async def test_who_shows_the_secret_or_its_content_needs_no_pull(shown: SecretSource | None, pulls: bool) -> None:
    records = PullRecords(MemoryStore())
    await records.pulled(IMAGE, ID, by(MINE))
    assert await must_pull(records, *([shown] if shown else [])) is pulls


async def test_a_rotated_secret_is_known_from_then_on() -> None:
    records = PullRecords(MemoryStore())
    await records.pulled(IMAGE, ID, by(MINE))
    assert not await must_pull(records, SecretSource("s-1", "shop", "mine", "rotated"))
    assert not await must_pull(records, SecretSource("s-9", "x", "copy", "rotated"))
    assert await must_pull(records, SecretSource("s-9", "x", "old-copy", "aa"))


@pytest.mark.parametrize("credential", [None, Credential(pb.AuthConfig(username="the node's"))])
async def test_what_was_pulled_without_a_secret_is_everybodys(credential: Credential | None) -> None:
    records = PullRecords(MemoryStore())
    await records.pulled(IMAGE, ID, by(MINE))
    await records.pulled(IMAGE, ID, credential)
    assert not await must_pull(records)
    await records.pulled(IMAGE, ID, by(MINE))
    assert not await must_pull(records)


async def test_an_image_that_nobody_pulled_is_everybodys() -> None:
    assert not await must_pull(PullRecords(MemoryStore()))
    assert await must_pull(PullRecords(MemoryStore(), Verification.ALWAYS))


async def test_access_under_one_name_is_none_under_another() -> None:
    records = PullRecords(MemoryStore())
    await records.pulled(IMAGE, ID, None)
    assert not await must_pull(records, image="registry.example/web:2")
    assert await must_pull(records, image="registry.example/other:1")


async def test_a_restarted_agent_knows_who_pulled() -> None:
    store = MemoryStore()
    await PullRecords(store).pulled(IMAGE, ID, by(MINE))
    again = PullRecords(store)
    await again.load(present)
    assert not await must_pull(again, MINE)
    assert await must_pull(again)


async def test_what_was_here_before_a_pull_is_as_open_during_it_and_what_the_pull_brings_is_not() -> None:
    records = PullRecords(MemoryStore())
    async with records.pulling(IMAGE, ID):
        assert not await must_pull(records)
    async with records.pulling(IMAGE), records.pulling(IMAGE, ID):
        assert await must_pull(records)
    async with records.pulling(IMAGE, "sha256:other"):
        assert await must_pull(records)


async def test_a_pull_that_was_broken_off_is_nobodys_and_not_everybodys() -> None:
    store = MemoryStore()
    first = PullRecords(store)
    async with first.pulling(IMAGE):
        assert await must_pull(first)
        killed = PullRecords(store)
        await killed.load(nothing)
    assert not await must_pull(first)
    assert await must_pull(killed)
    async with killed.pulling(IMAGE):
        await killed.pulled(IMAGE, ID, by(MINE))
    assert not await must_pull(killed, MINE)
    assert not [key for key in store.rows if key.startswith("pulling/")]


async def test_two_pulls_of_an_image_are_over_with_the_second() -> None:
    store = MemoryStore()
    records = PullRecords(store)
    async with records.pulling(IMAGE):
        async with records.pulling(IMAGE):
            pass
        assert f"pulling/{IMAGE}" in store.rows
    assert not store.rows


async def test_images_that_are_gone_leave_the_record() -> None:
    store = MemoryStore()
    records = PullRecords(store)
    await records.pulled(IMAGE, ID, by(MINE))
    await records.pulled(IMAGE, "sha256:2", by(MINE))
    again = PullRecords(store)
    await again.load(present)
    assert list(store.rows) == [f"pulled/{ID}"]


async def test_a_row_that_cannot_be_read_lets_nobody_in() -> None:
    store = MemoryStore()
    await store.put(f"pulled/{ID}", b"{")
    records = PullRecords(store)
    await records.load(present)
    assert await must_pull(records, MINE)


async def test_a_record_that_is_away_is_no_reason_not_to_pull() -> None:
    class Away(MemoryStore):
        async def batch(self, changes: object) -> int:
            raise Retryable("no route")

    records = PullRecords(Away())
    async with records.pulling(IMAGE):
        await records.pulled(IMAGE, ID, by(MINE))
    assert not await must_pull(records, MINE)


def test_a_grant_keeps_the_newest_secrets() -> None:
    grant = Grant()
    for number in range(MAX_SECRETS + 1):
        grant = grant.with_secret(SecretSource(str(number), "a", "b", str(number)))
    assert len(grant.secrets) == MAX_SECRETS
    assert grant.secrets[-1].uid == str(MAX_SECRETS)


def _secret(s: Scene, name: str, user: str) -> None:
    auth = base64.b64encode(f"{user}:pw".encode()).decode()
    config = base64.b64encode(f'{{"auths":{{"registry.example":{{"auth":"{auth}"}}}}}}'.encode()).decode()
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
    content = {"metadata": meta, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}}
    s.objects.held[ObjectKey("secrets", "shop", name)] = msgspec.json.encode(content)


@pytest.mark.parametrize(
    ("secret", "policy", "pulls", "waits"),
    [
        ("first", "IfNotPresent", 1, ""),
        ("second", "IfNotPresent", 2, ""),
        ("", "IfNotPresent", 2, ""),
        ("first", "Never", 1, ""),
        ("", "Never", 1, "ErrImageNeverPull"),
    ],
)
@with_skipped_time
async def test_a_second_pod_pulls_unless_it_shows_what_the_first_pulled_with(
    tmp_path: Path, secret: str, policy: str, pulls: int, waits: str
) -> None:
    async with scene(tmp_path) as s:
        _secret(s, "first", "anna")
        _secret(s, "second", "bert")
        main = {"name": "main", "image": IMAGE}
        await s.running(record(imagePullSecrets=[{"name": "first"}], containers=[main]))
        s.updates.clear()
        s.start(
            record(
                {"name": "other", "uid": "u-2"},
                imagePullSecrets=[{"name": secret}] if secret else [],
                containers=[{**main, "imagePullPolicy": policy}],
            )
        )
        await s.until(lambda: s.updates and (s.waits() == waits if waits else s.phase == "Running"))
        assert s.moves.count("PullImage") == pulls
        told = f'Container image "{IMAGE}" already present on machine and can be accessed by the pod'
        assert (told in s.events.messages("Pulled")) is (pulls == 1 and not waits)


async def test_an_image_that_was_removed_is_nobodys_any_more() -> None:
    store = MemoryStore()
    records = PullRecords(store)
    await records.pulled(IMAGE, ID, by(MINE))
    assert await must_pull(records)
    await records.removed(ID)
    await records.removed(ID)
    assert not await store.list("pulled/")
    assert not await must_pull(records)  # if it is here again, somebody else brought it
