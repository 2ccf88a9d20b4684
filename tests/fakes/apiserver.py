"""A small API server on the real wire: HTTP on loopback, list and watch with history, and faults on demand.

It keeps objects of any resource with UIDs and resourceVersions, answers as an API server does where the agent depends
on it (paging, bookmarks, 410 Gone, UID preconditions, strategic merge of statuses, bound tokens), and remembers every
request. It knows nothing of admission or authorization: those are the real one's, in the integration tests.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

Object = dict[str, Any]
KINDS = {
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "events": "Event",
    "nodes": "Node",
    "leases": "Lease",
    "serviceaccounts": "ServiceAccount",
    "namespaces": "Namespace",
}
CLUSTER_WIDE = frozenset({"nodes", "namespaces"})


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str
    authorization: str
    accept: str = ""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("1", "true")


@dataclass
class Fault:
    """An answer instead of the real one; `status` 0 closes the connection, -1 never answers."""

    status: int
    matches: Callable[[Request], bool]
    times: int
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class _Key:
    prefix: str
    resource: str
    namespace: str
    name: str


@dataclass(eq=False)
class _Watch:
    collection: _Key
    query: dict[str, str]
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)


class Refused(Exception):
    def __init__(
        self, code: int, reason: str, message: str, field_name: str = "", about: tuple[str, str] | None = None
    ) -> None:
        """`about`: resource and name of what is refused."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field_name = field_name
        self.about = about


