"""Who goes first."""

from __future__ import annotations

import pytest

from agent.model.pod import Pod
from agent.node.eviction.ranking import Candidate, Parts, parts, ranked
from agent.node.eviction.signals import Signal
from agent.stats.figures import PodFigures
from tests.unit.node.eviction.uses import figures, pod


def order(signal: Signal, *pods: tuple[Pod, PodFigures | None], of: Parts | None = None) -> str:
    found = ranked([Candidate(*one) for one in pods], signal, of or Parts())
    return " ".join(one.pod.metadata.name for one in found)


def test_who_uses_more_memory_than_he_asked_for_goes_before_the_greatest_one() -> None:
    modest = (pod("modest", memory="1000"), figures("modest", memory=900))
    greedy = (pod("greedy", memory="10"), figures("greedy", memory=11))
    free = (pod("free"), figures("free", memory=500))
    assert order(Signal.MEMORY, modest, greedy, free) == "free greedy modest"


def test_priority_comes_before_size() -> None:
    dear = (pod("dear", priority=10), figures("dear", memory=900))
    cheap = (pod("cheap", priority=-1), figures("cheap", memory=1))
    plain = (pod("plain"), figures("plain", memory=5))
    assert order(Signal.ALLOCATABLE_MEMORY, dear, plain, cheap) == "cheap plain dear"


def test_who_keeps_to_his_request_goes_last_whatever_his_priority() -> None:
    kept = (pod("kept", priority=-5, memory="10"), figures("kept", memory=10))
    over = (pod("over", priority=100), figures("over", memory=1))
    assert order(Signal.MEMORY, kept, over) == "over kept"


def test_whose_use_nobody_knows_goes_first() -> None:
    known, unknown = (pod("known"), figures("known", memory=900)), (pod("unknown", priority=9), None)
    assert order(Signal.MEMORY, known, unknown) == "unknown known"
    assert order(Signal.NODE_FS, known, unknown) == "unknown known"


def test_for_process_ids_priority_comes_first_and_requests_do_not_matter() -> None:
    bomb = (pod("bomb", priority=1), figures("bomb", processes=900))
    few, many = (pod("few"), figures("few", processes=1)), (pod("many"), figures("many", processes=20))
    assert order(Signal.PIDS, bomb, few, many) == "many few bomb"


@pytest.mark.parametrize(
    ("signal", "own_image_disk", "expected"),
    [
        (Signal.NODE_FS, False, "writer logger keeper"),
        (Signal.NODE_FS, True, "logger keeper writer"),
        (Signal.IMAGE_FS, True, "writer keeper logger"),
    ],
)
def test_only_what_lies_on_the_short_disk_counts(signal: Signal, own_image_disk: bool, expected: str) -> None:
    writer = (pod("writer"), figures("writer", written=300))
    logger = (pod("logger"), figures("logger", log=200))
    keeper = (pod("keeper"), figures("keeper", volume=100, written=1))
    assert order(signal, keeper, logger, writer, of=parts(signal, own_image_disk=own_image_disk)) == expected


def test_a_request_of_ephemeral_storage_protects_and_claims_do_not_count() -> None:
    asked = (pod("asked", ephemeral_storage="1000"), figures("asked", volume=900))
    free = (pod("free"), figures("free", volume=1))
    assert order(Signal.NODE_FS, asked, free) == "free asked"


def test_inodes_are_counted_for_themselves() -> None:
    many = (pod("many", ephemeral_storage="1Gi"), figures("many", inodes=1000))
    large = (pod("large"), figures("large", volume=10**9, inodes=3))
    assert order(Signal.NODE_FS_INODES, large, many) == "many large"
