"""Run a container's lifecycle hooks: postStart and preStop.

In: the container and its handler. Out: nothing, or what went wrong, with the kubelet's events. What a hook printed goes
into the log and the container's status, never into an event: it may hold secrets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from loguru import logger

from agent.errors import EdgeletError, Permanent
from agent.model.container import HTTPGetAction, LifecycleHandler
from agent.pods.ports import Events
from agent.pods.probes.attempt import Exec
from agent.pods.probes.http import HttpGetter, NoAnswer
from agent.pods.probes.target import Target

if TYPE_CHECKING:
    from loguru import Logger

POST_START_ERROR = "PostStartHookError"


class Hooks:
    def __init__(
        self,
        runtime: Exec,
        http: HttpGetter,
        events: Events,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._runtime = runtime
        self._http = http
        self._events = events
        self._sleep = sleep

    async def post_start(self, target: Target) -> None:
        """Run postStart, however long it takes; nothing where the container has none.

        Raises Permanent("PostStartHookError", …): the container must be killed.
        """
        lifecycle = target.container.lifecycle
        if lifecycle is None or lifecycle.postStart is None:
            return
        if problem := await self._run(target, lifecycle.postStart):
            self._failed(target, "PostStartHook", problem)
            raise Permanent(POST_START_ERROR, problem)

    async def pre_stop(self, target: Target, grace_s: float) -> float:
        """Run preStop for at most `grace_s`; the seconds that it took. A failure is reported, never raised."""
        lifecycle = target.container.lifecycle
        if lifecycle is None or lifecycle.preStop is None or grace_s <= 0:
            return 0.0
        began = time.monotonic()
        try:
            async with asyncio.timeout(grace_s):
                problem = await self._run(target, lifecycle.preStop)
        except TimeoutError:
            # Not a failure in itself: the container is stopped now, with what is left of the grace period.
            self._log(target).info("preStop hook took longer than the grace period of {:g} s", grace_s)
        else:
            if problem:
                self._failed(target, "PreStopHook", problem)
        return min(time.monotonic() - began, grace_s)

    async def _run(self, target: Target, handler: LifecycleHandler) -> str:
        """Run a handler to its end; what went wrong, empty where nothing did."""
        of = f'for Container "{target.container.name}" in Pod "{target.pod.full_name}"'
        if handler.exec is not None:
            problem = await self._exec(target, handler.exec.command)
            return problem and f"Exec lifecycle hook ({' '.join(handler.exec.command)}) {of} failed - {problem}"
        if handler.httpGet is not None:
            problem = await self._get(target, handler.httpGet)
            return problem and f"HTTP lifecycle hook ({handler.httpGet.path}) {of} failed - error: {problem}"
        if handler.sleep is not None:
            await self._sleep(handler.sleep.seconds)
            return ""
        # tcpSocket is in the API, and no node has ever run it.
        return f"Cannot run lifecycle hook {of}: it names none of exec, httpGet and sleep"

    async def _exec(self, target: Target, command: tuple[str, ...]) -> str:
        try:
            ended = await self._runtime.exec_sync(target.container_id, command, None)
        except (TimeoutError, EdgeletError) as error:
            return f"error: {error}"
        if ended.exit_code == 0:
            return ""
        output = (ended.stdout + ended.stderr).decode(errors="replace")
        return f'error: command exited with {ended.exit_code}, message: "{output}"'

    async def _get(self, target: Target, action: HTTPGetAction) -> str:
        """Any answer is a good one."""
        try:
            try:
                await self._http.get(target, action, timeout_s=None, purpose="lifecycle")
            except NoAnswer as error:
                if not error.not_tls:
                    raise
                await self._http.get(target, action, timeout_s=None, purpose="lifecycle", scheme="http")
                message = "the HTTPS lifecycle hook got an HTTP response, retry with HTTP succeeded"
                self._events.record(target.reference, "Warning", "LifecycleHTTPFallback", message)
        except (NoAnswer, ValueError) as error:
            return str(error)
        return ""

    def _failed(self, target: Target, hook: str, problem: str) -> None:
        self._log(target).warning("{}", problem)
        self._events.record(target.reference, "Warning", f"Failed{hook}", f"{hook} failed")

    def _log(self, target: Target) -> Logger:
        return logger.bind(pod=target.pod.full_name, container=target.container.name)
