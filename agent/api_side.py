"""The agent's side of the API server: what talks to it, or stands in its place on a node that has joined none.

In: the settings, the credentials, the record and the known time. Out: the parts, wired to each other and to the guard
that knows the node's cluster, and the jobs that keep them going. Whose word may be believed is decided in `agent.kube`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from agent.config import Settings
from agent.kube.cluster import ClusterGuard, OwnNode
from agent.kube.credentials import Credentials
from agent.kube.events import EventRecorder, LoggedEvents
from agent.kube.objects import RecordedObjects, ReferencedObjects
from agent.kube.rest import Api
from agent.kube.rotation import ClientCertificate
from agent.kube.tokens import ServiceAccountTokens, StandaloneTokens
from agent.node.controller import NODES
from agent.node.timekeeper import Timekeeper
from agent.pods.desired import has_pods_of_api
from agent.pods.ports import Events, Objects, Tokens
from agent.rush import Rush
from agent.store.base import Store

Job = tuple[str, Coroutine[Any, Any, None]]


class ApiSide(msgspec.Struct):
    objects: Objects
    tokens: Tokens
    events: Events
    api: Api | None = None
    guard: ClusterGuard | None = None
    jobs: list[Job] = msgspec.field(default_factory=list)
    rush: Rush = msgspec.field(default_factory=Rush)
    """While it lasts, events wait."""
    drain: Callable[[], Coroutine[Any, Any, None]] | None = None
    forget_unreferenced: Callable[[], Coroutine[Any, Any, None]] | None = None


def standalone_side(store: Store) -> ApiSide:
    return ApiSide(RecordedObjects(store), StandaloneTokens(), LoggedEvents())


def cluster_side(
    settings: Settings,
    credentials: Credentials,
    store: Store,
    clock: Timekeeper,
    stack: AsyncExitStack,
    objects_changed: Callable[[str], None],
    seen_node_uid: Callable[[], str],
) -> ApiSide:
    """`objects_changed` is given the UID of a pod, `seen_node_uid` gives that of the Node: both once the jobs run."""
    node = OwnNode(f"{NODES}/{settings.node_name}", seen_node_uid)
    guard = ClusterGuard(store, node, lambda: has_pods_of_api(store), clock.monotonic)
    credentials.wall = clock.wall
    api = Api(credentials, guard)
    api.dated = clock.heard
    stack.push_async_callback(api.close)
    objects = ReferencedObjects(api, store, objects_changed, clock)
    rush = Rush(clock.monotonic)
    events = EventRecorder(api, settings.node_name, clock, store, rush)
    certificate = ClientCertificate(api, credentials, settings, clock)
    return ApiSide(
        objects=objects,
        tokens=ServiceAccountTokens(api, store, clock, events, objects_changed),
        events=events,
        api=api,
        guard=guard,
        jobs=[
            ("link", api.look_for_it()),
            ("referenced objects", objects.run()),
            ("events", events.run()),
            ("client certificate", certificate.run()),
        ],
        rush=rush,
        drain=events.drain,
        forget_unreferenced=objects.keep_only_retained,
    )
