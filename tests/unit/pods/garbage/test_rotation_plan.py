"""Which of a container's log files go, are compressed, and what the full one is called."""

from __future__ import annotations

from datetime import datetime

import pytest

from agent.pods.garbage.rotation_plan import excess, plan_rotation, unfinished

NOW = datetime(2026, 3, 1, 12, 0, 0)


def stamped(second: int, suffix: str = "") -> str:
    return f"0.log.20260301-1159{second:02}{suffix}"


def test_the_first_rotation_only_gives_the_full_file_another_name() -> None:
    plan = plan_rotation("0.log", ["0.log"], 5, NOW)
    assert (plan.remove, plan.move_to, plan.compress) == ((), "0.log.20260301-120000", ())


def test_what_was_rotated_before_is_compressed_and_what_is_now_rotated_is_not() -> None:
    plan = plan_rotation("0.log", ["0.log", stamped(1)], 5, NOW)
    assert plan.compress == (stamped(1),)
    assert plan.move_to not in plan.compress


@pytest.mark.parametrize(
    ("most", "removed"),
    [(5, [1]), (4, [1, 2]), (3, [1, 2, 3]), (2, [1, 2, 3, 4]), (6, [])],
)
def test_with_the_new_one_and_the_current_one_there_are_as_many_as_may_be_the_oldest_go(
    most: int, removed: list[int]
) -> None:
    there = [stamped(n, ".gz") for n in (4, 2, 1, 3)]
    plan = plan_rotation("0.log", ["0.log", *there], most, NOW)
    assert plan.remove == tuple(stamped(n, ".gz") for n in removed)
    assert len(there) - len(plan.remove) + 2 == most or not removed


def test_half_an_archive_and_the_text_of_a_whole_one_are_removed() -> None:
    names = ["0.log", stamped(1), stamped(1, ".gz"), stamped(2), stamped(2, ".tmp")]
    assert unfinished("0.log", names) == (stamped(1), stamped(2, ".tmp"))
    plan = plan_rotation("0.log", names, 5, NOW)
    assert plan.remove == (stamped(1), stamped(2, ".tmp"))
    assert plan.compress == (stamped(2),)


@pytest.mark.parametrize("newest", ["0.log.20260301-120000", "0.log.20310101-000000.gz"])
def test_a_second_rotation_in_a_second_or_a_clock_that_was_set_back_costs_no_file(newest: str) -> None:
    plan = plan_rotation("0.log", ["0.log", newest], 5, NOW)
    assert plan.move_to > newest.removesuffix(".gz")
    assert plan.remove == ()


def test_other_containers_and_other_peoples_files_are_left_alone() -> None:
    names = ["0.log", "0.log.old", "0.log.20260301", "10.log.20260301-115901", "0.log.20260301-115901.xz", "notes"]
    plan = plan_rotation("0.log", names, 2, NOW)
    assert (plan.remove, plan.compress) == ((), ())
    assert unfinished("0.log", names) == ()


def test_digits_that_are_no_date_do_not_stop_it() -> None:
    assert plan_rotation("0.log", ["0.log.20269999-999999"], 5, NOW).move_to == "0.log.20260301-120000"


def test_beside_the_current_file_one_less_than_may_be_there_stay() -> None:
    names = ["0.log", stamped(1, ".gz"), stamped(2, ".gz"), stamped(3), stamped(3, ".tmp")]
    assert excess("0.log", names, 2) == (stamped(3, ".tmp"), stamped(1, ".gz"), stamped(2, ".gz"))
    assert excess("0.log", names, 9) == (stamped(3, ".tmp"),)
