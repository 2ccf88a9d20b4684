"""What is told of pods, given on: to the API server, to mirror pods, and while the link is down to the journal.

In: each update of a provider. Out: a status to publish, or what changed since the last one as an event with its own
time. The newest status of every pod is kept here, for whoever asks this node.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.kube.events import EventRecorder
from agent.kube.pods_api import PodsApi
from agent.kube.rest import Api
from agent.model.objects import ObjectReference
from agent.model.record import Origin
from agent.model.status import PodStatus
from agent.pods.mirrors import Mirrors
from agent.pods.ports import Events
from agent.pods.publish import PodUpdateLike, Publisher
from agent.pods.start_times import START_TIMES
from agent.pods.transitions import REASON as STATUS_CHANGED
from agent.pods.transitions import transitions
from agent.pods.untold import Untold


class Telling:
    def __init__(
        self,
        api: Api | None,
        events: Events,
        wall: Callable[[], float],
        finalized: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        """`api`: None on a node that has joined no cluster. `finalized`: as `Publisher`'s. `changed`: after each."""
        self._api = api
        self._events = events
        self._changed = changed
        self._statuses: dict[str, PodStatus] = {}
        self._untold = Untold(self._tell_late, wall)
        self.publisher: Publisher | None = None
        self.mirrors: Mirrors | None = None
        """Of static pods, where there are any."""
        if api is not None:
            self.publisher = Publisher(PodsApi(api), finalized, api.link.pause, self._untold.told)
            api.link.on_loss(self._untold.lost)

    def status(self, uid: str) -> PodStatus | None:
        """The newest."""
        return self._statuses.get(uid)

    def tell(self, update: PodUpdateLike) -> None:
        uid = update.record.uid
        if self._api is not None and update.record.origin is Origin.API:
            about, changes = ObjectReference.of(update.record.pod), transitions(self._statuses.get(uid), update.status)
            if self._api.reachable:
                self._untold.changed(uid, about, update.status, changes)
            else:
                for change in changes:
                    self._events.record(about, "Normal", STATUS_CHANGED, change)
        self._statuses[uid] = update.status
        START_TIMES.told(update.record.pod, update.status)
        if update.gone:
            del self._statuses[uid]
            self._untold.forget(uid)
            if isinstance(self._events, EventRecorder):
                self._events.forget(uid)
        self._changed()
        if self.publisher is not None and update.record.origin is Origin.API:
            self.publisher.publish(update)
        elif self.mirrors is not None:
            self.mirrors.told(update)

    def _tell_late(self, about: ObjectReference, change: str, at: float) -> None:
        if isinstance(self._events, EventRecorder):
            self._events.record(about, "Normal", STATUS_CHANGED, change, at=at)
