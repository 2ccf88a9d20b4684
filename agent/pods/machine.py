"""What all pod workers of a node share: the adapters they act through and the facts they translate with.

Made once by the provider. Of all facts only the node's resolver changes while the agent runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.clock import SystemClock, age_by_wall
from agent.pods.admission.gate import Gate
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.devices.devices import Devices
from agent.pods.downward import NodeContext
from agent.pods.garbage.kept import KeptPods
from agent.pods.hooks import Hooks
from agent.pods.image_rewrites import NO_REWRITES, Rewrites
from agent.pods.knowledge import USUAL_RETENTION, Retention
from agent.pods.logfiles import LogFiles
from agent.pods.network.networking import PodNetworking
from agent.pods.observe import Observer
from agent.pods.policing import Policing
from agent.pods.ports import CredentialSources, Events, Images, Logins, Objects, Runtime, Tokens
from agent.pods.probes.prober import Prober
from agent.pods.pull_records import PullRecords
from agent.pods.pulls import PullGate
from agent.pods.scripts.scripts import Scripts
from agent.pods.silence import Silence
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.dns import read_resolv_conf
from agent.pods.turns import StartTurns
from agent.pods.user_namespaces import UserNamespaces
from agent.pods.volumes.pod_volumes import PodVolumes


class Machine(msgspec.Struct):
    runtime: Runtime
    images: Images
    observer: Observer
    objects: Objects
    tokens: Tokens
    events: Events
    volumes: PodVolumes
    prober: Prober
    hooks: Hooks
    log_files: LogFiles
    scripts: Scripts
    gate: Gate
    users: UserNamespaces
    translate: TranslateContext
    node: NodeContext
    cgroups: CgroupTree
    starts: StartTurns
    """Sandboxes and containers made at the same time."""
    pulls: PullGate
    silence: Silence
    """Which registries take connections and do not answer."""
    access: PullRecords
    """Which images that are here a pod may use without a pull."""
    kept: KeptPods
    """Ended pods that stay for a while."""
    rewrites: Rewrites = NO_REWRITES
    """Where images come from that pods call something else."""
    offline_images: bool = True
    """A present image does for the policy Always while the registry is away."""
    retention: Retention = USUAL_RETENTION
    policing: Policing = msgspec.field(default_factory=Policing)
    """What each pod's annotations, and the defaults, ask of the node."""
    logins: Logins | None = None
    """The node's own to registries; None: it has none."""
    plugins: CredentialSources | None = None
    """Programs that give credentials for images; None: there are none."""
    devices: Devices | None = None
    """Of device plugins; None: this node takes none."""
    networking: PodNetworking | None = None
    """What policies ask of a pod's network; None: nothing is done for them."""
    resolv_conf: Path | None = None
    """The node's, which changes with its network; None: `translate` has all there is to know."""
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    since: Callable[[float], float] = SystemClock().since
    """As `agent.clock.NodeClock`."""
    age: Callable[[int], float] = age_by_wall
    """Seconds since a moment that the runtime wrote (Unix nanoseconds) of what lives now."""

    def translate_for(self, uid: str) -> TranslateContext:
        """What that pod is translated with."""
        first_id = self.users.first_id(uid)
        return self.translate if first_id is None else replace(self.translate, first_user_id=first_id)

    async def look_at_resolver(self) -> None:
        """A pod that is made now gets the servers that the node has now."""
        if self.resolv_conf is not None:
            found = await asyncio.to_thread(read_resolv_conf, self.resolv_conf)
            self.translate = replace(self.translate, resolv_conf=found)
