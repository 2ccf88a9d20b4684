"""What the node package needs of the rest of the agent beside the API server: word of the runtime, and events."""

from __future__ import annotations

from typing import Protocol

import msgspec

from agent.model.objects import ObjectReference


class RuntimeCondition(msgspec.Struct, frozen=True):
    """RuntimeReady or NetworkReady, as the CRI's Status tells it."""

    ready: bool = True
    reason: str = ""
    message: str = ""


class RuntimeHandler(msgspec.Struct, frozen=True):
    """A way to run containers (a RuntimeClass' handler); "" is the default one."""

    name: str = ""
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


class RuntimeHealth(msgspec.Struct, frozen=True):
    """The container runtime now. `down` is why it does not answer, empty where it does."""

    runtime: RuntimeCondition = RuntimeCondition()
    network: RuntimeCondition = RuntimeCondition()
    down: str = ""
    name: str = ""
    """As the runtime says it, "containerd"; it and the version may be kept from before while it is down."""
    version: str = ""
    handlers: tuple[RuntimeHandler, ...] = ()
    supplemental_groups_policy: bool | None = None
    """None: the runtime does not say."""
    declared_features: tuple[str, ...] = ()
    """status.declaredFeatures, sorted: what the scheduler asks for before it sends a pod that needs it."""


class NodeImage(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    """Digests before tags."""
    size_bytes: int


class Runtime(Protocol):
    """Word of the runtime. Both raise an error of ours where it does not answer: the Node is NotReady then."""

    async def health(self) -> RuntimeHealth: ...
    async def images(self) -> tuple[NodeImage, ...]: ...


class Events(Protocol):
    """`agent.pods.ports.Events`."""

    def record(self, about: ObjectReference, kind: str, reason: str, message: str) -> None: ...
