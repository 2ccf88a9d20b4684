"""Keep the Node object true: register it, report its status, renew its lease, make it again when somebody deletes it.

In: the machine, word of the runtime, and a watch of the own Node. Out: requests to the API server, with no more rights
than a node's own identity has. A status is sent when it changes and after seven and a half minutes at the latest.
Existing labels, taints, capacities of others and conditions of others are left alone. Nothing here touches a pod.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger
from msgspec.structs import replace

from agent.clock import Clock
from agent.config import Settings
from agent.errors import EdgeletError, Forbidden, NotFound
from agent.kube.answers import decode_object
from agent.kube.rest import METADATA, Api
from agent.kube.watch import Listed, Removed, Upserted, list_watch
from agent.model.objects import ObjectReference
from agent.node import status
from agent.node.attached import AttachedVolumes
from agent.node.backoff import Backoff
from agent.node.facts import MachineFacts, read_facts
from agent.node.lease import LeaseKeeper
from agent.node.ports import Events, NodeImage, Runtime, RuntimeHealth
from agent.node.pressure import Pressure

NODES = "/api/v1/nodes"
LOOK_EVERY_S = 10.0
REPORT_EVERY_S, REPORT_SPREAD = 300.0, 1.5
"""Between two reports of a Node to which nothing happens, and how many times that it may be: what was started at once
must not report at once for ever."""
READ_IMAGES_EVERY_S = 30.0
LEAVE_WITHIN_S = 3.0
FIRST_WORD_S = 0.5
PATIENCE_S = 1.5
"""The first word about a runtime that is not there yet waits this long: an agent that starts again beside a running
runtime must not turn its Node NotReady for the moment until it has connected."""

Json = dict[str, Any]
Configure = Callable[[Json], Awaitable[None]]
"""A provider's `configure_node`: it may change the Node before it is sent."""


