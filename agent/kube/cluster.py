"""Which cluster this node belongs to, and whether an answer is that cluster's.

A cluster has no name of its own. What tells one from another is the UID of an object that every cluster has for life:
the namespace kube-system, the usual cluster id, which a node's identity may read only where
`config/cluster/identity.yaml` allows it; the service `default/kubernetes`, which every node may read and which the API
server makes anew only when somebody deletes it; and the own Node, which `kubectl delete node` replaces. kube-system
decides where both sides have it, else one of the others that is as recorded is enough: UIDs are never given twice, and
a restored backup keeps them. The CA says nothing more (TLS has checked it, and it may be renewed), nor does the issuer
of tokens (most clusters have the same).

An answer is tied to its cluster by the header in which API servers name the flow schema, an object of the cluster
too: one that was not met yet is followed by one GET of the service, and never again. Where a proxy takes the header
away, the service is asked for at most every ten seconds. The first cluster that answers is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Final

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Forbidden, NotFound, Retryable
from agent.kube.answers import check, decode_object, error_of
from agent.kube.rest import Ask
from agent.store.base import CLUSTER, Store

FLOW_SCHEMA: Final = "X-Kubernetes-PF-FlowSchema-UID"
SERVICE: Final = "/api/v1/namespaces/default/services/kubernetes"
NAMESPACE: Final = "/api/v1/namespaces/kube-system"
UNMARKED_GOOD_S = 10.0
"""How long answers without the header are believed after the service was asked for."""
REFUSED_S = 1.0
"""Many wait for an answer at once: a cluster that is not ours is not asked again by each of them."""
SHOUT_EVERY_S = 600.0
"""Two clusters behind one address must not fill the log."""
ACCEPT: Final = "edgelet store forget-cluster"


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """UIDs; empty where it is not known: not readable, or there is none."""

    service: str = ""
    namespace: str = ""
    node: str = ""


class Verdict(Enum):
    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


def judge(recorded: Identity, seen: Identity) -> Verdict:
    """Whether what is seen now belongs to the recorded cluster. Pure."""
    if recorded.namespace and seen.namespace:
        return Verdict.SAME if recorded.namespace == seen.namespace else Verdict.OTHER
    pairs = ((recorded.service, seen.service), (recorded.node, seen.node))
    if any(one and one == other for one, other in pairs):
        return Verdict.SAME
    return Verdict.OTHER if any(one and other for one, other in pairs) else Verdict.UNKNOWN


class OwnNode(msgspec.Struct, frozen=True):
    path: str
    uid: Callable[[], str]
    """As last seen in the cluster, by this agent or one before; empty: never."""


class ClusterGuard:
    """Fits `agent.kube.rest.Judge`."""

    def __init__(
        self, store: Store, node: OwnNode, has_pods: Callable[[], Awaitable[bool]], now: Callable[[], float]
    ) -> None:
        """`has_pods`: whether the record has pods of the API server's; may raise Retryable. `now`: monotonic."""
        self._store = store
        self._node = node
        self._has_pods = has_pods
        self._now = now
        self._recorded: Identity | None = None
        self._loaded = self._complete = False
        self._good: dict[str, float] = {}
        """Flow schemas of this cluster, and until when answers with them are believed."""
        self._refused: dict[str, tuple[float, str]] = {}
        self._asking = asyncio.Lock()
        self._said = ""
        self._shouted_at = -SHOUT_EVERY_S
        self._told: list[Callable[[str], None]] = []
        self.foreign = ""
        """Why the cluster that answers is not this node's; empty: it is, as far as is known."""

    def on_foreign(self, told: Callable[[str], None]) -> None:
        """Call `told` with the reason when another cluster answers, and with none when that is over."""
        self._told.append(told)

    async def believe(self, headers: Mapping[str, str], ask: Ask) -> None:
        """Raises Retryable where the answer is another cluster's, or nobody can tell whose it is."""
        mark = headers.get(FLOW_SCHEMA, "")
        if self._now() < self._good.get(mark, 0.0):
            if mark and self.foreign:
                self._is_ours()
            return
        async with self._asking:
            now = self._now()
            if now < self._good.get(mark, 0.0):
                return
            until, why = self._refused.get(mark, (0.0, ""))
            if now < until:
                raise Retryable(why)
            try:
                await self._verify(ask)
            except Retryable as error:
                self._refused = {mark: (self._now() + REFUSED_S, str(error))}
                self._say(str(error))
                raise
            self._good[mark] = self._now() + UNMARKED_GOOD_S if not mark else float("inf")
            self._say("")

    async def _verify(self, ask: Ask) -> None:
        await self._load()
        seen = Identity(service=await _uid(ask, SERVICE))
        if self._recorded is not None and judge(self._recorded, seen) is Verdict.SAME:
            if not self._recorded.namespace and not self._complete:
                await self._record(msgspec.structs.replace(self._recorded, namespace=await _uid(ask, NAMESPACE)))
            self._is_ours()
            return
        seen = Identity(seen.service, await _uid(ask, NAMESPACE), await _uid(ask, self._node.path))
        if self._recorded is None:
            await self._record(seen)
            self._is_ours()
            return
        recorded = msgspec.structs.replace(self._recorded, node=self._node.uid() or self._recorded.node)
        match judge(recorded, seen):
            case Verdict.SAME:
                service, namespace = seen.service or recorded.service, seen.namespace or recorded.namespace
                await self._record(Identity(service, namespace, seen.node or recorded.node))
            case Verdict.OTHER if not await self._has_pods():
                logger.warning("another cluster answers; this node has no pods of its former one and goes with it")
                self._good.clear()
                await self._record(seen)
            case Verdict.OTHER:
                self._is_foreign(
                    f"it is another cluster's (service default/kubernetes has the UID {seen.service or 'none'},"
                    f" not {recorded.service or 'none'})"
                )
                raise Retryable(f"the API server's word is not taken: {self.foreign}")
            case Verdict.UNKNOWN:
                raise Retryable("the API server's word is not taken: it does not show whose cluster it is")
        self._is_ours()

    async def _load(self) -> None:
        if self._loaded:
            return
        row = await self._store.get(CLUSTER)
        try:
            self._recorded = msgspec.json.decode(row.value, type=Identity) if row is not None else None
        except msgspec.DecodeError as error:
            logger.error("the recorded cluster can't be read, and the one that answers is taken for it: {}", error)
        self._loaded = True

    async def _record(self, seen: Identity) -> None:
        """Once an agent's life at most where nothing changes."""
        if seen == Identity() and not self._complete:
            logger.warning("the API server shows nothing that tells its cluster from another")
        self._complete = True
        if seen not in (self._recorded, Identity()):
            self._recorded = seen
            await self._store.put(CLUSTER, msgspec.json.encode(seen))

    def _is_ours(self) -> None:
        if self.foreign:
            logger.info("this node's own cluster answers again")
            self._turn("")

    def _is_foreign(self, why: str) -> None:
        if why != self.foreign:
            # Without the header nobody can tell that one of before is not meant.
            self._good.pop("", None)
            if self._now() - self._shouted_at >= SHOUT_EVERY_S:
                self._shouted_at = self._now()
                logger.error(
                    "the API server answers, but {}. Pods go on as they are and nothing of it is taken."
                    " If the node shall belong to it: stop the agent, run `{}`, start it; that ends pods it lacks",
                    why,
                    ACCEPT,
                )
            self._turn(why)

    def _turn(self, why: str) -> None:
        self.foreign = why
        for told in self._told:
            told(why)

    def _say(self, why: str) -> None:
        """A doubt, once; of another cluster `_is_foreign` has said more."""
        if why and why != self._said and not self.foreign:
            logger.warning("{}", why)
        self._said = why


async def _uid(ask: Ask, path: str) -> str:
    """Of the object at a path; empty where there is none, or it must not be read. Raises Retryable."""
    status, answer, headers = await ask(path)
    try:
        if status >= 300:
            raise error_of(status, answer, headers, f"GET {path}")
        check("GET", path, answer)
        return str(decode_object(answer, f"GET {path}")["metadata"]["uid"])
    except NotFound:
        return ""
    except Forbidden as error:
        if status == 401:
            raise Retryable(f"the API server's word is not taken: {error}") from error
        return ""
    except EdgeletError as error:
        raise Retryable(f"the API server's word is not taken: {error}") from error
