"""The policies that the Node's annotations set, as they hold now, for whoever acts by the settings under them.

In: the annotations of each state of the Node that is seen, at the start those of the record. Out: policies, the
settings under them, and a call to whoever asked to hear of a change. A fault is said once, as an event of the Node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loguru import logger

from agent.config import Settings
from agent.model.objects import ObjectReference
from agent.node.ports import Events
from agent.pods.policing import INVALID
from agent.policies.node import NodePolicies, node_policies
from agent.policies.policy import Fault
from agent.said_once import SaidOnce


class NodePolicing:
    def __init__(
        self, settings: Settings, events: Events | None = None, sizes: Mapping[str, int] | None = None
    ) -> None:
        """Without events faults are only logged. `sizes`: what the machine has, in bytes by eviction signal."""
        self._own = settings
        self._events = events
        self._sizes = sizes
        self._node = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        self._heard: list[Callable[[], None]] = []
        self._annotations: Mapping[str, str] = {}
        self._faults = SaidOnce[Fault]()
        self.now = NodePolicies()
        self.settings = settings
        """The settings under the policies: of what no annotation names, they are those of the start."""

    def notify(self, changed: Callable[[], None]) -> None:
        """`changed` is called, on the loop, whenever other policies hold."""
        self._heard.append(changed)

    def saw(self, annotations: Mapping[str, str]) -> None:
        """The Node's annotations now; those that are no policies are nobody's matter."""
        if annotations == self._annotations:
            return
        self._annotations = dict(annotations)
        found, faults = node_policies(annotations, self._own, self._sizes)
        for fault in self._faults.new(faults):
            logger.warning("the Node's {}", fault)
            if self._events is not None:
                self._events.record(self._node, "Warning", INVALID, str(fault))
        if found == self.now:
            return
        self.now, self.settings = found, found.over(self._own)
        logger.info("policies by annotations of the Node: {}", ", ".join(sorted(annotations)) or "none")
        for changed in self._heard:
            changed()
