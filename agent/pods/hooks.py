"""Run a container's lifecycle hooks: postStart and preStop.

In: the container and its handler. Out: nothing, or what went wrong, with the kubelet's events. What a hook printed goes
into the log and the container's status, never into an event: it may hold secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Permanent
from agent.model.container import HTTPGetAction, LifecycleHandler
from agent.model.objects import ObjectReference
from agent.pods.ports import Events
from agent.pods.probes.attempt import Exec
from agent.pods.probes.http import BrokenOff, HttpGetter, NoAnswer
from agent.pods.probes.target import Target, host_port

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

    async def pre_stop(self, target: Target) -> None:
        """Run preStop, however long it takes: the caller ends it with the grace period. A failure is only reported."""
        lifecycle = target.container.lifecycle
        if lifecycle is None or lifecycle.preStop is None:
            return
        if problem := await self._run(target, lifecycle.preStop):
            self._failed(target, "PreStopHook", problem)

    async def _run(self, target: Target, handler: LifecycleHandler) -> str:
        """Run a handler to its end; what went wrong, empty where nothing did."""
        meta = target.pod.metadata
        of = f'for Container "{target.container.name}" in Pod "{meta.name}_{meta.namespace}({meta.uid})"'
        if handler.exec is not None:
            problem = await self._exec(target, handler.exec.command)
            return problem and f"Exec lifecycle hook ([{' '.join(handler.exec.command)}]) {of} failed - {problem}"
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
            return f'error: {error}, message: ""'
        if ended.exit_code == 0:
            return ""
        output = (ended.stdout + ended.stderr).decode(errors="replace")
        said = f"command '{' '.join(command)}' exited with {ended.exit_code}: {ended.stderr.decode(errors='replace')}"
        return f'error: {said}, message: "{output}"'

    async def _get(self, target: Target, action: HTTPGetAction) -> str:
        """Any answer is a good one."""
        try:
            try:
                await self._http.get(target, action, timeout_s=None, purpose="lifecycle")
            except NoAnswer as error:
                if not error.not_tls:
                    raise
                # What proves who asks is for a server that proved itself: it does not go out in the clear.
                plain = tuple(h for h in action.httpHeaders if h.name.lower() != "authorization")
                action = msgspec.structs.replace(action, scheme="HTTP", httpHeaders=plain)
                await self._http.get(target, action, timeout_s=None, purpose="lifecycle")
                at = host_port(action.host or target.pod_ip, target.port(action.port))
                message = f"request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded"
                self._events.record(ObjectReference.of(target.pod), "Warning", "LifecycleHTTPFallback", message)
        except BrokenOff:
            return ""
        except (NoAnswer, ValueError) as error:
            return str(error)
        return ""

    def _failed(self, target: Target, hook: str, problem: str) -> None:
        self._log(target).warning("{}", problem)
        self._events.record(target.reference, "Warning", f"Failed{hook}", f"{hook} failed")

    def _log(self, target: Target) -> Logger:
        return logger.bind(pod=target.pod.full_name, container=target.container.name)
