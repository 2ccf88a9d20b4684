"""Which images may go, in which order, and how much."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.model.pod import Pod, decode_pod
from agent.pods.garbage.image_plan import (
    HeldImage,
    ImageAge,
    ImageRules,
    aged,
    bytes_to_free,
    full_names,
    too_old,
    unused,
    used,
    wanted_images,
)
from agent.pods.image_rewrites import NO_REWRITES, Rewrites

GIB = 2**30
RULES = ImageRules(85, 80, 120, 0)
DIGEST = "sha256:" + "a" * 64


def image(name: str, pinned: bool = False) -> HeldImage:
    return HeldImage(f"sha256:{name}", frozenset({f"docker.io/library/{name}:latest"}), 10, pinned)


def pod(**spec: Any) -> Pod:
    return decode_pod(msgspec.json.encode({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}))


A, B, C = image("a"), image("b"), image("c")


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/shop/web:2", "docker.io/shop/web:2"),
        ("registry.example.com:5000/web", "registry.example.com:5000/web:latest"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"sha256:{'b' * 64}", f"sha256:{'b' * 64}"),
        ("", ""),
    ],
)
def test_an_image_is_known_by_the_name_that_the_runtime_gives_it(written: str, full: str) -> None:
    assert full in full_names(written)


def test_a_pod_wants_the_images_of_all_its_containers_and_image_volumes() -> None:
    wanted = wanted_images(
        pod(
            containers=[{"name": "main", "image": "main"}],
            initContainers=[{"name": "init", "image": "init"}],
            ephemeralContainers=[{"name": "debug", "image": "debug"}],
            volumes=[{"name": "v", "image": {"reference": "data"}}, {"name": "e", "emptyDir": {}}],
        ),
        NO_REWRITES,
    )
    assert {f"docker.io/library/{name}:latest" for name in ("main", "init", "debug", "data")} <= wanted


def test_a_pod_wants_its_images_also_by_the_names_that_they_are_pulled_under() -> None:
    wanted = wanted_images(
        pod(containers=[{"name": "main", "image": "main"}, {"name": "bad", "image": "Bad"}]),
        Rewrites((("docker.io/library", "r.example/hub"),)),
    )
    assert wanted == {"main", "docker.io/library/main:latest", "r.example/hub/main:latest", "Bad"}


def test_an_image_is_used_by_its_id_as_by_any_of_its_names() -> None:
    held = [A, B, C]
    assert used(held, {"sha256:a", "docker.io/library/b:latest", "docker.io/library/d:latest"}) == {A.id, B.id}


def test_an_image_is_as_old_as_it_was_seen_and_unused_since_it_was_last_used() -> None:
    ages = aged({}, [A, B], {A.id}, 10)
    ages = aged(ages, [A, B, C], frozenset(), 20)
    assert ages == {A.id: ImageAge(10, 10), B.id: ImageAge(10), C.id: ImageAge(20)}
    assert aged(ages, [C], frozenset(), 30) == {C.id: ImageAge(20)}


def test_what_was_never_used_goes_first_and_then_what_was_not_used_for_longest() -> None:
    ages = {A.id: ImageAge(0, 500), B.id: ImageAge(0, 400), C.id: ImageAge(300)}
    assert unused([A, B, C], frozenset(), ages, RULES, 1000) == (C, B, A)


def test_what_is_used_or_pinned_or_came_just_now_stays() -> None:
    pinned = image("p", pinned=True)
    ages = {A.id: ImageAge(0, 1000), B.id: ImageAge(900), C.id: ImageAge(0), pinned.id: ImageAge(0)}
    assert unused([A, B, C, pinned], {A.id}, ages, RULES, 1000) == (C,)


@pytest.mark.parametrize(
    ("available", "wanted"),
    [
        (16 * GIB, 0),
        (15 * GIB + 1, 5 * GIB - 1),  # 85 %, for parts of a percent count as used
        (15 * GIB, 5 * GIB),
        (0, 20 * GIB),
        (200 * GIB, 0),
    ],
)
def test_from_the_high_threshold_on_as_much_is_freed_as_leads_to_the_low_one(available: int, wanted: int) -> None:
    assert bytes_to_free(100 * GIB, available, RULES) == wanted


def test_an_image_too_long_unused_goes_however_much_room_there_is() -> None:
    ages = {A.id: ImageAge(0, 500), B.id: ImageAge(600), C.id: ImageAge(100)}
    rules = ImageRules(85, 80, 120, 450)
    assert too_old([A, B, C], ages, rules, 1000) == (A, C)
    assert too_old([A, B, C], ages, RULES, 10**9) == ()


@pytest.mark.parametrize(
    ("rules", "on"), [(RULES, True), (ImageRules(100, 80), False), (ImageRules(100, 80, 1, 2), True)]
)
def test_a_threshold_of_a_hundred_and_no_age_switch_it_off(rules: ImageRules, on: bool) -> None:
    assert rules.is_on is on