class FakeApiServer:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tokens_issued = 0
        self.token_life_s = 3600.0
        self.page_limit: int | None = None
        self.flow_schema = ""
        """UID that answers name; empty: they name none."""
        self._objects: dict[_Key, Object] = {}
        self._version = 100
        self._compacted = 0
        self._history: list[tuple[int, str, _Key, Object]] = []
        self._watches: list[_Watch] = []
        self._uids = 0
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()

    # ------------------------------------------------------------ what a test does to it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; again after `stop`, on the same port."""
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """No more answers: connections are closed and refused."""
        self._stopping.set()
        self.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def kubeconfig(self, folder: Path, user: str = "token: secret-token") -> Path:
        path = folder / "kubeconfig"
        path.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters: [{{name: k, cluster: {{server: '{self.url}'}}}}]\n"
            f"users: [{{name: u, user: {{{user}}}}}]\n"
            "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        )
        return path

    def put(
        self, resource: str, name: str, namespace: str = "default", prefix: str = "/api/v1", **content: Any
    ) -> Object:
        """Create or change an object, as somebody with kubectl does."""
        key = _Key(prefix, resource, "" if resource in CLUSTER_WIDE else namespace, name)
        old = self._objects.get(key)
        return self._store(key, {**(old or {}), **copy.deepcopy(content)})

    def get(self, resource: str, name: str, namespace: str = "default", prefix: str = "/api/v1") -> Object | None:
        return self._objects.get(_Key(prefix, resource, "" if resource in CLUSTER_WIDE else namespace, name))

    def all(self, resource: str) -> list[Object]:
        return [value for key, value in self._objects.items() if key.resource == resource]

    def remove(self, resource: str, name: str, namespace: str = "default", prefix: str = "/api/v1") -> None:
        self._remove(_Key(prefix, resource, "" if resource in CLUSTER_WIDE else namespace, name))

    def fail(
        self,
        status: int,
        times: int = 1,
        matches: Callable[[Request], bool] = lambda _: True,
        reason: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Fault:
        fault = Fault(status, matches, times, reason, headers or {}, body)
        self.faults.append(fault)
        return fault

    def compact(self) -> None:
        """Forget history: a watch from before now is Gone."""
        self._version += 1
        self._compacted = self._version
        self._history.clear()

    def bookmark(self) -> None:
        self._version += 1
        self.say(_event("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}}))

    def say(self, raw: bytes) -> None:
        """Bytes into every open watch."""
        for watch in self._watches:
            watch.pieces.put_nowait(raw)

    def end_watches(self) -> None:
        """As an idle time-out does."""
        for watch in self._watches:
            watch.pieces.put_nowait(None)

    @property
    def open_watches(self) -> int:
        return len(self._watches)

    def seen(self, method: str, part: str = "") -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]

    # ------------------------------------------------------------ HTTP

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        answer = await self._respond(http)
        if not answer.prepared:
            answer.headers.update(self._marked())
        return answer

    def _marked(self) -> dict[str, str]:
        return {"X-Kubernetes-PF-FlowSchema-UID": self.flow_schema} if self.flow_schema else {}

    async def _respond(self, http: web.Request) -> web.StreamResponse:
        raw = await http.read()
        request = Request(
            http.method,
            http.path,
            dict(http.query),
            json.loads(raw) if raw and http.content_type.endswith("json") else None,
            http.content_type,
            http.headers.get("Authorization", ""),
            http.headers.get("Accept", ""),
        )
        self.requests.append(request)
        for fault in self.faults:
            if fault.times and fault.matches(request):
                fault.times -= 1
                return await self._fault(http, fault)
        try:
            return await self._answer(http, request)
        except Refused as error:
            return _status(error.code, error.reason, str(error), error.field_name, error.about)

    async def _fault(self, http: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.status == -1:
            await self._stopping.wait()
        if fault.status <= 0:
            assert http.transport is not None
            http.transport.close()
            return web.Response()
        if fault.body is not None:
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        answer = _status(fault.status, fault.reason, f"injected {fault.status}")
        answer.headers.update(fault.headers)
        return answer

    async def _answer(self, http: web.Request, request: Request) -> web.StreamResponse:
        key, sub = _parse(request.path)
        match request.method:
            case "GET" if key.name:
                return _json(self._found(key))
            case "GET" if request.is_watch:
                return await self._watch(http, key, request.query)
            case "GET":
                return _json(self._list(key, request.query))
            case "POST" if sub == "token":
                return _json(self._token(request.body), 201)
            case "POST":
                return _json(self._create(key, request.body), 201)
            case "PUT":
                old = self._found(key)
                sent = request.body["metadata"].get("resourceVersion")
                if sent not in (None, old["metadata"]["resourceVersion"]):
                    raise Refused(409, "Conflict", "the object has been modified")
                return _json(self._store(key, request.body))
            case "PATCH":
                return _json(self._patch(key, sub, request.body))
            case "DELETE":
                wanted = ((request.body or {}).get("preconditions") or {}).get("uid")
                if wanted not in (None, self._found(key)["metadata"]["uid"]):
                    raise Refused(409, "Conflict", "the UID in the precondition does not match")
                return _json(self._remove(key))
        raise Refused(405, "MethodNotAllowed", request.method)

    def _list(self, key: _Key, query: dict[str, str]) -> Object:
        found = [value for at, value in sorted(self._objects.items(), key=str) if _covers(key, query, at, value)]
        start = int(query.get("continue") or 0)
        limit = self.page_limit or int(query.get("limit") or 0) or len(found) or 1
        page = found[start : start + limit]
        more = str(start + limit) if start + limit < len(found) else ""
        # Items of a list do not say what they are.
        items = [{name: value for name, value in item.items() if name not in ("kind", "apiVersion")} for item in page]
        return {
            "kind": f"{KINDS.get(key.resource, key.resource)}List",
            "apiVersion": _api_version(key),
            "metadata": {"resourceVersion": str(self._version), **({"continue": more} if more else {})},
            "items": items,
        }

    async def _watch(self, http: web.Request, key: _Key, query: dict[str, str]) -> web.StreamResponse:
        since = int(query.get("resourceVersion") or 0)
        if since < self._compacted:
            raise Refused(410, "Expired", f"too old resource version: {since} ({self._compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json", **self._marked()})
        watch = _Watch(key, query)
        for version, kind, at, value in self._history:
            if version > since and _covers(key, query, at, value):
                watch.pieces.put_nowait(_event(kind, value))
        self._watches.append(watch)
        try:
            await response.prepare(http)
            while (piece := await watch.pieces.get()) is not None:
                await response.write(piece)
        finally:
            self._watches.remove(watch)
        return response

    # ------------------------------------------------------------ objects

    def _found(self, key: _Key) -> Object:
        if key not in self._objects:
            about = (key.resource, key.name)
            raise Refused(404, "NotFound", f'{key.resource} "{key.name}" not found', about=about)
        return self._objects[key]

    def _create(self, key: _Key, body: Object) -> Object:
        meta = body["metadata"]
        name = meta.get("name") or f"{meta['generateName']}{self._uids + 1}"
        key = _Key(key.prefix, key.resource, key.namespace, name)
        if key in self._objects:
            raise Refused(409, "AlreadyExists", f'{key.resource} "{key.name}" already exists')
        return self._store(key, body)

    def _patch(self, key: _Key, sub: str, body: Object) -> Object:
        old = self._found(key)
        uid = body.get("metadata", {}).get("uid")
        if uid not in (None, old["metadata"]["uid"]):
            raise Refused(422, "Invalid", "metadata.uid: Invalid value: field is immutable", "metadata.uid")
        change = body
        if sub == "status":
            # Of the metadata annotations alone go with a pod's status.
            noted = body.get("metadata", {}).get("annotations", {})
            change = {"status": body.get("status", {}), **({"metadata": {"annotations": noted}} if noted else {})}
        return self._store(key, _merged(old, change))

    def _store(self, key: _Key, content: Object) -> Object:
        self._version += 1
        old = self._objects.get(key)
        if old is None:
            self._uids += 1
        value = copy.deepcopy(content)
        value["kind"] = KINDS.get(key.resource, key.resource)
        value["apiVersion"] = _api_version(key)
        value["metadata"] = {
            **value.get("metadata", {}),
            "name": key.name,
            "uid": old["metadata"]["uid"] if old else f"uid-{self._uids}",
            "resourceVersion": str(self._version),
        }
        if key.namespace:
            value["metadata"]["namespace"] = key.namespace
        self._objects[key] = value
        self._tell("MODIFIED" if old else "ADDED", key, value)
        return value

    def _remove(self, key: _Key) -> Object:
        self._version += 1
        value = self._objects.pop(key)
        value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(self._version)}}
        self._tell("DELETED", key, value)
        return value

    def _tell(self, kind: str, key: _Key, value: Object) -> None:
        self._history.append((self._version, kind, key, value))
        for watch in self._watches:
            if _covers(watch.collection, watch.query, key, value):
                watch.pieces.put_nowait(_event(kind, value))

    def _token(self, body: Object) -> Object:
        self.tokens_issued += 1
        life = min(float(body["spec"].get("expirationSeconds", 3600)), self.token_life_s)
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=life)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "spec": body["spec"],
            "status": {
                "token": f"token-{self.tokens_issued}",
                "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }


@asynccontextmanager
async def running_api_server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _parse(path: str) -> tuple[_Key, str]:
    parts = path.strip("/").split("/")
    size = 2 if parts[0] == "api" else 3
    prefix, rest = "/" + "/".join(parts[:size]), parts[size:]
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, sub = [*rest, "", "", ""][:3]
    if not resource:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return _Key(prefix, resource, namespace, name), sub


def _covers(collection: _Key, query: dict[str, str], key: _Key, value: Object) -> bool:
    if (collection.prefix, collection.resource) != (key.prefix, key.resource):
        return False
    if collection.namespace not in ("", key.namespace):
        return False
    return all(_field(value, name) == wanted for name, wanted in _selectors(query))


def _selectors(query: dict[str, str]) -> Iterator[tuple[str, str]]:
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, wanted = part.partition("=")
        yield name, wanted


def _field(value: Object, path: str) -> Any:
    found: Any = value
    for part in path.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found


def _merged(old: Any, change: Any) -> Any:
    """Strategic merge as far as pod statuses need it: conditions by type, addresses by ip, other lists whole."""
    if not isinstance(old, dict) or not isinstance(change, dict):
        return change
    result = dict(old)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif name in ("conditions", "podIPs", "hostIPs") and isinstance(value, list):
            result[name] = _merged_list(result.get(name, []), value, "type" if name == "conditions" else "ip")
        elif isinstance(value, list) and {"$patch": "replace"} in value:
            result[name] = [item for item in value if item != {"$patch": "replace"}]
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _merged_list(old: list[Object], change: list[Object], key: str) -> list[Object]:
    if {"$patch": "replace"} in change:
        return [item for item in change if "$patch" not in item]
    result = {item[key]: item for item in old}
    for item in change:
        result[item[key]] = _merged(result.get(item[key], {}), item)
    return list(result.values())


def _api_version(key: _Key) -> str:
    return key.prefix.removeprefix("/apis/").removeprefix("/api/")


def _event(kind: str, value: Object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"


def _json(value: Object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def _status(
    code: int, reason: str, message: str, field_name: str = "", about: tuple[str, str] | None = None
) -> web.Response:
    body: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    if field_name:
        body["details"] = {"causes": [{"reason": "FieldValueInvalid", "field": field_name}]}
    if about:
        body["details"] = {"kind": about[0], "name": about[1]}
    return _json(body, code)
