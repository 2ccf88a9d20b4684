"""A made-up machine and runtime for the node's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.config import Settings
from agent.errors import EdgeletError
from agent.model.objects import ObjectReference
from agent.node.facts import MachineFacts
from agent.node.ports import NodeImage, RuntimeHealth

FACTS = MachineFacts(
    cpus=4,
    memory_bytes=8 * 2**30,
    ephemeral_storage_bytes=100 * 2**30,
    pid_max=32768,
    hostname="edge",
    addresses=("10.1.2.3", "fd00::3"),
    architecture="arm64",
    machine_id="m",
    system_uuid="s",
    boot_id="boot-1",
    kernel_version="6.1.0",
    os_image="Debian GNU/Linux 12 (bookworm)",
    hugepages_bytes={"2Mi": 2**30, "1Gi": 0},
)
SETTINGS = Settings(node_name="edge-1")
HEALTH = RuntimeHealth(name="containerd", version="2.1.4")


@dataclass
class FakeRuntime:
    now: RuntimeHealth = HEALTH
    error: EdgeletError | None = None
    stored: tuple[NodeImage, ...] = (NodeImage(("docker.io/library/busybox:1",), 4_000_000),)

    async def health(self) -> RuntimeHealth:
        if self.error:
            raise self.error
        return self.now

    async def images(self) -> tuple[NodeImage, ...]:
        return self.stored


@dataclass
class FakeEvents:
    recorded: list[tuple[ObjectReference, str, str, str]] = field(default_factory=list)

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        self.recorded.append((about, kind, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason, _ in self.recorded]
