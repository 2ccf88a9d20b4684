"""Take pods or reject them, once each, and remember it: what was decided stands after any restart.

In: pods in the order in which they came, and word of those that ended. Out: None, or why the pod is not run here, which
is in the record before it is returned. That a pod was taken is written beside the pod's own start: until its row is
durable, what the runtime has of it says the same. Pods that the node cannot do without make others go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from loguru import logger
from msgspec.structs import replace

from agent.errors import Permanent, Retryable
from agent.model.node import NodeFacts
from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.pods.admission.claim import Claim, claim
from agent.pods.admission.deferred import Deferred
from agent.pods.admission.preemption import victims
from agent.pods.admission.pressure import under_pressure
from agent.pods.admission.rules import NODE_AFFINITY, Offers, Rejection, judge, resources, too_much
from agent.pods.devices.allocation import admission_message
from agent.pods.devices.devices import Devices
from agent.pods.qos import QosClass
from agent.pods.resize import DEFERRED, INFEASIBLE
from agent.store.base import Delete, Put, Store
from agent.store.rows import read_rows

PREFIX = "admission/"
RETRY_S = 1.0
PREEMPTING = "Preempting"
PREEMPTED = "Preempted in order to admit critical pod"
_UNEXPECTED = "UnexpectedAdmissionError"
_NO_VICTIMS = (
    "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to"
    " preempt: no set of running pods found to reclaim resources"
)


class NodeView(Protocol):
    def facts(self) -> NodeFacts:
        """The own Node as it was last seen."""

    async def current(self) -> NodeFacts:
        """The same, once the API server has shown it since the start, or keeps it to itself for too long."""

    async def ask(self) -> NodeFacts:
        """The same, asked for anew where the API server answers at once."""


class SettledNode(msgspec.Struct, frozen=True):
    """A Node that nobody watches: standalone, or a provider that was given none."""

    node: NodeFacts

    def facts(self) -> NodeFacts:
        return self.node

    async def current(self) -> NodeFacts:
        return self.node

    async def ask(self) -> NodeFacts:
        return self.node


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the node does not run a pod (any more)."""

    reason: str
    message: str
    preempted: bool = False
    """It was taken first, and had to go later."""
    evicted: bool = False
    """So was this one: the machine ran short, or it used more than it may."""
    grace_s: int = 0
    """Of an evicted one."""
    disruption: str = ""
    """The text of an evicted one's condition DisruptionTarget; empty: it went for what it did itself."""


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    namespace: str
    name: str
    claim: Claim | None = None
    """None: it was never taken."""
    verdict: Verdict | None = None


