"""The provider contract: what somebody implements to run pods behind a Node. It is virtual-kubelet's, in Python.

The agent hands a provider the pods of its Node and takes back their status. Pods are told apart by UID: a pod that was
deleted and made again under the same name is another pod. All methods run on the agent's event loop and never block.

A required method that cannot do its work now raises `Retryable`; the agent calls it again, for ever, with a capped
backoff. `NotFound` and `Permanent` say what they say, and are 404 and 400 to a user. The optional Protocols, here and
in `agent.providers.streaming`, are found by shape: a provider that lacks one is asked in the older way (status polled)
or the feature is refused to users with 501.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from agent.clock import NodeClock, SystemClock
from agent.config import Settings
from agent.model.logs import LogOptions
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.node.eviction.ports import EvictablePods
from agent.node.policies import NodePolicing
from agent.node.ports import NodeImage, RuntimeHealth
from agent.node.pressure import NodePressure
from agent.node.shutdown import PodsToEnd
from agent.pods.admission.gate import NodeView
from agent.pods.cgroup_limits import CgroupLimits
from agent.pods.devices.devices import Devices
from agent.pods.policing import Policing
from agent.pods.ports import Attachments, Drivers, Events, Objects, Tokens
from agent.rush import Rush
from agent.store.base import Store


class PodUpdate(msgspec.Struct, frozen=True):
    """News of one pod from its provider."""

    record: PodRecord
    status: PodStatus
    gone: bool = False
    """Everything of the pod is down (containers ended, volumes unmounted): its API object may go now."""
    settle_s: float = 0.0
    """The provider expects a better status within this time: nobody needs to hear of this one before."""


PodUpdates = Callable[[PodUpdate], None]


class MachineFacts(msgspec.Struct, frozen=True):
    """The machine in the numbers that pods depend on."""

    memory_bytes: int
    allocatable: Mapping[str, str]
    """Quantities by resource name, always as of now: what an absent limit reads as in the downward API."""
    all_pods: CgroupLimits = msgspec.field(default_factory=CgroupLimits)
    """What the pods together may have of the machine."""
    others: Mapping[str, CgroupLimits] = msgspec.field(default_factory=dict)
    """The same for cgroups beside the pods', by path."""
    swap_bytes: int = 0


async def _at_once() -> None:
    """Nobody is told."""


class ProviderContext(msgspec.Struct, frozen=True):
    """What the agent gives a provider: its class is called with this one value."""

    settings: Settings
    store: Store
    objects: Objects
    """ConfigMaps, Secrets and Services that pods refer to."""
    tokens: Tokens
    events: Events
    facts: MachineFacts
    node_ips: Sequence[str]
    """The Node's InternalIPs as they are now, primary first."""
    health_changed: Callable[[], None]
    """Call it when the provider becomes able or unable to run pods: the Node says so at once."""
    node: NodeView | None = None
    """The own Node as the API server last showed it: labels, taints, allocatable. None: nobody watches it."""
    clock: NodeClock = msgspec.field(default_factory=SystemClock)
    """Its wall time is the machine's as long as that can be true."""
    pressure: NodePressure = msgspec.field(default_factory=NodePressure)
    """What the machine runs short of now: pods that come meanwhile are judged by it."""
    policing: Policing = msgspec.field(default_factory=Policing)
    """What annotations and defaults ask of the node for each pod (docs/policies.md)."""
    node_policies: NodePolicing | None = None
    """What annotations of the own Node set, and the settings under that; None: nobody reads them."""
    annotate: Callable[[str, str | None], None] = lambda _name, _value: None
    """Have this annotation on the Node, or have it no more (None): told soon, and again where somebody took it off."""
    rush: Rush = msgspec.field(default_factory=Rush)
    """A provider says here when pods start: what the agent can tell later waits for that."""
    first_word: Callable[[], Awaitable[object]] = _at_once
    """Returns once the API server was told how the Node is, or after half a second: what is to be done at a start for
    pods that run already can wait for that."""
    config_file: Path | None = None
    """`--provider-config`. What is in it is the provider's own matter: it raises ConfigError where that is wrong."""


class Provider(Protocol):
    """What every provider has.

    The agent looks after the pods of a provider: it asks for their status where `notify_pods` is missing, creates only
    what `get_pod` does not find, never creates a pod again that has ended, and tells the API server of a pod that the
    provider has lost. A provider that does all that itself, and keeps it over restarts, has the attribute
    `supervises_pods = True`: then each of its calls is the agent's own, and `gone` is its own to tell.
    """

    async def create_pod(self, record: PodRecord) -> None:
        """Run this pod. Called again after an error, and for the same pod if it was lost before it ran.

        To a provider that supervises its pods: after a restart of the agent also for pods that run, or have ended.
        """

    async def update_pod(self, record: PodRecord) -> None:
        """The pod's spec, labels or annotations changed (or, where it supervises its pods, only its status)."""

    async def delete_pod(self, record: PodRecord) -> None:
        """Begin to end the pod, within `deletionGracePeriodSeconds`, without waiting for the end.

        Called again when the grace period was shortened. The end is over when the pod's status says Succeeded or Failed
        with no container running, or `get_pod` does not find it any more. Raises NotFound where there is no such pod.
        """

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        """The newest pod of that name. Raises NotFound: this alone, said twice, makes a pod lost."""

    async def get_pod_status(self, namespace: str, name: str) -> PodStatus:
        """Its status now. Raises NotFound."""

    async def get_pods(self) -> tuple[PodRecord, ...]:
        """Every pod that the provider runs, also those that it found running when it started."""


