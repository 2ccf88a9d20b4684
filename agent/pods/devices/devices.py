"""The devices of this node's plugins: what there is, who has which, and what is in the record of it.

In: plugins that come, tell of their devices and go; pods that are admitted, whose containers are made, and that end.
Out: grants, durable before a pod is admitted; what the Node offers; word of whom it concerns. A plugin that goes takes
nothing from a pod that runs. After another boot of the machine a plugin is asked anew for what a pod has: what it set
up before is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Final

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import Permanent, Retryable
from agent.model.container import Container
from agent.model.csi import DriverError
from agent.model.devices import NO_OPTIONS, UNEXPECTED, Device, DevicePlugin, DeviceSettings, Grant, PluginOptions
from agent.model.pod import Pod
from agent.model.status import ResourceHealth, ResourceStatus
from agent.pods.devices.allocation import (
    Reusable,
    Stock,
    Wanted,
    choose,
    complete,
    given,
    merged,
    reusable_after,
    wanted_by,
    wanted_by_container,
)
from agent.store.base import Delete, Put, Store

PREFIX: Final = "devices/"
NAMES: Final = "device-resources"
GRACE_S: Final = 300.0
"""A plugin that is away for longer is forgotten: nothing of its resource is left on the Node."""
PATIENCE_S: Final = 30.0
"""After the agent's start plugins register anew: a pod that comes meanwhile waits for them."""
RETRY_S: Final = 1.0
_CREATE: Final = "CreateContainerConfigError"

Changed = Callable[[Set[str]], None]


class _Row(msgspec.Struct, frozen=True):
    grants: tuple[Grant, ...]


_rows = msgspec.json.Decoder(_Row)
_names = msgspec.json.Decoder(tuple[str, ...])


class _Resource(msgspec.Struct):
    plugin: DevicePlugin | None = None
    """The one that came last; None: none has come since the start."""
    options: PluginOptions = NO_OPTIONS
    devices: dict[str, Device] = msgspec.field(default_factory=dict)
    """As they were told last."""
    serving: bool = False
    """It is connected and has told of its devices."""
    registered: bool = False
    """It has told of its devices, or an agent before this one heard of them."""
    stopped_at: float | None = None

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(one.id for one in self.devices.values() if one.healthy and self.serving)