class Gate:
    """One for a node. `load` comes first, `run` must be running."""

    def __init__(
        self,
        store: Store,
        node: NodeView,
        preempt: Callable[[str, Verdict], None],
        pressure: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`preempt` begins to end the pod of that UID; `left` says when it has ended. `pressure`: what runs short."""
        self._store = store
        self._node = node
        self._preempt = preempt
        self._pressure = pressure
        self._decided: dict[str, _Row] = {}
        self._was_here: frozenset[str] = frozenset()
        self._ended: set[str] = set()
        self._leaving: set[str] = set()
        self._deferred = Deferred()
        self._pending: set[str] = set()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        """Set, and replaced, whenever a pod ends."""
        self._closed: Verdict | None = None
        self._opened = asyncio.Event()
        self.offers = Offers()
        self.devices: Devices | None = None
        """Of device plugins; None: this node takes none."""

    async def load(self, running: Iterable[str], ended: Iterable[str]) -> None:
        """At the start. `running`: the pods that the runtime has, which somebody took; `ended` hold nothing any more.

        Raises Retryable.
        """
        self._was_here, self._ended = frozenset(running), set(ended)
        self._decided |= await read_rows(self._store, PREFIX, _Row, "admission")
        if self.devices is not None:
            await self.devices.load((self._decided.keys() | self._was_here) - self._ended)

    async def admit(self, pod: Pod, *, runs: bool) -> Verdict | None:
        """None: run it. `runs`: it is known to have run here, whatever the record says. Raises Retryable."""
        uid = pod.uid
        if (decided := self._decided.get(uid)) is not None:
            return decided.verdict
        try:
            wanted = claim(pod)
        except ValueError as error:
            if not runs:
                return await self._reject(pod, Verdict(_UNEXPECTED, str(error)))
            wanted = Claim()
        if runs or uid in self._was_here:
            self._take(pod, wanted)
            return None
        while (closed := self._closed) is not None:
            if not pod.is_static:
                return await self._reject(pod, closed)
            await self._opened.wait()
        # A manifest waits for no API server.
        node = self._node.facts() if pod.is_static else await self._node.current()
        if under_pressure(pod, wanted, self._pressure()) is None and (lacking := await self._devices_for(pod)):
            return await self._reject(pod, Verdict(_UNEXPECTED, lacking))
        against = self._judge(pod, wanted, node)
        if against and all(one.reason == NODE_AFFINITY for one in against):
            # Who changed the Node's labels for this pod may have been quicker than the watch.
            against = self._judge(pod, wanted, await self._node.ask())
        chosen: tuple[str, ...] = ()
        if against and wanted.critical:
            against, chosen = self._make_room(wanted, against)
        if against:
            return await self._reject(pod, Verdict(against[0].reason, against[0].message))
        self._take(pod, wanted)
        if chosen:
            await self._clear(pod, chosen)
        return None

    def resize(self, pod: Pod) -> tuple[str, str] | None:
        """Whether a pod that is here may have other resources, which it then has; else the reason and a message.

        One that is deferred has its turn by rank among those that wait, whenever it asks again.
        """
        try:
            wanted = claim(pod)
        except ValueError as error:
            return INFEASIBLE, str(error)
        node = self._node.facts()
        if none_ever := next(too_much(wanted, node), ""):
            self.keep_size(pod.uid)
            return INFEASIBLE, none_ever
        node = self._without_devices(node)
        held = self._held()
        for uid, first in self._deferred.ahead_of(pod.uid, wanted, held):
            if not any(resources(first, node, _others(held, uid))):
                held[uid] = first.beside(held.get(uid))
        if lacking := next(resources(wanted, node, _others(held, pod.uid)), None):
            self._deferred.wait(pod.uid, wanted)
            return DEFERRED, lacking.message
        self.keep_size(pod.uid)
        if (row := self._decided.get(pod.uid)) is not None:
            self._decided[pod.uid] = msgspec.structs.replace(row, claim=wanted)
            self._write_soon(pod.uid)
        return None

    def keep_size(self, uid: str) -> None:
        """The pod waits for no resize (any more)."""
        self._deferred.withdraw(uid)

    def evict(self, uid: str, verdict: Verdict) -> None:
        """End a pod that is here, for good."""
        if (row := self._decided.get(uid)) is not None:
            self._decided[uid] = msgspec.structs.replace(row, verdict=verdict)
            self._write_soon(uid)
        self._preempt(uid, verdict)

    def close(self, verdict: Verdict) -> None:
        """Take no new pods: those of the API server are rejected for good, manifests wait."""
        self._closed = verdict
        self._opened.clear()

    def open(self) -> None:
        self._closed = None
        self._opened.set()

    def leaves(self, uid: str) -> None:
        """Its object is gone and it still ends, as after a deletion by force: the scheduler gives its room away now.

        To reject the pod that gets it would be for good. Devices are the pod's until it has ended.
        """
        if uid in self._decided:
            self._leaving.add(uid)

    def left(self, uid: str) -> None:
        """The pod has ended: it holds nothing any more, and stays decided."""
        if self.devices is not None:
            self.devices.free(uid)
        self.keep_size(uid)
        self._leaving.discard(uid)
        if uid not in self._ended:
            self._ended.add(uid)
            self._room.set()
            self._room = asyncio.Event()

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        if self._decided.pop(uid, None) is not None:
            self._write_soon(uid)
        self.left(uid)
        self._ended.discard(uid)

    def burstable_milli_cpu(self, without: str = "") -> int:
        """What the pods of that class request together, in thousandths of a CPU."""
        held = (claim for uid, claim in self._held().items() if uid != without and claim.qos is QosClass.BURSTABLE)
        return sum(claim.requests.get("cpu", 0) for claim in held)

    def requested_memory(self) -> tuple[int, int]:
        """What the Guaranteed and what the Burstable pods request together, in bytes."""
        held = self._held().values()
        guaranteed, burstable = (
            sum(claim.requests.get("memory", 0) for claim in held if claim.qos is qos)
            for qos in (QosClass.GUARANTEED, QosClass.BURSTABLE)
        )
        return guaranteed, burstable

    def unnamed(self, named: Mapping[str, object]) -> Iterator[ObservedPod]:
        """Pods that were decided on before a restart and that nobody has named since."""
        for uid, row in self._decided.items():
            if uid not in named:
                yield ObservedPod(uid, row.namespace, row.name)

    async def run(self) -> None:
        """Write what was decided, for as long as the agent lives, and the rest at its end."""
        try:
            while True:
                await self._news.wait()
                if not await self._flush():
                    await asyncio.sleep(RETRY_S)
        finally:
            await asyncio.shield(self._flush())

    # ------------------------------------------------------------ inside

    def _judge(self, pod: Pod, wanted: Claim, node: NodeFacts) -> tuple[Rejection, ...]:
        if (against := under_pressure(pod, wanted, self._pressure())) is not None:
            return (against,)
        return judge(pod, wanted, self._without_devices(node), self._held().values(), self.offers)

    async def _devices_for(self, pod: Pod) -> str:
        """Have the pod's devices, before anything else is asked; why it can't: empty where it can. Raises Retryable."""
        if self.devices is not None:
            try:
                await self.devices.allocate(pod)
            except Permanent as error:
                return admission_message(str(error))
        return ""

    def _without_devices(self, node: NodeFacts) -> NodeFacts:
        """What plugins give is counted where it is given, device by device."""
        if (devices := self.devices) is None:
            return node
        rest = {name: amount for name, amount in node.allocatable.items() if not devices.counts(name)}
        return replace(node, allocatable=rest)

    def _held(self) -> dict[str, Claim]:
        over = self._ended | self._leaving
        return {uid: row.claim for uid, row in self._decided.items() if row.claim is not None and uid not in over}

    def _take(self, pod: Pod, wanted: Claim) -> None:
        self._ended.discard(pod.uid)
        self._decided[pod.uid] = _Row(pod.metadata.namespace, pod.metadata.name, wanted)
        self._write_soon(pod.uid)

    async def _reject(self, pod: Pod, verdict: Verdict) -> Verdict:
        if self.devices is not None:
            self.devices.free(pod.uid)
        row = _Row(pod.metadata.namespace, pod.metadata.name, verdict=verdict)
        await self._store.put(PREFIX + pod.uid, msgspec.json.encode(row))
        self._decided[pod.uid] = row
        return verdict

    def _make_room(
        self, wanted: Claim, against: tuple[Rejection, ...]
    ) -> tuple[tuple[Rejection, ...], tuple[str, ...]]:
        """What still stands against a critical pod, and who goes for it."""
        if others := tuple(one for one in against if not one.resource):
            return others, ()
        missing = {one.resource: one.missing for one in against}
        staying = {u: c for u, c in self._held().items() if self._decided[u].verdict is None}
        chosen = victims(wanted, staying, missing)
        if chosen is None:
            lacks = "".join(f"(res: {name}, q: {amount}), " for name, amount in missing.items())
            why = f"{_NO_VICTIMS}: [{lacks}]"
            return (Rejection(_UNEXPECTED, why),), ()
        return (), chosen

    async def _clear(self, pod: Pod, chosen: tuple[str, ...]) -> None:
        """End the chosen ones, for good, and return when they have ended: the room is taken already."""
        verdict = Verdict(PREEMPTING, PREEMPTED, preempted=True)
        for uid in chosen:
            self._decided[uid] = msgspec.structs.replace(self._decided[uid], verdict=verdict)
            self._write_soon(uid)
            logger.bind(pod=pod.full_name).info("ends pod {} to have room", self._decided[uid].name)
            self._preempt(uid, verdict)
        while any(uid in self._decided and uid not in self._ended for uid in chosen):
            await self._room.wait()

    def _write_soon(self, uid: str) -> None:
        self._pending.add(uid)
        self._news.set()

    async def _flush(self) -> bool:
        self._news.clear()
        pending, self._pending = self._pending, set()
        if not pending:
            return True
        writes: list[Put | Delete] = []
        for uid in pending:
            row = self._decided.get(uid)
            key = PREFIX + uid
            writes.append(Delete(key) if row is None else Put(key, msgspec.json.encode(row)))
        try:
            await self._store.batch(writes)
        except Retryable as error:
            logger.error("admissions are not recorded yet: {}", error)
            self._pending |= pending
            self._news.set()
            return False
        return True


def _others(held: Mapping[str, Claim], than: str) -> tuple[Claim, ...]:
    return tuple(claim for uid, claim in held.items() if uid != than)
