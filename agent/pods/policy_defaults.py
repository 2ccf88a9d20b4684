"""The cluster's defaults of policies, followed: the ConfigMap `kube-system/edgelet-defaults`.

In: the ConfigMap, from the record at the start and from the API server from then on, and the Node's labels. Out: the
defaults that hold on this node, given to `Policing`, and one event on the Node for each thing that cannot be used. A
cluster that has no such ConfigMap, or does not let nodes read it, has no such defaults; one that cannot be reached has
those that it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from loguru import logger

from agent.clock import Clock, sleep_unless
from agent.config import Settings
from agent.errors import Forbidden, NotFound, Permanent, Retryable
from agent.kube.objects import RecordedObjects
from agent.model.objects import ConfigMap, ObjectKey, ObjectReference
from agent.pods.policing import INVALID, Policing
from agent.pods.ports import Events, Objects
from agent.policies.defaults import Defaults, Rule, read_rules
from agent.said_once import SaidOnce
from agent.store.base import Store

KEY: Final = ObjectKey("configmaps", "kube-system", "edgelet-defaults")
HOLDER: Final = "policies/defaults"
"""Who refers to the ConfigMap, in the place of a pod's UID."""
AGAIN_S = 10.0
"""After no answer."""
FORBIDDEN_S = 300.0
FORBIDDEN_MAXIMUM_S = 3600.0
"""Between two questions to a cluster that lets nodes read no such ConfigMap: twice as long each time."""

_decoder = msgspec.json.Decoder(ConfigMap)


class PolicyDefaults:
    def __init__(
        self, settings: Settings, labels: Callable[[], Mapping[str, str]], events: Events, clock: Clock
    ) -> None:
        """`labels`: the Node's, as they are now."""
        self._settings = settings.policy_default
        self.policing = Policing(events, Defaults(settings=self._settings), settings.policy_host_namespaces)
        self._node = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        self._labels = labels
        self._events = events
        self._clock = clock
        self._rules: tuple[Rule, ...] = ()
        self._faults = SaidOnce[str]()
        self._changed = asyncio.Event()

    async def load(self, store: Store) -> None:
        """What the record has, before the first pod is looked at."""
        try:
            self._take(await RecordedObjects(store).get(KEY))
        except NotFound:
            self._apply()
        except Retryable as error:
            logger.warning("the cluster's defaults of policies cannot be read from the record: {}", error)
            self._apply()

    def objects_changed(self, holder: str) -> None:
        """The ConfigMap changed, where `holder` is its own."""
        if holder == HOLDER:
            self._changed.set()

    def node_changed(self) -> None:
        """The Node's labels may be others: another rule may be about it."""
        self._apply()

    async def run(self, objects: Objects) -> None:
        """Follow the ConfigMap for as long as the agent lives."""
        watched, forbidden_s = False, FORBIDDEN_S
        while True:
            self._changed.clear()
            again_s: float | None = None
            try:
                try:
                    self._take(await objects.get(KEY))
                except NotFound:
                    self._take(None)
                if not watched:
                    # A watch that is refused would be tried again every few seconds: only one that may be is begun.
                    objects.retain(HOLDER, [KEY])
                    watched = True
                    continue
            except Forbidden as error:
                logger.debug("this cluster lets nodes read no defaults of policies: {}", error)
                again_s, forbidden_s = forbidden_s, min(2 * forbidden_s, FORBIDDEN_MAXIMUM_S)
            except (Retryable, Permanent) as error:
                logger.debug("the defaults of policies stay as they are: {}", error)
                again_s = AGAIN_S
            if again_s is None:
                await self._changed.wait()
            else:
                await sleep_unless(self._changed, self._clock.sleep(again_s))

    def _take(self, raw: bytes | None) -> None:
        try:
            data = _decoder.decode(raw).data if raw is not None else {}
        except msgspec.DecodeError as error:
            self._say([f"cannot be read: {error}"])
            return
        self._rules, faults = read_rules(data)
        self._say(faults)
        self._apply()

    def _apply(self) -> None:
        labels = self._labels()
        here = tuple(rule for rule in self._rules if rule.nodes.matches(labels))
        self.policing.take(Defaults(here, self._settings))

    def _say(self, faults: Iterable[str]) -> None:
        for fault in self._faults.new(faults):
            message = f"ConfigMap {KEY.namespace}/{KEY.name}: {fault}"
            self._events.record(self._node, "Warning", INVALID, message)
