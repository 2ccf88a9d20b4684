"""User namespaces of pods with `hostUsers: false`: which range of the host's IDs is whose.

In: pods that ask for one, and which of the runtime's handlers can make one. Out: a range of 65536 IDs that no other pod
has, in the record before it is used, the pod's until it is gone: a container that runs keeps its IDs over restarts.
"""

from __future__ import annotations

from loguru import logger

from agent.errors import Permanent
from agent.model.pod import Pod
from agent.pods.translate.context import USER_NAMESPACE_IDS
from agent.store.base import Store

PREFIX = "userns/"
IDS = USER_NAMESPACE_IDS
"""Ranges begin at multiples of it; the first is the host's own."""
_LAST = (1 << 32) // IDS - 2
"""The very last ID means "none" to the kernel: the range that it is in is not given."""


class UserNamespaces:
    """One for a node. `load` comes first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._first_ids: dict[str, int] = {}
        self.handlers: frozenset[str] = frozenset()
        """Runtime handlers that can make a user namespace; "" is the default one."""

    async def load(self) -> None:
        """Raises Retryable."""
        for row in await self._store.list(PREFIX):
            try:
                self._first_ids[row.key.removeprefix(PREFIX)] = int(row.value)
            except ValueError:
                logger.warning("record row {} is no range of IDs and is left alone", row.key)

    def first_id(self, uid: str) -> int | None:
        """The host's ID of the pod's root; None where the pod has the host's users."""
        return self._first_ids.get(uid)

    async def take(self, pod: Pod, handler: str) -> None:
        """Have a range for the pod, where it asks for one. Raises Permanent where it can't have one, or Retryable."""
        if pod.spec.hostUsers is not False or pod.uid in self._first_ids:
            return
        if handler not in self.handlers:
            who = f'RuntimeClass handler "{handler}"' if handler else "runtime"
            why = f"can't set `spec.hostUsers: false`, {who} does not support user namespaces"
            raise Permanent("FailedCreatePodSandBox", why)
        taken = set(self._first_ids.values())
        free = next((number * IDS for number in range(1, _LAST + 1) if number * IDS not in taken), None)
        if free is None:
            raise Permanent("FailedCreatePodSandBox", "no range of user IDs is free for another user namespace")
        self._first_ids[pod.uid] = free
        try:
            await self._store.put(PREFIX + pod.uid, str(free).encode())
        except BaseException:
            del self._first_ids[pod.uid]
            raise

    async def forget(self, uid: str) -> None:
        """The pod is gone. Raises Retryable: its range stays taken."""
        if uid in self._first_ids:
            await self._store.delete(PREFIX + uid)
            del self._first_ids[uid]
