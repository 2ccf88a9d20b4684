"""The composition root: the only place that makes adapters, wires them, and owns their tasks and the staged stop.

In: the settings, the record, the side of the API server and the clock, all open. Out: an agent that lives until it is
cancelled. A task that dies ends the agent; pods keep running either way. Order of the start: the record, then what acts
on it, then the API server's word.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterable, Sequence
from typing import Any

from loguru import logger

from agent import __version__, memory
from agent.api_side import ApiSide, Job
from agent.clock import NodeClock, SystemClock
from agent.config import Settings
from agent.kube.pods_api import PodsApi
from agent.model.addresses import NodeAddresses
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.node.allocatable import Allocatable
from agent.node.annotations import NodeAnnotations
from agent.node.attached import AttachedVolumes
from agent.node.controller import NODES, NodeController
from agent.node.csi_node import CsiNode
from agent.node.device_plugins import DevicePlugins
from agent.node.eviction.manager import EvictionManager
from agent.node.eviction.reading import SignalReader
from agent.node.facts import read_facts
from agent.node.known import KnownNode
from agent.node.plugins import Plugins
from agent.node.policies import NodePolicing
from agent.node.pressure import NodePressure
from agent.node.reserved import check_reserved_cpus, others_limits, pods_limits
from agent.node.shutdown import Shutdown, periods, two_periods
from agent.node.status import node_ips
from agent.pods.controller import PodController
from agent.pods.desired import DesiredChange, DesiredPods
from agent.pods.devices.devices import Devices
from agent.pods.mirrors import Mirrors
from agent.pods.orphans import Orphans
from agent.pods.policy_defaults import PolicyDefaults
from agent.pods.ports import Events
from agent.pods.sources import origins, sources
from agent.pods.start_times import START_TIMES
from agent.pods.telling import Telling
from agent.providers import registry
from agent.providers.contract import (
    EndsPods,
    HearsOfLink,
    HearsOfNode,
    HearsOfObjects,
    LetsEvict,
    MachineFacts,
    NotifiesPods,
    ProviderContext,
    Runs,
    UsesCsi,
    UsesDevices,
)
from agent.providers.follow import Follower
from agent.providers.node_side import NodeSide
from agent.readings import sources_of, wire
from agent.server.control import ControlServer
from agent.server.http import KubeletServer
from agent.server.issued import ServingCertificate, wants_issued
from agent.server.local_api.recent_events import RecentEvents
from agent.server.local_api.server import LocalApiServer, Parts
from agent.server.pod_resources import PodResources
from agent.store.base import Store
from agent.store.held import HeldStore

DRAIN_S = 3.0
"""At the stop, for the Node's last word and for events that wait."""


