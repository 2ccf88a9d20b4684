"""What the pods package needs of the rest of the agent, as Protocols.

The API server's side (`agent.kube`), the runtime's side (`agent.cri`) and tests' fakes fit these by shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from agent.cri._generated import api_pb2
from agent.model.csi import Capability, PublishVolume, StageVolume
from agent.model.objects import ObjectKey as ObjectKey
from agent.model.objects import ObjectReference, Service
from agent.model.objects import Token as Token
from agent.model.pod import Pod
from agent.pods.credentials import Credential


class Objects(Protocol):
    """Referenced objects, fresh from the API server where it answers, else as recorded."""

    async def get(self, key: ObjectKey) -> bytes:
        """The object as JSON, in the record before it is returned.

        Raises NotFound where the API server said so, Forbidden, or Retryable where neither it nor the record answers.
        """

    def retain(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        """This pod refers to exactly these objects from now on: keep them fresh (watched) and wake it on a change."""

    def release(self, pod_uid: str) -> None:
        """The pod is gone: stop watching what nobody else refers to."""

    async def services(self, namespace: str) -> tuple[Service, ...]:
        """The namespace's services and those of `default/kubernetes`, for service environment variables."""


class Tokens(Protocol):
    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:
        """A token bound to the pod, from the cache while less than 80 % of its life is over.

        Raises Retryable, Forbidden or NotFound (no such service account).
        """

    async def forget(self, pod_uid: str) -> None:
        """The pod is gone: its tokens leave the record. Raises Retryable."""


class Driver(Protocol):
    """A CSI driver's node service. Raises DriverError; every call may be repeated."""

    async def capabilities(self) -> frozenset[Capability]: ...
    async def stage(self, volume: StageVolume, capabilities: frozenset[Capability]) -> None: ...
    async def unstage(self, volume_id: str, staging_path: str) -> None: ...
    async def publish(self, volume: PublishVolume, capabilities: frozenset[Capability]) -> None: ...
    async def unpublish(self, volume_id: str, target_path: str) -> None: ...


class Drivers(Protocol):
    """The CSI drivers on this machine."""

    def find(self, driver: str) -> Driver | None:
        """None: no driver of that name is registered (yet)."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a driver came."""


class Attachments(Protocol):
    """Volumes that a controller attaches to this node, by their unique names."""

    def found(self, names: Iterable[str]) -> None:
        """In use from before this start; called once."""

    def use(self, name: str) -> None:
        """It is about to be mounted."""

    def release(self, name: str) -> None:
        """Nothing of it is left on this machine."""

    async def attached(self, name: str, timeout_s: float) -> None:
        """Return once the API server has it in use and attached. Raises Retryable after that long."""


class Events(Protocol):
    def record(
        self,
        about: ObjectReference,
        kind: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Queue an event (`kind` Normal or Warning). Never blocks, never raises, aggregated."""


class Runtime(Protocol):
    """The part of CRI's RuntimeService that moves pods. Every call has its own deadline.

    Raises Retryable (runtime away or slow), NotFound, Conflict (name reserved), Permanent.
    """

    async def version(self) -> api_pb2.VersionResponse: ...
    async def list_pod_sandbox(
        self, filter_by: api_pb2.PodSandboxFilter | None = None
    ) -> Sequence[api_pb2.PodSandbox]: ...
    async def pod_sandbox_status(self, sandbox_id: str) -> api_pb2.PodSandboxStatusResponse: ...
    async def run_pod_sandbox(self, config: api_pb2.PodSandboxConfig, runtime_handler: str = "") -> str: ...
    async def stop_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def list_containers(
        self, filter_by: api_pb2.ContainerFilter | None = None
    ) -> Sequence[api_pb2.Container]: ...
    async def container_status(self, container_id: str) -> api_pb2.ContainerStatusResponse: ...
    async def create_container(
        self, sandbox_id: str, config: api_pb2.ContainerConfig, sandbox_config: api_pb2.PodSandboxConfig
    ) -> str: ...
    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, grace_s: int) -> None: ...
    async def remove_container(self, container_id: str) -> None: ...
    async def update_container_resources(self, container_id: str, linux: api_pb2.LinuxContainerResources) -> None: ...
    async def container_stats(self, container_id: str) -> api_pb2.ContainerStats: ...


class Images(Protocol):
    """The part of CRI's ImageService that moves pods."""

    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None:
        """None where the image is not here."""

    async def pull_image(
        self,
        image: api_pb2.ImageSpec,
        auth: api_pb2.AuthConfig | None = None,
        sandbox_config: api_pb2.PodSandboxConfig | None = None,
    ) -> str:
        """The image's reference. Ends only with the pull: cancel it to stop waiting."""


class CredentialSources(Protocol):
    async def credentials(self, image: str) -> tuple[Credential, ...]:
        """What to log in with beside the pod's own secrets, the most specific first. Rides out what fails."""


class Logins(Protocol):
    """The node's own logins to registries."""

    async def joined(self, image: str, others: Sequence[Credential]) -> tuple[Credential, ...]:
        """All there is for a pull, in the order to try; `others`: what the pod and the plugins have."""


Wake = Callable[[str], None]
"""Called with a pod's UID: look at this pod now."""
