"""A pod as the record keeps it: the typed view beside the raw object, so that nothing unknown is lost."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.pod import Pod, decode_pod


@dataclass(frozen=True, slots=True)
class PodRecord:
    pod: Pod
    raw: bytes
    """The v1.Pod as it came, JSON."""

    @classmethod
    def decode(cls, raw: bytes) -> PodRecord:
        """Raises msgspec.ValidationError naming the field path."""
        return cls(decode_pod(raw), raw)

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def is_terminating(self) -> bool:
        """Somebody asked for its deletion (or its manifest went): it may only end."""
        return self.pod.metadata.deletionTimestamp is not None
