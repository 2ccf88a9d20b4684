"""A pod as the record keeps it: the typed view beside the raw object, so that nothing unknown is lost."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agent.model.labels import CONFIG_MIRROR, CONFIG_SOURCE
from agent.model.pod import Pod, decode_pod
from agent.model.status import PodStatus


class Origin(StrEnum):
    """Who names the pod: only a list of the same origin can take it away."""

    API = "api"
    FILE = "file"
    HTTP = "http"
    """A manifest from a URL."""


class _WithStatus(msgspec.Struct, frozen=True):
    status: PodStatus | None = None


class PodRecord(msgspec.Struct, frozen=True):
    pod: Pod
    raw: bytes
    """The v1.Pod as it came, JSON."""
    origin: Origin = Origin.API
    kind_change_refused: bool = False
    """A later change of its annotations asked for another kind of pod (`agent.pods.scripts.kind`) and was left out."""

    @classmethod
    def decode(cls, raw: bytes, origin: Origin = Origin.API) -> PodRecord:
        """Raises msgspec.ValidationError naming the field path."""
        pod = decode_pod(raw)
        annotations = pod.metadata.annotations or {}
        if annotations.get(CONFIG_SOURCE, Origin.API) != origin:
            # Anybody may write this annotation into the API; only a manifest on this machine makes a static pod.
            meta = msgspec.structs.replace(pod.metadata, annotations={**annotations, CONFIG_SOURCE: str(origin)})
            pod = msgspec.structs.replace(pod, metadata=meta)
        return cls(pod, raw, origin)

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def told_status(self) -> PodStatus | None:
        """What the API server has of the pod's status; None where no node has written one of its containers."""
        status = msgspec.json.decode(self.raw, type=_WithStatus).status
        return status if status is not None and status.containerStatuses else None

    @property
    def is_mirror(self) -> bool:
        """The API server's picture of a static pod: it is shown there, and never run."""
        return self.origin is Origin.API and CONFIG_MIRROR in (self.pod.metadata.annotations or {})

    @property
    def is_terminating(self) -> bool:
        """Somebody asked for its deletion (or its manifest went): it may only end."""
        return self.pod.metadata.deletionTimestamp is not None

    @property
    def is_removed(self) -> bool:
        """Of a pod that is to be deleted: nobody has it any more, as after a deletion by force or without grace."""
        meta = self.pod.metadata
        return not self.is_terminating or (meta.deletionGracePeriodSeconds == 0 and not meta.finalizers)