class Devices:
    """One for a node. `load` comes before the first pod, `run` must be running."""

    def __init__(self, store: Store, clock: Clock, boot_id: str, node_changed: Callable[[], None]) -> None:
        """`node_changed`: the Node offers something else now."""
        self._store = store
        self._clock = clock
        self._boot_id = boot_id
        self._node_changed = node_changed
        self._listeners: list[Changed] = []
        self._resources: dict[str, _Resource] = {}
        self._grants: dict[str, tuple[Grant, ...]] = {}
        self._reserved: dict[tuple[str, Wanted], frozenset[str]] = {}
        """What plugins are being asked for."""
        self._patient_until = clock.monotonic() + PATIENCE_S
        self._told = asyncio.Event()
        """Set, and replaced, whenever a plugin tells of its devices."""
        self._stale: set[str] = set()
        self._names_written: tuple[str, ...] = ()
        self._to_write = asyncio.Event()

    def listen(self, changed: Changed) -> None:
        """Call `changed` with the UIDs of pods whose devices are in another state, or whose plugin came."""
        self._listeners.append(changed)

    async def load(self, known: Set[str]) -> None:
        """What an agent before this one gave away; `known` are the pods that may still have it. Raises Retryable."""
        now = self._clock.monotonic()
        if (row := await self._store.get(NAMES)) is not None:
            try:
                self._names_written = _names.decode(row.value)
                for name in self._names_written:
                    self._resources.setdefault(name, _Resource(registered=True, stopped_at=now))
            except msgspec.DecodeError as error:
                logger.warning("record row {} is no list of resources and is left alone: {}", NAMES, error)
        for row in await self._store.list(PREFIX):
            uid = row.key.removeprefix(PREFIX)
            try:
                self._grants[uid] = _rows.decode(row.value).grants
            except msgspec.DecodeError as error:
                logger.warning("record row {} names no devices and is left alone: {}", row.key, error)
        for uid in self._grants.keys() - known:
            self.free(uid)
        self._node_changed()

    async def run(self) -> None:
        """Write what can be written later, for as long as the agent lives."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            stale, self._stale = self._stale, set()
            writes: list[Put | Delete] = [Delete(PREFIX + uid) for uid in stale if uid not in self._grants]
            if (names := tuple(sorted(self._resources))) != self._names_written:
                writes.append(Put(NAMES, msgspec.json.encode(names)))
            try:
                if writes:
                    await self._store.batch(writes)
                self._names_written = names
            except Retryable as error:
                logger.warning("the devices of pods that have ended stay in the record: {}", error)
                self._stale |= stale
                await asyncio.sleep(RETRY_S)
                self._to_write.set()

    # ------------------------------------------------------------ plugins

    def connected(self, resource: str, plugin: DevicePlugin, options: PluginOptions) -> None:
        """It takes the place of one before it, whose devices count until it tells of its own."""
        found = self._resources.setdefault(resource, _Resource())
        found.plugin, found.options, found.stopped_at = plugin, options, None
        self._to_write.set()

    def told(self, resource: str, plugin: DevicePlugin, devices: Iterable[Device]) -> None:
        """All the devices that the plugin has now."""
        found = self._resources[resource]
        if found.plugin is not plugin:
            return
        before, came = found.devices, not found.serving
        found.devices = {device.id: device for device in devices}
        found.serving = found.registered = True
        turned = {
            one.id for one in found.devices.values() if one.id not in before or before[one.id].healthy != one.healthy
        }
        self._told.set()
        self._told = asyncio.Event()
        self._node_changed()
        self._tell({uid for uid, ids in self._holders(resource) if came or ids & turned})

    def disconnected(self, resource: str, plugin: DevicePlugin) -> None:
        found = self._resources[resource]
        if found.plugin is plugin:
            found.serving, found.stopped_at = False, self._clock.monotonic()
            self._node_changed()

    def offered(self) -> Mapping[str, tuple[int, int]]:
        """By resource: how many devices there are, and how many of them are healthy."""
        return {
            name: (0, 0) if self._is_gone(found) else (len(found.devices), len(found.healthy))
            for name, found in self._resources.items()
            if found.registered
        }

    def allocatable(self) -> Iterator[tuple[str, Device]]:
        """Each healthy device with its resource, whoever has it."""
        for name, found in self._resources.items():
            healthy = found.healthy
            yield from ((name, device) for device in found.devices.values() if device.id in healthy)

    # ------------------------------------------------------------ pods

    def counts(self, resource: str) -> bool:
        """Whether a plugin of this node gives that resource, so that nobody else has to count it."""
        found = self._resources.get(resource)
        is_there = found is not None and found.registered and not self._is_gone(found)
        return is_there or any(True for _ in self._holders(resource))

    async def allocate(self, pod: Pod) -> None:
        """Have for each of the pod's containers what it asks for; all or nothing, in the record.

        Raises Permanent where a plugin hasn't got it (its text is the kubelet's, without the words around it), and
        Retryable where it can't be recorded.
        """
        wanted = tuple(wanted_by(pod, self.counts))
        if not wanted:
            return
        for resource in {one.resource for one in wanted}:
            await self._settled(resource)
        before = self._grants.get(pod.uid)
        reusable: Reusable = {}
        try:
            for one in wanted:
                grant = await self._have(pod.uid, one, reusable.get(one.resource, frozenset()))
                reusable = reusable_after(one, grant.ids, reusable)
            await self._write(pod.uid)
        except BaseException:
            self._set(pod.uid, before or ())
            raise

    async def prepare(self, pod: Pod, container: Container) -> DeviceSettings | None:
        """What a container that is made now gets with its devices; None: it has none.

        Raises Permanent("CreateContainerConfigError"), or Retryable where it can't be recorded.
        """
        try:
            for one in wanted_by_container(container, self.counts):
                await self._make_ready(pod.uid, one)
        except (Permanent, DriverError) as error:
            raise Permanent(_CREATE, str(error)) from error
        own = [grant for grant in self.grants(pod.uid) if grant.container == container.name]
        return merged(own) if own else None

    def free(self, uid: str) -> None:
        """The pod has ended."""
        if self._grants.pop(uid, None) is not None:
            self._stale.add(uid)
            self._to_write.set()

    def grants(self, uid: str) -> tuple[Grant, ...]:
        return self._grants.get(uid, ())

    def health(self, uid: str) -> dict[str, tuple[ResourceStatus, ...]]:
        """By container. What the plugin does not tell of (any more) counts as healthy."""
        told: dict[str, tuple[ResourceStatus, ...]] = {}
        for grant in self.grants(uid):
            resource = self._resources.get(grant.resource)
            known = resource.devices if resource is not None else {}
            healths = tuple(
                ResourceHealth(one, "Healthy" if one not in known or known[one].healthy else "Unhealthy")
                for one in sorted(grant.ids)
            )
            told[grant.container] = (*told.get(grant.container, ()), ResourceStatus(grant.resource, healths))
        return told

    # ------------------------------------------------------------ inside

    async def _settled(self, resource: str) -> None:
        """Return once its plugin has told of its devices since the start, or patience is over."""
        while (found := self._resources.get(resource)) is not None and not (found.serving or found.devices):
            left = self._patient_until - self._clock.monotonic()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._told.wait()
            except TimeoutError:
                return

    async def _have(self, uid: str, wanted: Wanted, reusable: frozenset[str]) -> Grant:
        """The container's grant, made where there is none. Raises Permanent."""
        mine = self._grant(uid, wanted)
        ids = mine.ids if mine is not None else None
        choice = choose(wanted, uid, ids, reusable, self._stock(wanted.resource))
        if mine is not None:
            return mine
        found = self._resources[wanted.resource]
        plugin, preferred = found.plugin, tuple[str, ...]()
        assert plugin is not None, "there are healthy devices"
        if choice.needed and found.options.preferred:
            among = tuple(sorted({*choice.free, *choice.taken}))
            try:
                preferred = await plugin.prefer(among, choice.taken, wanted.count)
            except DriverError as error:
                why = f"device plugin GetPreferredAllocation rpc failed with err: {error}"
                raise Permanent(UNEXPECTED, why) from error
            # Others may have been given some meanwhile.
            choice = choose(wanted, uid, ids, reusable, self._stock(wanted.resource))
        taken = complete(choice, preferred)
        self._reserved[uid, wanted] = frozenset(taken)
        try:
            settings = await plugin.allocate(taken)
        except DriverError as error:
            raise Permanent(UNEXPECTED, str(error)) from error
        finally:
            del self._reserved[uid, wanted]
        if settings is None:
            raise Permanent(UNEXPECTED, "no containers return in allocation response")
        devices = given(taken, found.devices)
        grant = Grant(wanted.container, wanted.resource, devices, settings, self._boot_id)
        self._set(uid, (*self.grants(uid), grant))
        return grant

    async def _make_ready(self, uid: str, wanted: Wanted) -> None:
        """Raises Permanent, DriverError, Retryable."""
        grant = self._grant(uid, wanted)
        if grant is None:
            # It was admitted by an agent that knew of no such resource, or lost its record.
            grant = await self._have(uid, wanted, frozenset())
            await self._write(uid)
        elif grant.boot_id != self._boot_id:
            await self._renew(uid, grant)
        found = self._resources.get(wanted.resource)
        if found is not None and found.options.pre_start and found.plugin is not None:
            try:
                await found.plugin.pre_start(tuple(sorted(grant.ids)))
            except DriverError as error:
                raise Permanent(_CREATE, f"device plugin PreStartContainer rpc failed with err: {error}") from error

    async def _renew(self, uid: str, grant: Grant) -> None:
        found = self._resources.get(grant.resource)
        if found is None or found.plugin is None or not grant.ids <= found.healthy:
            ids = ", ".join(sorted(grant.ids))
            raise Permanent(_CREATE, f"waiting for the device plugin of {grant.resource} to offer {ids} again")
        settings = await found.plugin.allocate(tuple(sorted(grant.ids)))
        if settings is None:
            raise Permanent(_CREATE, "no containers return in allocation response")
        made = msgspec.structs.replace(grant, settings=settings, boot_id=self._boot_id)
        self._set(uid, tuple(made if one is grant else one for one in self.grants(uid)))
        await self._write(uid)

    def _stock(self, resource: str) -> Stock:
        found = self._resources.get(resource)
        held = frozenset[str]().union(*(ids for _, ids in self._holders(resource)))
        if found is None or not found.registered or self._is_gone(found):
            return Stock(held=held, registered=False)
        return Stock(found.healthy, held)

    def _holders(self, resource: str) -> Iterator[tuple[str, frozenset[str]]]:
        for uid, grants in self._grants.items():
            yield from ((uid, grant.ids) for grant in grants if grant.resource == resource)
        for (uid, wanted), ids in self._reserved.items():
            if wanted.resource == resource:
                yield uid, ids

    def _grant(self, uid: str, wanted: Wanted) -> Grant | None:
        key = (wanted.container, wanted.resource)
        return next((one for one in self.grants(uid) if (one.container, one.resource) == key), None)

    def _is_gone(self, found: _Resource) -> bool:
        return found.stopped_at is not None and self._clock.monotonic() - found.stopped_at > GRACE_S

    def _set(self, uid: str, grants: tuple[Grant, ...]) -> None:
        if grants:
            self._grants[uid] = grants
        else:
            self.free(uid)

    async def _write(self, uid: str) -> None:
        if grants := self.grants(uid):
            await self._store.put(PREFIX + uid, msgspec.json.encode(_Row(grants)))

    def _tell(self, uids: Set[str]) -> None:
        if uids:
            for changed in self._listeners:
                changed(uids)
