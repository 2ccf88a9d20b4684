"""The routes that tell of the node itself: its health, its pods, its settings.

In: the provider, and every pod with its status. Out: what a kubelet answers, in its form. The health of `syncloop` is
that of the provider: whether pods can be looked after at all; of `cluster`, whether this node's own cluster answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from agent.config import Settings, Taint
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.option_table import OPTIONS
from agent.providers.contract import TellsHealth
from agent.server.ports import Pods, PodStatuses

_SECRET = frozenset({"store", "policy_default"})
"""Settings that may have a password in them."""
_CHECKS = ("ping", "log", "syncloop")
_ALONE = ("cluster",)
"""Not part of the whole: whoever starts an agent anew that is not well would not help."""


class NodeRoutes:
    def __init__(
        self, settings: Settings, provider: Pods, statuses: PodStatuses, foreign: Callable[[], str] = str
    ) -> None:
        """`foreign`: why what answers as the API server is another cluster's; empty where it is not."""
        self._foreign = foreign
        self._settings = settings
        self._provider = provider
        self._statuses = statuses

    def readable(self) -> Iterable[web.AbstractRouteDef]:
        """What the port without authentication has too."""
        yield web.get("/healthz", self._healthz)
        yield web.get("/healthz/{check}", self._check)
        yield from _with_slash("/pods", self._pods)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        yield from self.readable()
        yield from _with_slash("/runningpods", self._running_pods)
        yield web.get("/configz", self._configz, allow_head=False)

    async def _healthz(self, request: web.Request) -> web.Response:
        excluded = frozenset(request.query.getall("exclude", []))
        failed = {name: why for name in _CHECKS if name not in excluded and (why := await self._failure(name))}
        lines = [f"[-]{name} failed: reason withheld" if name in failed else f"[+]{name} ok" for name in _CHECKS]
        if failed:
            return _health(500, "\n".join([*lines, "healthz check failed", ""]))
        return _health(200, "\n".join([*lines, "healthz check passed", ""]) if "verbose" in request.query else "ok")

    async def _check(self, request: web.Request) -> web.Response:
        name = request.match_info["check"]
        if name not in _CHECKS + _ALONE:
            return _health(404, "404 page not found")
        why = await self._failure(name)
        return _health(500, f"internal server error: {why}") if why else _health(200, "ok")

    async def _failure(self, check: str) -> str:
        """Empty: it is well. That an answer comes at all says so of the others."""
        if check == "syncloop" and isinstance(self._provider, TellsHealth):
            return (await self._provider.health()).down
        if check == "cluster" and (why := self._foreign()):
            return f"the API server that answers is not taken: {why}"
        return ""

    async def _pods(self, _request: web.Request) -> web.Response:
        return _list(_item(record, status) for record, status in self._statuses.with_status())

    async def _running_pods(self, _request: web.Request) -> web.Response:
        """Pods of which a container runs, with what a runtime knows of them."""
        return _list(
            _outline(record, names) for record, status in self._statuses.with_status() if (names := _up(status))
        )

    async def _configz(self, _request: web.Request) -> web.Response:
        told = {
            option.file_key: _plain(getattr(self._settings, option.field))
            for option in OPTIONS
            if option.field not in _SECRET
        }
        return _json({"kubeletconfig": told})


def _with_slash(path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterable[web.RouteDef]:
    yield web.get(path, handler, allow_head=False)
    yield web.get(path + "/", handler, allow_head=False)


def _health(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers={"X-Content-Type-Options": "nosniff"})


def _list(items: Iterable[dict[str, Any]]) -> web.Response:
    return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(items)})


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _item(record: PodRecord, status: Any) -> dict[str, Any]:
    """The pod as it came, with our status for its own."""
    pod = msgspec.json.decode(record.raw, type=dict[str, msgspec.Raw])
    return pod if status is None else {**pod, "status": status}


def _up(status: PodStatus | None) -> frozenset[str]:
    """Names of the containers that run."""
    if status is None:
        return frozenset()
    groups = (status.initContainerStatuses, status.containerStatuses, status.ephemeralContainerStatuses)
    return frozenset(one.name for group in groups for one in group or () if one.state.running is not None)


def _outline(record: PodRecord, names: frozenset[str]) -> dict[str, Any]:
    meta = record.pod.metadata
    containers = [{"name": c.name, "image": c.image} for c in record.pod.spec.all_containers if c.name in names]
    identity = {"name": meta.name, "namespace": meta.namespace, "uid": record.uid}
    return {"metadata": identity, "spec": {"containers": containers}, "status": {}}


def _plain(value: object) -> object:
    match value:
        case Path():
            return str(value)
        case tuple():
            return [_plain(one) for one in value]
        case Taint():
            return msgspec.structs.asdict(value)
        case _:
            return value