class Agent:
    """All parts of a running agent, wired."""

    def __init__(self, settings: Settings, store: Store, side: ApiSide, clock: NodeClock | None = None) -> None:
        self._settings = settings
        self._store = store
        self._side = side
        self._clock = clock = clock or SystemClock()
        recent = RecentEvents(side.events, settings.node_name, clock)
        events: Events = recent if settings.local_api else side.events
        facts = read_facts(settings.root_dir)
        check_reserved_cpus(settings)
        api = side.api
        fetch = None if api is None else lambda: api.get(f"{NODES}/{settings.node_name}")
        policies = NodePolicing(settings, events, facts.sizes)
        self._room = room = Allocatable(facts, policies)
        self._known_node = KnownNode(facts, settings, store, fetch, policies, room)
        pressure = NodePressure()
        self._policies = PolicyDefaults(settings, lambda: self._known_node.facts().labels, events, clock)
        self._node_ips = NodeAddresses(node_ips(facts, settings))
        self._annotations = NodeAnnotations(settings.node_name, clock)
        context = ProviderContext(
            settings=settings,
            store=store,
            objects=side.objects,
            tokens=side.tokens,
            events=events,
            facts=MachineFacts(
                facts.memory_bytes,
                room,
                all_pods=pods_limits(facts, settings),
                others=others_limits(settings),
                swap_bytes=facts.swap_bytes,
            ),
            node_ips=self._node_ips,
            health_changed=self._health_changed,
            node=self._known_node,
            clock=clock,
            pressure=pressure,
            policing=self._policies.policing,
            node_policies=policies,
            annotate=self._annotations.annotate,
            first_word=self._first_word,
            rush=side.rush,
            config_file=settings.provider_config,
        )
        self._node: NodeController | None = None
        self._told: NodeSide | None = None
        self._plugins: Plugins | None = None
        self._provider = registry.make(context)
        evictable = self._provider.evictable() if isinstance(self._provider, LetsEvict) else None
        signals = SignalReader(facts, settings.root_dir)
        self._eviction = EvictionManager(settings, signals, pressure, events, clock, evictable)
        if settings.live_capacity:
            room.share(settings, evictable, self._known_node.told, self._pods_here, events, clock, self._health_changed)
        pressure.notify(self._health_changed)
        policies.notify(lambda: self._eviction.use(policies.settings))
        policies.notify(self._health_changed)
        self._devices = Devices(store, SystemClock(), facts.boot_id, self._health_changed)
        self._device_plugins: DevicePlugins | None = None
        if isinstance(self._provider, UsesDevices):
            self._provider.use_devices(self._devices)
            self._device_plugins = DevicePlugins(settings, self._devices)
        self._follower: Follower | None = None
        self._telling = telling = Telling(side.api, side.events, clock.wall, self._finalized, self._pods_changed)
        if getattr(self._provider, "supervises_pods", False):
            # Such a provider tells what it does with a pod itself; one more POST would say no more.
            asked = settings.provider_events
            self._controller = PodController(
                self._provider, events, telling.tell, says_success=asked, status_is_update=asked
            )
            if isinstance(self._provider, NotifiesPods):
                self._provider.notify_pods(self._controller.pod_updated)
        else:
            resync_s = settings.full_resync_period
            self._follower = Follower(self._provider, store, side.objects, events, clock, resync_s=resync_s)
            self._controller = PodController(self._follower, events, telling.tell)
            self._follower.notify_pods(self._controller.pod_updated)
        self._desired = DesiredPods(store, self._desired_changed, origins(settings))
        if side.api is not None and telling.publisher is not None:
            publish, forget = telling.publisher.publish, telling.publisher.forget
            runs, verified = self._controller.knows, self._desired.verified
            name, uid = settings.node_name, self._node_uid
            telling.mirrors = Mirrors(PodsApi(side.api), name, uid, publish, forget, runs, verified)
            side.api.link.on_return(telling.mirrors.retry)
            if isinstance(self._provider, HearsOfLink):
                side.api.link.on_return(self._provider.link_returned)
        if side.api is not None:
            self._told = told = NodeSide(self._provider, settings.provider, self._health_changed, clock.wall)
            attached = AttachedVolumes()
            if isinstance(self._provider, UsesCsi):
                csi_node = CsiNode(side.api, settings.node_name, self._node_uid)
                self._plugins = Plugins(settings.root_dir.absolute(), csi_node, self._device_plugins)
                self._provider.use_csi(self._plugins, attached)
            self._node = NodeController(
                side.api,
                settings,
                told,
                events,
                clock,
                configure=self._configure,
                attached=attached,
                on_registered=self._registered,
                going_down=lambda: self._shutdown.message,
                record_trouble=lambda: store.trouble if isinstance(store, HeldStore) else "",
                devices=self._devices.offered,
                seen=self._node_seen,
                pressure=lambda: pressure.now,
                offered=room.told_of,
            )
        publisher, api_side = telling.publisher, side.api
        self._shutdown = Shutdown(
            self._provider.pods_to_end() if isinstance(self._provider, EndsPods) else None,
            clock,
            reachable=lambda: api_side is not None and api_side.reachable,
            changed=self._health_changed,
            untold=lambda: publisher.waiting if publisher is not None else 0,
        )
        if side.guard is not None:
            side.guard.on_foreign(lambda why: self._known_node.say_foreign(why, events))
        if isinstance(store, HeldStore):
            store.notify(self._health_changed)
        ca = side.api.access.cluster_ca if side.api else None
        pods, changes, statuses, foreign = self.with_status, self._controller, telling.publisher, self._foreign_now
        wire(sources_of(settings, store, pods, changes, statuses, side.events, side.api, foreign))
        self._server = KubeletServer(
            settings,
            self._provider,
            self,
            ca,
            context.node_ips,
            clock,
            side.api,
            read_addresses=self._addresses,
            foreign=self._foreign_now,
        )
        parts = Parts(self._provider, self, store, self._own_node, recent.all, side.api)
        self._local_api = LocalApiServer(settings, parts, clock)
        recent.changed = lambda: self._local_api.changed("events")

    async def live(self) -> None:
        """Everything, until cancelled or until a part fails."""
        where = f"node {self._settings.node_name}" if self._side.api else "standalone"
        logger.info("edgelet {} starts as {}, pid {}", __version__, where, os.getpid())
        await self._known_node.load()
        await self._policies.load(self._store)
        async with asyncio.TaskGroup() as tasks:
            for name, job in self._jobs():
                tasks.create_task(job, name=name)
            # The groups that pods' tasks go into are open after one turn of the loop.
            await asyncio.sleep(0)
            await self._desired.load()
            await self._first_word()
            for name, job in self._sources():
                tasks.create_task(job, name=name)
            # What exists now lives as long as the agent: collecting it again and again only costs time.
            gc.freeze()

    async def leave(self) -> None:
        """Say why the Node goes, and send the events that wait. Takes a few seconds at most."""
        try:
            async with asyncio.timeout(DRAIN_S):
                if self._node is not None:
                    await self._node.leave()
                if self._side.drain is not None:
                    await self._side.drain()
        except TimeoutError:
            logger.warning("the API server did not take the last word within {:g} s", DRAIN_S)

    async def _first_word(self) -> None:
        if self._node is not None:
            await self._node.first_word()

    def with_status(self) -> Iterable[tuple[PodRecord, PodStatus | None]]:
        """The pods of this node with their status, for the kubelet API."""
        for record in self._desired.all():
            yield record, self._telling.status(record.uid)

    def _pods_here(self) -> Iterable[Pod]:
        return (one.pod for one, status in self.with_status() if status is None or not status.phase.is_terminal)

    def objects_changed(self, pod_uid: str) -> None:
        self._policies.objects_changed(pod_uid)
        if isinstance(self._provider, HearsOfObjects):
            self._provider.objects_changed(pod_uid)
        self._controller.retry(pod_uid)

    def _jobs(self) -> Iterable[Job]:
        if isinstance(self._store, HeldStore):
            yield "record", self._store.run()
        yield from self._side.jobs
        yield "pods", self._controller.run()
        if self._side.api is not None:
            yield "policies", self._policies.run(self._side.objects)
        yield "eviction", self._eviction.run()
        yield from self._room.jobs()
        yield "desired pods", self._desired.run()
        if self._telling.publisher is not None:
            yield "statuses", self._telling.publisher.run()
        if self._telling.mirrors is not None:
            yield "mirror pods", self._telling.mirrors.run()
        if self._node is not None:
            yield "node", self._node.run()
            yield "seen node", self._known_node.run()
        if self._plugins is not None:
            yield "plugins", self._plugins.run()
        if self._device_plugins is not None:
            yield "device plugins", self._device_plugins.run()
            served = PodResources(self._settings, self.with_status, self._devices, SystemClock())
            yield "pod resources", served.run()
        if isinstance(self._provider, Runs):
            yield "provider", self._provider.run()
        if self._follower is not None:
            yield "provider's pods", self._follower.run()
        if self._side.api is not None:
            yield "node's annotations", self._annotations.run(self._side.api)
            yield "kubelet API", self._server.run()
            if wants_issued(self._settings):
                changed = self._server.certificate_changed
                serving = ServingCertificate(self._side.api, self._settings, self._addresses, self._clock, changed)
                yield "serving certificate", serving.run()
        yield "local API", self._local_api.run()
        yield "memory", memory.keep_small()
        by = periods(self._settings)
        yield "control", ControlServer(self._settings.root_dir, self._shutdown, by or two_periods(30, 10)).run()
        if by:
            from agent.node.logind import follow_logind  # only who wants it has its library in memory

            yield "logind", follow_logind(self._shutdown, by, self._clock)

    def _sources(self) -> Iterable[Job]:
        yield from sources(self._settings, self._desired, self._side.api, self._telling.mirrors)
        runner, side = self._follower or self._provider, self._side
        every_s, knows = self._settings.full_resync_period, self._controller.knows
        asks = None if side.api is None else PodsApi(side.api)
        orphans = Orphans(runner, self._desired, self._store, knows, side.forget_unreferenced, every_s, asks)
        yield "orphans", orphans.sweep()

    def _own_node(self) -> dict[str, Any] | None:
        return self._known_node.named(self._node.node) if self._node is not None else None

    def _node_seen(self, node: dict[str, Any]) -> None:
        self._known_node.saw(node)
        self._policies.node_changed()
        self._annotations.seen(node)
        self._local_api.changed("nodes")
        if isinstance(self._provider, HearsOfNode):
            self._provider.node_changed(node)

    async def _configure(self, node: dict[str, Any]) -> None:
        """Before the Node is told: what the provider changes in it, and what it says of its addresses."""
        assert self._told is not None
        await self._told.configure(node)
        found = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        if self._node_ips.take(found) and isinstance(self._provider, HearsOfNode):
            logger.info("the node's addresses are {} now", ", ".join(found) or "none")
            self._provider.addresses_changed()

    def _desired_changed(self, change: DesiredChange) -> None:
        START_TIMES.desired(change)
        self._controller.desired_changed(change)
        if self._telling.mirrors is not None:
            self._telling.mirrors.desired_changed(change)
        self._pods_changed()

    def _pods_changed(self) -> None:
        self._local_api.changed("pods")

    @property
    def seen_node_uid(self) -> str:
        """Of the Node as it was last seen in the cluster; empty: never."""
        return self._known_node.uid

    def _foreign_now(self) -> str:
        return self._side.guard.foreign if self._side.guard is not None else ""

    def _finalized(self, uid: str) -> None:
        self._desired.remove(uid)

    def _registered(self) -> None:
        if self._plugins is not None:
            self._plugins.node_registered()
        if self._telling.mirrors is not None:
            self._telling.mirrors.retry()

    def _node_uid(self) -> str:
        return self._node.uid if self._node is not None else ""

    def _addresses(self) -> Sequence[str]:
        """As they are now; blocks."""
        return node_ips(read_facts(self._settings.root_dir), self._settings)

    def _health_changed(self) -> None:
        if self._node is not None:
            self._node.poke()
