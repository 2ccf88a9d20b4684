"""The agent from its start to its stop: open the record, the known time and the side of the API server, then live.

In: the settings and credentials. Out: an agent that runs until it is told to stop (SIGTERM, SIGINT); pods keep running.
What it is made of is in `agent.app`.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from loguru import logger

from agent.api_side import cluster_side, standalone_side
from agent.app import Agent
from agent.clock import SystemClock
from agent.config import Settings
from agent.kube.credentials import Credentials
from agent.node.timekeeper import Timekeeper
from agent.store.opening import open_record


async def run(settings: Settings, credentials: Credentials | None) -> None:
    """Run the agent until it is told to stop; standalone without credentials.

    Raises ConfigError for wrong settings, or the error that ended it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, credentials, stop)


async def serve(settings: Settings, credentials: Credentials | None, stop: asyncio.Event) -> None:
    """The agent without a process of its own: until `stop` is set. Raises as `run`."""
    async with AsyncExitStack() as stack:
        agent = await _build(settings, credentials, stack)
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(agent.live(), name="agent")
            await stop.wait()
            logger.info("stopping; pods keep running")
            await agent.leave()
            life.cancel()


async def _build(settings: Settings, credentials: Credentials | None, stack: AsyncExitStack) -> Agent:
    store = await open_record(settings, SystemClock())
    stack.push_async_callback(store.close)
    clock = await Timekeeper.load(store, corrigible=credentials is not None)
    agent: Agent
    if credentials is None:
        side = standalone_side(store)
    else:
        side = cluster_side(
            settings,
            credentials,
            store,
            clock,
            stack,
            objects_changed=lambda pod_uid: agent.objects_changed(pod_uid),
            seen_node_uid=lambda: agent.seen_node_uid,
        )
    side.jobs.append(("known time", clock.run()))
    agent = Agent(settings, store, side, clock)
    return agent