ProviderClass = Callable[[ProviderContext], Provider]
"""What an entry point names. mypy names a missing method at `_: ProviderClass = lambda context: Mine(context)`."""


@runtime_checkable
class NotifiesPods(Protocol):
    def notify_pods(self, updates: PodUpdates) -> None:
        """Call `updates` whenever a pod's status may have changed. Given once, before the first pod."""


@runtime_checkable
class Runs(Protocol):
    async def run(self) -> None:
        """The provider's own work, for as long as the agent lives; cancelled at its end. Pods stay running."""


@runtime_checkable
class TellsHealth(Protocol):
    async def health(self) -> RuntimeHealth:
        """Whether pods can be run now; the Node's Ready condition follows it. Never raises."""

    async def images(self) -> tuple[NodeImage, ...]:
        """What the Node's status lists as its images; those last seen where they cannot be asked for. Never raises."""


@runtime_checkable
class HearsOfObjects(Protocol):
    def objects_changed(self, pod_uid: str) -> None:
        """A ConfigMap, Secret or Service that this pod refers to changed."""


@runtime_checkable
class HearsOfNode(Protocol):
    def node_changed(self, node: dict[str, Any]) -> None:
        """The own v1.Node as the API server shows it now."""

    def addresses_changed(self) -> None:
        """The Node has other addresses: `ProviderContext.node_ips` are others."""


@runtime_checkable
class HearsOfLink(Protocol):
    def link_returned(self) -> None:
        """The API server answers again after it did not: other servers that were away may be back too."""


@runtime_checkable
class UsesCsi(Protocol):
    def use_csi(self, drivers: Drivers, attachments: Attachments) -> None:
        """CSI drivers may register on this node; given once, before `run`. Not given to a standalone node."""


@runtime_checkable
class LetsEvict(Protocol):
    def evictable(self) -> EvictablePods:
        """The pods that the agent may end when the machine runs short, or when they write more than they may."""


@runtime_checkable
class EndsPods(Protocol):
    def pods_to_end(self) -> PodsToEnd:
        """The pods that the agent may end when the machine goes down. Given once, before `run`."""


@runtime_checkable
class UsesDevices(Protocol):
    def use_devices(self, devices: Devices) -> None:
        """Device plugins may register on this node; given once, before `run`."""


@runtime_checkable
class ReadsLogs(Protocol):
    def get_container_logs(self, namespace: str, pod: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The container's log as `kubectl logs` shows it. Raises NotFound, or Permanent for a bad request."""


@runtime_checkable
class MakesCheckpoints(Protocol):
    async def checkpoint_container(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
        """Write the state of a running container to an archive: its path. `timeout_s` 0: as long as it takes.

        Raises Permanent "Unimplemented" where that cannot be done here, NotFound or Retryable.
        """


@runtime_checkable
class ConfiguresNode(Protocol):
    async def configure_node(self, node: dict[str, Any]) -> None:
        """Change the v1.Node before it is registered: capacity, labels, nodeInfo."""


NodeStatusUpdates = Callable[[dict[str, Any]], None]


@runtime_checkable
class NotifiesNodeStatus(Protocol):
    def notify_node_status(self, updates: NodeStatusUpdates) -> None:
        """Call `updates` with a part of a v1.NodeStatus when the provider has news of its Node. Given once.

        The newest part is laid over the agent's own status: conditions by type, everything else by field.
        """


@runtime_checkable
class ReadsStats(Protocol):
    async def get_stats_summary(self) -> dict[str, Any]:
        """What the node's API serves at /stats/summary: a kubelet's Summary (stats/v1alpha1)."""


@runtime_checkable
class ReadsMetrics(Protocol):
    async def get_metrics_resource(self) -> str:
        """What the node's API serves at /metrics/resource, in Prometheus' text format."""


@runtime_checkable
class ReadsCadvisor(Protocol):
    async def get_metrics_cadvisor(self) -> str:
        """What the node's API serves at /metrics/cadvisor, in Prometheus' text format."""


@runtime_checkable
class ReadsVolumes(Protocol):
    async def get_metrics_volumes(self) -> str:
        """kubelet_volume_stats_* in Prometheus' text format: a part of what the node's API serves at /metrics."""


@runtime_checkable
class Pings(Protocol):
    async def ping(self) -> None:
        """Raises Retryable with the reason while the provider cannot run pods: the Node is NotReady meanwhile."""
