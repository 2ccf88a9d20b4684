"""Volumes that a controller attaches to this node: which ones pods use here, and which the API server calls attached.

In: the pods' volumes say what they use; the Node controller shows what the API server took and has. Out: the Node's
`status.volumesInUse`, and the end of a wait. The order is what keeps data whole: a controller detaches nothing that is
in use, so a volume is mounted only after the API server has taken that it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.errors import Retryable


class AttachedVolumes:
    """Shared by the Node controller and the pods' volumes. Names are unique volume names (`PLUGIN/DRIVER^HANDLE`)."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._known = False
        self._reported: frozenset[str] = frozenset()
        self._attached: frozenset[str] = frozenset()
        self._news = asyncio.Event()
        self._changed: Callable[[], None] = lambda: None

    def notify(self, changed: Callable[[], None]) -> None:
        """`changed` is called when the Node's status is to be reported anew."""
        self._changed = changed

    # ------------------------------------------------------------ the pods' side

    def found(self, names: Iterable[str]) -> None:
        """What was in use before a restart. Until this was called nothing is said of volumes in use."""
        self._used.update(names)
        self._known = True
        if self.in_use is not None:
            self._changed()

    def use(self, name: str) -> None:
        if name not in self._used:
            self._used.add(name)
            self._changed()

    def release(self, name: str) -> None:
        """Nothing of it is left on this machine."""
        if name in self._used:
            self._used.discard(name)
            self._changed()

    async def attached(self, name: str, timeout_s: float) -> None:
        """Return once the API server has it in use and attached. Raises Retryable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (name in self._reported and name in self._attached):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            if name not in self._reported:
                raise Retryable(
                    "Volume has not been added to the list of VolumesInUse in the node's volume status"
                ) from None
            raise Retryable("Volume not attached according to node status") from None

    # ------------------------------------------------------------ the Node's side

    @property
    def in_use(self) -> tuple[str, ...] | None:
        """status.volumesInUse; None: not known yet, or there are none and the Node says so: it is left as it is."""
        return tuple(sorted(self._used)) if self._known and (self._used or self._reported) else None

    def seen(self, node: Mapping[str, Any]) -> None:
        """The Node as the API server has it."""
        status = node.get("status") or {}
        self._reported = frozenset(status.get("volumesInUse") or ())
        self._attached = frozenset(one["name"] for one in status.get("volumesAttached") or ())
        self._news.set()
