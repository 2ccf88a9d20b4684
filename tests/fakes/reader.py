"""Who reads the runtime's events, and what it knows; at first nothing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class FakeReader:
    ending: set[str] = field(default_factory=set)
    sandboxes: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)

    def is_ending(self, object_id: str) -> bool:
        return object_id in self.ending

    def is_sandbox(self, object_id: str) -> bool | None:
        return object_id in self.sandboxes if object_id in self.sandboxes | self.containers else None
