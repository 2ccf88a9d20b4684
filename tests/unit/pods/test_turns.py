"""So many starts at once, and what a rush is."""

from __future__ import annotations

import asyncio

import pytest

from agent.pods.turns import LONGEST_RUSH_S, StartTurns


async def test_no_more_at_once_than_there_are_turns_and_first_come_first_served() -> None:
    turns, begun, go = StartTurns(2), list[int](), asyncio.Event()

    async def start(number: int) -> None:
        async with turns:
            begun.append(number)
            await go.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(start(number))
        await asyncio.sleep(0)
        assert begun == [0, 1]
        go.set()
    assert begun == [0, 1, 2, 3]


async def test_a_rush_lasts_while_something_starts_or_waits_but_not_for_ever() -> None:
    now = 100.0
    turns = StartTurns(1, lambda: now)
    assert not turns.rush
    async with turns:
        assert turns.rush
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), turns:
                pass
        assert turns.rush, "one gave up, one still has its turn"
        now += LONGEST_RUSH_S
        assert not turns.rush
    assert not turns.rush
    async with turns:
        assert turns.rush, "another one"
