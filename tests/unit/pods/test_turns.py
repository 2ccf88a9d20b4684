"""So many starts at once, and what was begun first."""

from __future__ import annotations

import asyncio

import pytest

from agent.pods.turns import StartTurns, Turn
from agent.rush import Rush


class Starts:
    """Tasks that note in which order they had their turn, and keep it until `go`."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.order: list[str] = []
        self.go = asyncio.Event()

    async def add(self, turn: Turn, *names: str) -> list[asyncio.Task[None]]:
        made = [self._tasks.create_task(self._start(turn, name)) for name in names]
        await asyncio.sleep(0)
        return made

    async def _start(self, turn: Turn, name: str) -> None:
        async with turn:
            self.order.append(name)
            await self.go.wait()


async def test_no_more_at_once_than_there_are_turns_and_first_come_first_served() -> None:
    turns = StartTurns(2, Rush())
    async with asyncio.TaskGroup() as tasks:
        starts = Starts(tasks)
        await starts.add(turns.new, "a", "b", "c", "d")
        assert starts.order == ["a", "b"]
        starts.go.set()
    assert starts.order == ["a", "b", "c", "d"]


async def test_what_was_begun_goes_before_what_is_new() -> None:
    turns = StartTurns(1, Rush())
    async with asyncio.TaskGroup() as tasks:
        starts = Starts(tasks)
        await starts.add(turns.new, "a", "b", "c")
        await starts.add(turns.begun, "container of a", "of another")
        starts.go.set()
    assert starts.order == ["a", "container of a", "of another", "b", "c"]


async def test_who_gave_up_is_in_the_rush_no_more() -> None:
    rush = Rush()
    turns = StartTurns(1, rush)
    async with turns.new:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), turns.begun:
                pass
        assert turns.rush, "one gave up, one still has its turn"
    assert not turns.rush
    async with asyncio.timeout(1), turns.new:
        pass


@pytest.mark.parametrize("given_first", [True, False])
async def test_a_turn_that_is_given_to_who_gives_up_goes_on_to_the_next(given_first: bool) -> None:
    turns = StartTurns(1, Rush())
    async with asyncio.TaskGroup() as tasks:
        starts = Starts(tasks)
        await turns.new.__aenter__()
        [gives_up] = await starts.add(turns.begun, "gives up")
        await starts.add(turns.new, "next")
        if given_first:
            turns.give_back()
            gives_up.cancel()
        else:
            gives_up.cancel()
            turns.give_back()
        starts.go.set()
    assert starts.order == ["next"]
    async with asyncio.timeout(1), turns.new, asyncio.timeout(1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), turns.new:
                pass
