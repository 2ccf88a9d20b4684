"""Whom a probe or a lifecycle hook asks: a running container and its address. Pure."""

from __future__ import annotations

import msgspec

from agent.model.container import Container
from agent.model.objects import ObjectReference
from agent.model.pod import Pod


class Target(msgspec.Struct, frozen=True):
    pod: Pod
    container: Container
    container_id: str
    pod_ip: str

    def port(self, wanted: int | str) -> int:
        """A port by its number, or by the name that the container gives it. Raises ValueError."""
        for declared in self.container.ports:
            if isinstance(wanted, str) and declared.name == wanted:
                return declared.containerPort
        if isinstance(wanted, str) and not wanted.isdecimal():
            raise ValueError(f"port {wanted} not found in container {self.container.name}")
        if not 0 < int(wanted) < 65536:
            raise ValueError(f"invalid port number: {wanted}")
        return int(wanted)

    @property
    def reference(self) -> ObjectReference:
        """What an event about the container is about."""
        name = self.container.name
        return ObjectReference.of(self.pod, f"spec.{self.pod.spec.part_of(name)}{{{name}}}")


def go_duration(seconds: float) -> str:
    """As Go prints it: 10s, 2m40s, 1h0m0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    above = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{above}{rest:g}s"


def host_port(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
