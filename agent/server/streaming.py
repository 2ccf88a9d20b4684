"""The routes of exec, attach, port-forward and run: parameters and pods as a kubelet takes them, then the session.

In: an upgrade request of the API server. Out: a session by the provider's streaming URL where it has one, else one that
the agent itself serves on the provider's methods; 501 where it has neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from aiohttp import web
from multidict import MultiMapping

from agent.errors import NotFound, Permanent
from agent.model.record import PodRecord
from agent.providers.streaming import (
    AttachesToContainer,
    AttachIO,
    ByteStream,
    ForwardsPorts,
    RunsInContainer,
    RunsToEnd,
    Streams,
    StreamsByUrl,
)
from agent.server import port_forward, remote_command
from agent.server.log_query import BAD_REQUEST
from agent.server.ports import Pods
from agent.server.runtime_command import run_at
from agent.server.splice import IDLE_S, splice

_POD = "/{namespace}/{pod}"
_CONTAINER = _POD + "/{container}"
_WITH_UID = _POD + "/{uid}"
_CONTAINER_WITH_UID = _WITH_UID + "/{container}"
_YES = frozenset({"1", "true"})
_NAMES = {"stdin": "input", "stdout": "output", "stderr": "error"}
"""Parameters by their names at the API server, and how it names them to a kubelet."""


class StreamingRoutes:
    def __init__(self, provider: Pods, idle_s: float = IDLE_S) -> None:
        """`idle_s`: a session without a byte for so long is ended."""
        self._provider = provider
        self._idle_s = idle_s

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        for path, handler in (("/exec", self.exec), ("/attach", self.attach)):
            for form in (_CONTAINER, _CONTAINER_WITH_UID):
                yield from (web.get(path + form, handler, allow_head=False), web.post(path + form, handler))
        for form in (_POD, _WITH_UID):
            path = "/portForward" + form
            yield from (web.get(path, self.forward, allow_head=False), web.post(path, self.forward))
        for form in (_CONTAINER, _CONTAINER_WITH_UID):
            yield web.post("/run" + form, self._run)

    async def exec(self, request: web.Request) -> web.StreamResponse:
        streams = requested_streams(request.query)
        command = request.query.getall("command", [])
        namespace, pod, container = await self._target(request)
        _check_upgrade(request)
        if not command:
            raise Permanent(BAD_REQUEST, "no command: give the parameter `command`, once a word")
        if isinstance(self._provider, StreamsByUrl):
            url = await self._provider.exec_url(namespace, pod, container, command, streams)
            return await _at(url, request, streams, self._idle_s)
        if isinstance(provider := self._provider, RunsInContainer):

            async def run(io: AttachIO) -> int:
                return await provider.run_in_container(namespace, pod, container, command, io)

            return await remote_command.serve(request, streams, run)
        return _not_implemented("exec")

    async def attach(self, request: web.Request) -> web.StreamResponse:
        streams = requested_streams(request.query)
        namespace, pod, container = await self._target(request)
        _check_upgrade(request)
        if isinstance(self._provider, StreamsByUrl):
            url = await self._provider.attach_url(namespace, pod, container, streams)
            return await _at(url, request, streams, self._idle_s)
        if isinstance(provider := self._provider, AttachesToContainer):

            async def attach(io: AttachIO) -> int:
                return await provider.attach_to_container(namespace, pod, container, io)

            return await remote_command.serve(request, streams, attach)
        return _not_implemented("attach")

    async def forward(self, request: web.Request) -> web.StreamResponse:
        ports = requested_ports(request)
        record = await self._pod(request)
        _check_upgrade(request)
        meta = record.pod.metadata
        if isinstance(self._provider, StreamsByUrl):
            url = await self._provider.port_forward_url(meta.namespace, meta.name, ports)
            return await splice(request, url, self._idle_s)
        if isinstance(provider := self._provider, ForwardsPorts):

            async def forward(port: int, connection: ByteStream) -> None:
                await provider.port_forward(meta.namespace, meta.name, port, connection)

            return await port_forward.serve(request, forward)
        return _not_implemented("port-forward")

    async def _run(self, request: web.Request) -> web.StreamResponse:
        namespace, pod, container = await self._target(request)
        command = request.query.get("cmd", "").split()
        if not command:
            raise Permanent(BAD_REQUEST, "no command: give the parameter `cmd`")
        if isinstance(self._provider, RunsToEnd):
            done = await self._provider.run_to_end(namespace, pod, container, command)
        elif isinstance(provider := self._provider, RunsInContainer):

            async def run(io: AttachIO) -> int:
                return await provider.run_in_container(namespace, pod, container, command, io)

            done = await remote_command.output_of(run)
        else:
            return _not_implemented("run")
        if done.exit_code != 0:
            ended = f"command {' '.join(command)!r} exited with {done.exit_code}: "
            return web.Response(status=500, body=ended.encode() + done.output, content_type="text/plain")
        return web.Response(body=done.output, content_type="text/plain")

    async def _target(self, request: web.Request) -> tuple[str, str, str]:
        """Namespace, pod and container, which exist. Raises NotFound."""
        record = await self._pod(request)
        spec, container = record.pod.spec, request.match_info["container"]
        if container not in (c.name for c in spec.all_containers):
            raise NotFound(f'container not found ("{container}")')
        return record.pod.metadata.namespace, record.pod.metadata.name, container

    async def _pod(self, request: web.Request) -> PodRecord:
        try:
            record = await self._provider.get_pod(request.match_info["namespace"], request.match_info["pod"])
        except NotFound as error:
            raise NotFound("pod does not exist") from error
        if (uid := request.match_info.get("uid")) is not None and uid != record.uid:
            raise NotFound(f"pod does not exist: its UID is not {uid}")
        return record


async def _at(url: str, request: web.Request, streams: Streams, idle_s: float) -> web.StreamResponse:
    if remote_command.wants_version_5(request):
        return await remote_command.serve(request, streams, partial(run_at, url, streams))
    return await splice(request, url, idle_s)


def requested_streams(query: MultiMapping[str]) -> Streams:
    """Raises Permanent where there is none at all."""
    stdin, stdout, stderr = (_flag(query, name) or _flag(query, older) for name, older in _NAMES.items())
    tty = _flag(query, "tty")
    streams = Streams(stdin, stdout, stderr and not tty, tty)
    if not (streams.stdin or streams.stdout or streams.stderr):
        raise Permanent(BAD_REQUEST, "at least one of stdin, stdout and stderr must be asked for")
    return streams


def requested_ports(request: web.Request) -> list[int]:
    """From the query, where a WebSocket client says them; SPDY has them in its streams. Raises Permanent."""
    words = [word for text in request.query.getall("port", []) for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word[:6]) < 65536 for word in words):
        raise Permanent(BAD_REQUEST, f"port: {','.join(words)!r} is not a list of ports from 1 to 65535")
    return [int(word) for word in words]


def _flag(query: MultiMapping[str], name: str) -> bool:
    return query.get(name, "").lower() in _YES


def _check_upgrade(request: web.Request) -> None:
    connection = ",".join(request.headers.getall("Connection", [])).lower()
    if "upgrade" not in (word.strip() for word in connection.split(",")) or "Upgrade" not in request.headers:
        raise Permanent(BAD_REQUEST, "Upgrade request required")
    if request.can_read_body:
        raise Permanent(BAD_REQUEST, "an upgrade request has no body")


def _not_implemented(what: str) -> web.Response:
    return web.Response(status=501, text=f"{what} is not implemented by this node's provider")
