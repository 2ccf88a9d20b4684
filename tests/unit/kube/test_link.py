"""Pauses end when the API server is back, and waits that a dead link left hanging are broken off."""

from __future__ import annotations

import asyncio

import pytest

from agent.kube.link import HURRIED_S, SILENT_S, Link, Wait


async def forever(seconds: float) -> None:
    await asyncio.get_running_loop().create_future()


async def waits(link: Link, wait: Wait, begun_before_s: float = 0.0) -> bool:
    """Wait for bytes that never come; whether it was broken off."""
    try:
        async with asyncio.timeout(30) as deadline:
            with link.held(wait, deadline):
                wait.since -= begun_before_s
                await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return wait.broken_off
    raise AssertionError


async def test_only_the_first_call_without_an_answer_and_the_first_with_one_are_news() -> None:
    link = Link()
    assert (link.lost(), link.lost(), link.up) == (True, False, False)
    assert (link.answered(0.0), link.answered(0.0), link.up) == (True, False, True)


async def test_a_pause_ends_with_the_return_and_who_asks_is_told() -> None:
    link = Link()
    told: list[bool] = []
    link.on_return(lambda: told.append(link.up))
    link.lost()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if seconds == 10:
            await forever(seconds)

    async with asyncio.TaskGroup() as tasks:
        pause = tasks.create_task(link.pause(10, sleep))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not pause.done()
        link.answered(0.0)
    # Not all at the same moment.
    assert slept[0] == 10
    assert slept[1] <= HURRIED_S
    assert told == [True]


async def test_just_after_the_return_nobody_pauses_long() -> None:
    link = Link()
    link.lost()
    link.answered(0.0)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await link.pause(10, sleep)
    assert slept == [HURRIED_S]


async def test_a_pause_that_is_cancelled_ends() -> None:
    link = Link()
    link.lost()
    async with asyncio.TaskGroup() as tasks:
        pause = tasks.create_task(link.pause(10, forever))
        await asyncio.sleep(0)
        pause.cancel()
    assert pause.cancelled()


async def test_a_silent_watch_is_broken_off_when_a_call_had_no_answer_and_one_that_speaks_is_not() -> None:
    link = Link()
    silent, speaking = Wait(stream=True), Wait(stream=True)
    async with asyncio.TaskGroup() as tasks:
        dead = tasks.create_task(waits(link, silent, SILENT_S + 1))
        alive = tasks.create_task(waits(link, speaking))
        await asyncio.sleep(0)
        link.lost()
        assert await dead
        assert not alive.done()
        alive.cancel()


async def test_a_call_from_before_the_return_is_broken_off_and_a_later_one_is_not() -> None:
    link = Link()
    link.lost()
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        old = tasks.create_task(waits(link, Wait(), 1))
        new = tasks.create_task(waits(link, Wait()))
        await asyncio.sleep(0)
        link.answered(began)
        assert await old
        assert not new.done()
        new.cancel()


@pytest.mark.parametrize("seconds", [0.1, 2.0])
async def test_while_it_answers_a_pause_is_as_long_as_asked(seconds: float) -> None:
    slept: list[float] = []

    async def sleep(asked: float) -> None:
        slept.append(asked)

    await Link().pause(seconds, sleep)
    assert slept == [seconds]
