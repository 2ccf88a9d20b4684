"""Read pods as the runtime has them: sandboxes and containers that carry our label, in CRI terms, to frozen values.

In: a pod's UID, or nothing for all of them. Out: ObservedPods. Sandboxes and containers of others are never listed.
What cannot change any more (an ended container, a sandbox's address) is read once and remembered until it is gone.
To list is dear where there are many pods: containerd copies all that it has to find the few that are asked for. So of a
pod of which nothing was begun the runtime has nothing, and of one whose sandbox and containers are known a look asks
for the status of those that live. What is made or removed by others the next look at everything finds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from agent.cri._generated import api_pb2
from agent.errors import NotFound
from agent.model import labels
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from agent.pods.ports import Runtime

_STATES = {
    api_pb2.CONTAINER_CREATED: ContainerState.CREATED,
    api_pb2.CONTAINER_RUNNING: ContainerState.RUNNING,
    api_pb2.CONTAINER_EXITED: ContainerState.EXITED,
    api_pb2.CONTAINER_UNKNOWN: ContainerState.UNKNOWN,
}

REMEMBERED_ENDS = 256
LATE_S = 30.0
"""What an agent before this one asked for is there this long after it at the latest."""
FEW = 4
"""So many that live are asked for one by one."""
_CALLER_WENT = ("context canceled", "start failed: : signal: killed")

LastWords = Callable[[api_pb2.ContainerStatus], Awaitable[str]]
"""The termination message of a container that has ended: from its file, or the tail of its log."""


class Listed(msgspec.Struct):
    """What the runtime had of a pod when it was last asked, and what was made of it since."""

    sandboxes: list[api_pb2.PodSandbox]
    containers: list[api_pb2.Container]
    grew: bool = False
    ended: bool = False
    """Something of it did, since it was last asked."""

    @property
    def alive(self) -> int:
        ready = sum(one.state == api_pb2.SANDBOX_READY for one in self.sandboxes)
        return ready + sum(one.state != api_pb2.CONTAINER_EXITED for one in self.containers)

    def add_sandbox(self, sandbox_id: str, config: api_pb2.PodSandboxConfig) -> None:
        made = api_pb2.PodSandbox(id=sandbox_id, metadata=config.metadata, labels=config.labels)
        self.sandboxes.append(made)  # ready, which is the value 0

    def add_container(self, container_id: str, sandbox_id: str, config: api_pb2.ContainerConfig) -> None:
        self.containers.append(
            api_pb2.Container(
                id=container_id,
                pod_sandbox_id=sandbox_id,
                metadata=config.metadata,
                labels=config.labels,
                state=api_pb2.CONTAINER_RUNNING,
            )
        )


class Observer:
    """One for all pods of a node; `node_name` is the value of our label."""

    def __init__(
        self,
        runtime: Runtime,
        node_name: str,
        last_words: LastWords,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._node = node_name
        self._last_words = last_words
        self._sandboxes: dict[str, ObservedSandbox] = {}
        self._containers: dict[str, ObservedContainer] = {}
        self._owners: dict[str, str] = {}
        self._listed: dict[str, Listed] = {}
        """By pod's UID, while nothing speaks against it."""
        self._ending: Counter[str] = Counter()
        """Sandboxes and containers that calls are under way for, each with the number of them."""
        self._begun: dict[str, int] = {}
        """UIDs of the pods of which the runtime may have something, with the number of the look that was the newest."""
        self._looks = 0
        self._monotonic = monotonic
        self._knows_all_from = float("inf")
        self._ended_unseen: dict[str, None] = {}
        """Containers that nobody had seen when the runtime told their end."""

    async def observe(self, uid: str, namespace: str, name: str) -> ObservedPod:
        """One pod, read afresh. Raises Retryable while the runtime is away."""
        listed, ask = self._listed.get(uid), False
        if uid not in self._begun and self._monotonic() >= self._knows_all_from:
            listed = self._listed[uid] = Listed([], [])
        elif listed is None or not 0 < listed.alive <= FEW:
            listed = await self._list(uid)
        else:
            ask = listed.ended or not listed.grew  # what was made since tells enough of what it was made in
            listed.grew = listed.ended = False
        return await self._pod(uid, namespace, name, listed, ask=ask)

    async def _list(self, uid: str) -> Listed:
        mine = {labels.POD_UID: uid, labels.NODE: self._node}
        listed = self._listed[uid] = Listed([], [])
        sandboxes, containers = await asyncio.gather(
            self._runtime.list_pod_sandbox(api_pb2.PodSandboxFilter(label_selector=mine)),
            self._runtime.list_containers(api_pb2.ContainerFilter(label_selector=mine)),
        )
        listed.sandboxes, listed.containers = list(sandboxes), list(containers)
        return listed

    @contextmanager
    def making(self, uid: str) -> Iterator[Listed]:
        """While something of the pod is made: add it, once it is there. Where that fails, the next look lists."""
        listed = self._listed.get(uid)
        self._begun[uid] = self._looks
        try:
            yield listed or Listed([], [])
        except BaseException:
            self.doubt(uid)
            raise
        if listed is not None:
            listed.grew = True
        self._begun[uid] = self._looks  # a look at everything that began before may not have met it

    @contextmanager
    def ending(self, *object_ids: str) -> Iterator[None]:
        """While we have them stopped or removed: what an event tells of them, the answer tells, too."""
        self._ending.update(object_ids)
        try:
            yield
        finally:
            self._ending.subtract(object_ids)
            self._ending = +self._ending
            for uid in {uid for one in object_ids if (uid := self._owners.get(one))}:
                self.end(uid)

    def is_ending(self, object_id: str) -> bool:
        return object_id in self._ending

    def is_sandbox(self, object_id: str) -> bool | None:
        """None where it was never seen."""
        return object_id in self._sandboxes if object_id in self._owners else None

    def end(self, uid: str) -> None:
        """Something of the pod ended: the next look asks for all of it, whatever was made since."""
        if listed := self._listed.get(uid):
            listed.ended = True

    def doubt(self, uid: str) -> None:
        """Something of the pod is gone, or may be there: the next look lists."""
        self._listed.pop(uid, None)
        self._begun[uid] = self._looks

    async def observe_all(self) -> Mapping[str, ObservedPod]:
        """Every pod that the runtime has for this node, by UID. Also forgets what is gone from the runtime."""
        mine = {labels.NODE: self._node}
        self._looks += 1
        try:
            sandboxes, containers = await asyncio.gather(
                self._runtime.list_pod_sandbox(api_pb2.PodSandboxFilter(label_selector=mine)),
                self._runtime.list_containers(api_pb2.ContainerFilter(label_selector=mine)),
            )
        except BaseException:
            # A pod must find out that the runtime is away before it begins.
            self._knows_all_from = float("inf")
            raise
        self._keep({s.id for s in sandboxes}, {c.id for c in containers})
        pods: dict[str, tuple[list[api_pb2.PodSandbox], list[api_pb2.Container]]] = {}
        for sandbox in sandboxes:
            pods.setdefault(sandbox.labels[labels.POD_UID], ([], []))[0].append(sandbox)
        for container in containers:
            pods.setdefault(container.labels[labels.POD_UID], ([], []))[1].append(container)

        def read(uid: str) -> Coroutine[None, None, ObservedPod]:
            own_sandboxes, own_containers = pods[uid]
            named = (own_sandboxes or own_containers)[0].labels
            listed = Listed(own_sandboxes, own_containers)
            return self._pod(uid, named[labels.POD_NAMESPACE], named[labels.POD_NAME], listed)

        for uid in [one for one, look in self._begun.items() if look < self._looks and one not in pods]:
            del self._begun[uid]
            self._listed.pop(uid, None)
        self._begun |= dict.fromkeys(pods, self._looks)
        self._knows_all_from = min(self._knows_all_from, self._monotonic() + LATE_S)
        # At a start nothing is known of any, and a Node waits for all of them to be Ready.
        return {pod.uid: pod for pod in await asyncio.gather(*map(read, pods))}

    def knows(self, container_id: str, state: ContainerState) -> bool:
        """Whether a container was last seen in this state: an event that says so is no news."""
        known = self._containers.get(container_id)
        return known is not None and known.state is state

    def owner(self, object_id: str) -> str | None:
        """The UID of the pod that a sandbox or container belongs to, None where it was never seen."""
        return self._owners.get(object_id)

    def hear_end(self, container_id: str) -> None:
        """The runtime told the end of what `owner` does not know: an answer of before that may still be on its way."""
        self._ended_unseen[container_id] = None
        if len(self._ended_unseen) > REMEMBERED_ENDS:
            del self._ended_unseen[next(iter(self._ended_unseen))]

    def forget(self, pod: ObservedPod) -> None:
        """The pod's objects were removed from the runtime."""
        self.doubt(pod.uid)
        for sandbox in pod.sandboxes:
            self._sandboxes.pop(sandbox.id, None)
            self._owners.pop(sandbox.id, None)
        for container in pod.containers:
            self._containers.pop(container.id, None)
            self._owners.pop(container.id, None)

    async def _pod(self, uid: str, namespace: str, name: str, listed: Listed, *, ask: bool = False) -> ObservedPod:
        """`ask`: how those are that lived when they were listed."""
        sandboxes = [(one, s) for one in listed.sandboxes if (s := await self._sandbox(one, ask=ask))]
        containers = [(one, c) for one in listed.containers if (c := await self._container(one, ask=ask))]
        listed.sandboxes, listed.containers = [one for one, _ in sandboxes], [one for one, _ in containers]
        newest_first = sorted((c for _, c in containers), key=lambda c: (c.attempt, c.created_at_ns), reverse=True)
        return ObservedPod(
            uid,
            namespace,
            name,
            tuple(sorted((s for _, s in sandboxes), key=lambda s: (s.attempt, s.created_at_ns), reverse=True)),
            tuple(c for c in newest_first if not _is_abandoned(c)),
            tuple(c for c in newest_first if _is_abandoned(c)),
        )

    async def _sandbox(self, listed: api_pb2.PodSandbox, *, ask: bool) -> ObservedSandbox | None:
        ready = listed.state == api_pb2.SANDBOX_READY
        known = self._sandboxes.get(listed.id)
        if known is not None and known.ready == ready and not (ask and ready):
            return known
        ips, created_at = known.ips if known else (), listed.created_at
        if ready:
            try:
                status = (await self._runtime.pod_sandbox_status(listed.id)).status
            except NotFound:
                return None
            network, created_at, listed.state = status.network, status.created_at, status.state
            # A network that was taken down has none any more.
            ips = tuple(ip for ip in (network.ip, *(more.ip for more in network.additional_ips)) if ip) or ips
            ready = status.state == api_pb2.SANDBOX_READY
        seen = ObservedSandbox(listed.id, listed.metadata.attempt, ready, created_at, ips)
        self._sandboxes[listed.id] = seen
        self._owners[listed.id] = listed.labels[labels.POD_UID]
        return seen

    async def _container(self, listed: api_pb2.Container, *, ask: bool) -> ObservedContainer | None:
        state = _STATES[listed.state]
        known = self._containers.get(listed.id)
        if known is not None and known.state is state and not (ask and state is not ContainerState.EXITED):
            return known
        try:
            status = (await self._runtime.container_status(listed.id)).status
            if _STATES[status.state] is ContainerState.RUNNING and listed.id in self._ended_unseen:
                status = (await self._runtime.container_status(listed.id)).status
        except NotFound:
            return None
        self._ended_unseen.pop(listed.id, None)
        # The status is younger than the list, and the only one that counts.
        listed.state, state = status.state, _STATES[status.state]
        if known is not None and known.state is state:
            return known
        message = status.message
        if state is ContainerState.EXITED:
            message = ": ".join(part for part in (message, await self._last_words(status)) if part)
        seen = ObservedContainer(
            id=listed.id,
            name=listed.labels[labels.CONTAINER_NAME],
            sandbox_id=listed.pod_sandbox_id,
            attempt=status.metadata.attempt,
            state=state,
            image=_spec_image(status),
            image_id=status.image_ref,
            spec_hash=status.annotations.get(labels.CONTAINER_HASH, ""),
            created_at_ns=status.created_at,
            started_at_ns=max(status.started_at, 0),
            finished_at_ns=max(status.finished_at, 0),
            exit_code=status.exit_code,
            reason=status.reason,
            message=message,
            user=_user(status),
        )
        self._containers[listed.id] = seen
        self._owners[listed.id] = listed.labels[labels.POD_UID]
        return seen

    def _keep(self, sandboxes: set[str], containers: set[str]) -> None:
        for gone in self._sandboxes.keys() - sandboxes:
            del self._sandboxes[gone]
            self._owners.pop(gone, None)
        for gone in self._containers.keys() - containers:
            del self._containers[gone]
            self._owners.pop(gone, None)


def _is_abandoned(container: ObservedContainer) -> bool:
    """An agent that dies during StartContainer takes the call with it, and containerd fails the start for that."""
    return (
        container.state is ContainerState.EXITED
        and not container.started_at_ns
        and container.reason == "StartError"
        and any(sign in container.message for sign in _CALLER_WENT)
    )


def _spec_image(status: api_pb2.ContainerStatus) -> str:
    named = status.image.user_specified_image or status.annotations.get(labels.CONTAINER_IMAGE)
    return named or status.image.image


def _user(status: api_pb2.ContainerStatus) -> tuple[int, int, tuple[int, ...]] | None:
    if not status.HasField("user") or not status.user.HasField("linux"):
        return None
    linux = status.user.linux
    return linux.uid, linux.gid, tuple(linux.supplemental_groups)
