"""Waits that a pod does not need any more are ended, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from agent.pods.interrupt import Interrupt


async def wait_for_ever(interrupt: Interrupt, begun: asyncio.Event, unwinding_turns: int = 0) -> bool:
    async with interrupt.scope() as scope:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(unwinding_turns):
                await asyncio.sleep(0)
    return scope.interrupted


async def test_an_interrupt_ends_every_open_wait() -> None:
    interrupt, begun = Interrupt(), (asyncio.Event(), asyncio.Event())
    waits = [asyncio.create_task(wait_for_ever(interrupt, b)) for b in begun]
    for b in begun:
        await b.wait()
    interrupt.interrupt()
    assert await asyncio.gather(*waits) == [True, True]


async def test_a_second_interrupt_while_the_first_unwinds_is_none() -> None:
    interrupt, begun = Interrupt(), asyncio.Event()
    wait = asyncio.create_task(wait_for_ever(interrupt, begun, unwinding_turns=5))
    await begun.wait()
    interrupt.interrupt()
    await asyncio.sleep(0)
    interrupt.interrupt()
    assert await wait


async def test_an_interrupt_without_waits_is_not_remembered() -> None:
    interrupt = Interrupt()
    interrupt.interrupt()
    async with interrupt.scope() as scope:
        await asyncio.sleep(0)
    assert not scope.interrupted


async def test_a_cancellation_from_outside_passes_through() -> None:
    interrupt, begun = Interrupt(), asyncio.Event()
    wait = asyncio.create_task(wait_for_ever(interrupt, begun))
    await begun.wait()
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait


async def test_a_time_out_of_the_work_itself_is_an_error() -> None:
    interrupt = Interrupt()
    with pytest.raises(TimeoutError, match="of its own"):
        async with interrupt.scope():
            raise TimeoutError("of its own")
