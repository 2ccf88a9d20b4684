"""Make one probe: ask the container and say what came back.

In: a `Target` and a probe's spec. Out: an `Outcome`; nothing is raised for what a container or the runtime does wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from agent.errors import EdgeletError
from agent.model.container import HTTPGetAction, Probe, TCPSocketAction
from agent.pods.expansion import expand
from agent.pods.probes import grpc_health
from agent.pods.probes.http import BrokenOff, HttpGetter, NoAnswer, dial_error
from agent.pods.probes.tally import Outcome, Result
from agent.pods.probes.target import Target, go_duration, host_port

_MAX_OUTPUT: Final = 10 * 1024


class Executed(Protocol):
    """How a command in a container ended."""

    @property
    def exit_code(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Exec(Protocol):
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float | None) -> Executed:
        """Run a command in a container and wait for its end. None: as long as it takes.

        Raises TimeoutError, or an EdgeletError once `timeout_s` is over, where it took longer and was killed; an
        EdgeletError before that where the runtime could not run it.
        """


class Attempts:
    """Makes probes of every kind."""

    def __init__(self, runtime: Exec, http: HttpGetter) -> None:
        self._runtime = runtime
        self._http = http

    async def attempt(self, target: Target, probe: Probe) -> Outcome:
        try:
            if probe.exec is not None:
                return await self._exec(target, probe.exec.command, probe.timeoutSeconds)
            if probe.httpGet is not None:
                return await self._http_get(target, probe.httpGet, probe.timeoutSeconds)
            if probe.tcpSocket is not None:
                return await _tcp(target, probe.tcpSocket, probe.timeoutSeconds)
            if probe.grpc is not None:
                address = host_port(target.pod_ip, target.port(probe.grpc.port))
                return await grpc_health.check(address, probe.grpc.service or "", probe.timeoutSeconds)
        except (ValueError, EdgeletError) as error:
            return Outcome(Result.ERROR, str(error))
        return Outcome(Result.ERROR, f"missing probe handler for container {target.container.name}")

    async def _exec(self, target: Target, command: Sequence[str], timeout_s: float) -> Outcome:
        # Only what the spec itself spells out: a value from elsewhere is empty here, as it is for the kubelet.
        literal = {variable.name: variable.value or "" for variable in target.container.env}
        words = [expand(word, literal) for word in command]
        began = time.monotonic()
        try:
            ended = await self._runtime.exec_sync(target.container_id, words, timeout_s)
        except (TimeoutError, EdgeletError) as error:
            # Runtimes report their own timeout as just another failed call: the clock tells which it was.
            if isinstance(error, TimeoutError) or time.monotonic() - began >= timeout_s:
                return Outcome(
                    Result.FAILURE, f'command timed out: "{" ".join(words)}" timed out after {go_duration(timeout_s)}'
                )
            raise
        output = (ended.stdout + ended.stderr)[:_MAX_OUTPUT].decode(errors="replace")
        return Outcome(Result.SUCCESS if ended.exit_code == 0 else Result.FAILURE, output)

    async def _http_get(self, target: Target, action: HTTPGetAction, timeout_s: float) -> Outcome:
        try:
            answer = await self._http.get(target, action, timeout_s=timeout_s, purpose="probe")
        except NoAnswer as error:
            return Outcome(Result.FAILURE, str(error))
        except BrokenOff as error:
            return Outcome(Result.ERROR, str(error), Result.FAILURE)
        if 200 <= answer.status < 300:
            return Outcome(Result.SUCCESS, answer.body)
        if 300 <= answer.status < 400:
            return Outcome(Result.WARNING, f"Probe terminated redirects, Response body: {answer.body}")
        # The body stays out of the event: it may hold what only the container's users should see.
        return Outcome(Result.FAILURE, f"HTTP probe failed with statuscode: {answer.status}")


async def _tcp(target: Target, action: TCPSocketAction, timeout_s: float) -> Outcome:
    host, port = action.host or target.pod_ip, target.port(action.port)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(Result.FAILURE, f"dial tcp {host_port(host, port)}: i/o timeout")
    except OSError as error:
        return Outcome(Result.FAILURE, dial_error(host, port, error))
    writer.transport.abort()
    return Outcome(Result.SUCCESS)
