"""The counters of a network namespace's interfaces, by any process in it. Blocks for a moment."""

from __future__ import annotations

from pathlib import Path

import msgspec

MAIN = "eth0"
_VIRTUAL = ("lo", "veth", "bwp", "docker", "nerdctl", "cni", "podman")


class Interface(msgspec.Struct, frozen=True):
    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def interfaces(pid: int | None, proc: Path = Path("/proc")) -> tuple[Interface, ...]:
    """Of the namespace that the process is in, None: of our own. Without loopback and the host's ends of pods' links.

    None where the process is gone.
    """
    try:
        text = (proc / ("self" if pid is None else str(pid)) / "net" / "dev").read_text()
    except OSError:
        return ()
    found = []
    for line in text.splitlines()[2:]:
        name, _, counters = line.partition(":")
        name, numbers = name.strip(), [int(word) for word in counters.split()]
        if len(numbers) >= 12 and not name.startswith(_VIRTUAL):
            found.append(Interface(name, *numbers[0:4], *numbers[8:12]))
    return tuple(found)


def main(found: tuple[Interface, ...]) -> Interface | None:
    """The one that stands for all where only one is told."""
    return next((one for one in found if one.name == MAIN), found[0] if found else None)