class NodeController:
    """`run` is the one task of it; `poke` and `leave` may be called from anywhere on the loop."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        runtime: Runtime,
        events: Events,
        clock: Clock,
        *,
        configure: Configure | None = None,
        attached: AttachedVolumes | None = None,
        on_registered: Callable[[], None] | None = None,
        record_trouble: Callable[[], str] = str,
        going_down: Callable[[], str] = str,
        devices: Callable[[], Mapping[str, tuple[int, int]]] = dict,
        seen: Callable[[Json], None] | None = None,
        read_machine: Callable[[Path], MachineFacts] = read_facts,
        pressure: Callable[[], Pressure] = Pressure,
        offered: Callable[[MachineFacts], Mapping[str, str]] | None = None,
    ) -> None:
        """`seen` is given every state of the Node that the API server shows. `offered`: what is allocatable now, where
        that is not what the settings make of the machine.
        """
        self._api = api
        self._settings = settings
        self._runtime = runtime
        self._events = events
        self._clock = clock
        self._configure = configure
        self._attached = attached or AttachedVolumes()
        self._attached.notify(self.poke)
        self._on_registered = on_registered
        self._record_trouble = record_trouble
        self._going_down = going_down
        self._devices = devices
        self._seen = seen
        self._read_machine = read_machine
        self._pressure = pressure
        self._offered = offered
        self._path = f"{NODES}/{settings.node_name}"
        self._known: Json | None = None
        """The Node as the API server last showed it; None: it has none, as far as we know."""
        self._own: Json | None = None
        """The Node as this machine last saw itself, told or not."""
        self._sent: Json | None = None
        """The status that the API server last took from us."""
        self._due_at = 0.0
        """Monotonic seconds."""
        self._health = RuntimeHealth()
        self._images: tuple[NodeImage, ...] | None = None
        self._images_read_at: float | None = None
        self._patient = True
        self._cordoned = False
        self._leaving = ""
        self._look = asyncio.Event()
        self._registered = asyncio.Event()
        self._owned_anew = asyncio.Event()
        """The Node was made (again): the lease is another's."""
        self._first_word = asyncio.Event()
        """Over: nobody waits for it any more."""

    async def run(self) -> None:
        """Until cancelled. Never ends because of the API server: the node's pods run without it."""
        self._events.record(self._reference(), "Normal", "Starting", "Starting edgelet.")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_status(), name="node-status")
            tasks.create_task(self._tick(), name="node-tick")
            tasks.create_task(self._be_patient(), name="node-patience")
            tasks.create_task(self._end_first_word(), name="node-first-word")
            tasks.create_task(self._keep_lease(), name="node-lease")
            tasks.create_task(self._watch(), name="node-watch")

    def poke(self) -> None:
        """Look again now: the runtime went away or came back, or a pressure did."""
        self._look.set()

    async def registered(self) -> None:
        """Return once the API server has the Node (now or from before)."""
        await self._registered.wait()

    async def first_word(self) -> None:
        """Return once the API server was told how the Node is, or did not let itself be told, or after half a second.

        What else a start has to do waits here, so that a Node is not missed for longer than it must be.
        """
        await self._first_word.wait()

    @property
    def uid(self) -> str:
        """The Node's UID, empty until it is registered."""
        return str(self._known["metadata"]["uid"]) if self._known else ""

    @property
    def node(self) -> Json | None:
        """The Node as it is now, whether or not the API server listens; None before the first look at the machine."""
        known, own = self._known, self._own
        if known is None or own is None:
            return known or own
        return {**known, "status": {**(known.get("status") or {}), **own["status"]}}

    async def leave(self, message: str = "edgelet was stopped; its pods keep running") -> None:
        """Say on the Node why the agent goes: an event, and Ready's reason. `run` may still go on, or be over.

        Gives up after three seconds: without an API server there is nobody to tell.
        """
        self._leaving = message
        self._events.record(self._reference(), "Normal", "AgentStopping", message)
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                if self._known is not None:
                    await self._report()
        except (EdgeletError, TimeoutError) as error:
            logger.info("the API server was not told of the stop: {}", error or "no answer in time")

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self._look.set()

    async def _be_patient(self) -> None:
        await self._clock.sleep(PATIENCE_S)
        self._patient = False
        self._look.set()

    async def _end_first_word(self) -> None:
        await self._clock.sleep(FIRST_WORD_S)
        self._first_word.set()

    async def _runtime_settled(self) -> None:
        """Return once the runtime answers, or patience is over."""
        while True:
            self._look.clear()
            await self._ask_runtime()
            if not self._health.down or not self._patient:
                return
            await self._look.wait()

    async def _keep_lease(self) -> None:
        name, duration_s = self._settings.node_name, self._settings.node_lease_duration
        # It is there from the start, to hear of a link that fails before there is a Node.
        keeper = LeaseKeeper(self._api, name, lambda: self.uid, duration_s, self._clock, self._owned_anew)
        await self._registered.wait()
        await keeper.run()

    async def _keep_status(self) -> None:
        backoff = Backoff()
        said = ""
        await self._runtime_settled()
        while True:
            self._look.clear()  # before reading: a poke that comes meanwhile counts
            try:
                if self._known is None:
                    await self._register()
                await self._report()
            except EdgeletError as error:
                self._first_word.set()
                if isinstance(error, NotFound) and self._known is not None:
                    self._gone()
                    continue
                if str(error) != said:
                    said = str(error)
                    logger.warning("the node's status was not reported: {}{}", error, _advice(error))
                await self._api.link.pause(backoff.next(), self._clock.sleep)
            else:
                said = ""
                backoff.reset()
                self._first_word.set()
                await self._look.wait()

    async def _register(self) -> None:
        """Find the Node and give it our labels, or make it."""
        node = await self._wanted([])
        try:
            known = decode_object(await self._api.get(self._path), self._path)
        except NotFound:
            # Conflict: somebody made it in between; the caller's next round finds it.
            self._know(await self._api.post(NODES, msgspec.json.encode(node)))
            self._taken(node["status"], [])
            logger.info("registered node {}", self._settings.node_name)
        else:
            missing = _missing_metadata(node["metadata"], known["metadata"])
            if missing:
                body = msgspec.json.encode({"metadata": missing})
                known = decode_object(await self._api.patch(self._path, body), self._path)
            self._show(known)
            self._sent = None
            self._tell_of_reboot(known, node)
            logger.info("found node {} in the API server", self._settings.node_name)
        self._registered.set()
        self._owned_anew.set()
        if self._on_registered is not None:
            self._on_registered()

    async def _report(self) -> None:
        """Send the status where there is news in it, or where it is due."""
        if self._known is None:
            return
        known = self._known.get("status") or {}
        before = known.get("conditions") or []
        wanted = (await self._wanted(before))["status"]
        due = self._clock.monotonic() >= self._due_at
        if not (due or status.changed(wanted, self._sent) or status.disturbed(wanted, known)):
            return
        body = msgspec.json.encode(status.status_patch(wanted, known))
        await self._api.patch(f"{self._path}/status", body, accept=METADATA)
        if self._known is not None:
            # The whole of it comes by the watch in a moment, and once is enough.
            self._known = {**self._known, "status": status.patched(self._known.get("status") or {}, wanted)}
        self._taken(wanted, before)

    async def _wanted(self, conditions_before: list[Json]) -> Json:
        facts = await asyncio.to_thread(self._read_machine, self._settings.root_dir)
        await self._ask_runtime()
        observed = status.Observed(
            facts=facts,
            health=self._health,
            pressure=self._pressure(),
            images=self._images,
            record_trouble=self._record_trouble(),
            going_down=self._going_down(),
            leaving=self._leaving,
            volumes_in_use=self._attached.in_use,
            allocatable=None if self._offered is None else self._offered(facts),
            devices=self._devices(),
        )
        node = status.node(observed, self._settings, conditions_before, self._clock.wall())
        if self._configure is not None:
            await self._configure(node)
        self._own = node
        return node

    async def _ask_runtime(self) -> None:
        """A runtime that is down keeps its name, version and images of before."""
        now = self._clock.monotonic()
        try:
            self._health = await self._runtime.health()
            if self._health.down:
                return
            if self._images_read_at is None or now - self._images_read_at >= READ_IMAGES_EVERY_S:
                self._images = await self._runtime.images()
                self._images_read_at = now
        except EdgeletError as error:
            self._health = replace(self._health, down=str(error))

    def _know(self, answer: bytes) -> None:
        self._show(decode_object(answer, self._path))

    def _show(self, node: Json) -> None:
        self._known = node
        self._tell_of_cordon(node)
        self._attached.seen(node)
        if self._seen is not None:
            self._seen(node)

    def _taken(self, sent: Json, before: list[Json]) -> None:
        """The API server took this status: remember it, and tell what turned."""
        self._sent = sent
        self._due_at = self._clock.monotonic() + REPORT_EVERY_S * random.uniform(1, REPORT_SPREAD)  # noqa: S311
        for reason, message in status.turned(before, sent["conditions"]):
            self._events.record(self._reference(), "Normal", reason, f"Node {self._settings.node_name}: {message}")
            if before or reason == "NodeReady":  # a new Node's other conditions are no news
                logger.info("{}: {}", reason, message)

    def _tell_of_reboot(self, known: Json, node: Json) -> None:
        before = ((known.get("status") or {}).get("nodeInfo") or {}).get("bootID")
        now = node["status"]["nodeInfo"]["bootID"]
        if before and now and before != now:
            message = f"The machine of node {self._settings.node_name} was rebooted, boot id: {now}"
            self._events.record(self._reference(), "Warning", "Rebooted", message)

    def _tell_of_cordon(self, node: Json) -> None:
        cordoned = bool((node.get("spec") or {}).get("unschedulable"))
        if cordoned != self._cordoned:
            self._cordoned = cordoned
            reason = "NodeNotSchedulable" if cordoned else "NodeSchedulable"
            message = f"Node {self._settings.node_name} status is now: {reason}"
            self._events.record(self._reference(), "Normal", reason, message)

    def _reference(self) -> ObjectReference:
        # Before it is registered a Node is referred to by its name, as kubelets always did; kubectl looks for both.
        return ObjectReference(kind="Node", name=self._settings.node_name, uid=self.uid or self._settings.node_name)

    async def _watch(self) -> None:
        """See the own Node go, or change under our hands."""
        await self._registered.wait()
        selector = f"metadata.name={self._settings.node_name}"
        async with aclosing(list_watch(self._api, NODES, selector, sleep=self._clock.sleep)) as changes:
            async for change in changes:
                match change:
                    case Listed(items=()) if self._is_news(change.resource_version):
                        self._gone()
                    case Removed(object=gone) if gone.meta.uid == self.uid:
                        self._gone()
                    case Listed(items=(found,)) | Upserted(object=found) if self._is_news(found.meta.resourceVersion):
                        self._know(found.raw)
                        self._look.set()

    def _gone(self) -> None:
        if self._known is not None:
            logger.warning("node {} was deleted in the API server: making it again", self._settings.node_name)
        self._known = None
        self._look.set()

    def _is_news(self, resource_version: str) -> bool:
        """The watch lags behind our own writes, whose answers we have already."""
        known = self._known["metadata"].get("resourceVersion", "") if self._known else ""
        if not (known.isdigit() and resource_version.isdigit()):
            return resource_version != known
        return int(resource_version) > int(known)


def _missing_metadata(wanted: Json, known: Json) -> Json:
    """Our labels and annotations that the Node lacks or has otherwise; whatever else it has stays."""
    missing: Json = {}
    for field in ("labels", "annotations"):
        found = known.get(field) or {}
        if lacking := {name: value for name, value in wanted[field].items() if found.get(name) != value}:
            missing[field] = lacking
    return missing


def _advice(error: EdgeletError) -> str:
    if isinstance(error, Forbidden):
        return " (a node's credential is good for the Node of its own name only: see --nodename)"
    return ""
