"""What an agent costs: memory and CPU of its process and children, requests to the API server."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """At one moment. Memory in MiB; CPU seconds and requests since the start."""

    rss: float
    pss: float
    cpu: float
    requests: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process with its children. Memory in MiB; CPU seconds since the start."""

    rss: float
    pss: float
    cpu: float


def usage_of(pid: int) -> Usage:
    rss = pss = cpu = 0.0
    for process in _family(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                words = line.split()
                rss += int(words[1]) / 1024 if words[0] == "Rss:" else 0
                pss += int(words[1]) / 1024 if words[0] == "Pss:" else 0
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a child that has ended meanwhile
        cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Usage(rss, pss, cpu)


def cost_of(pid: int, node: str, audit_log: Path) -> Cost:
    """`audit_log` holds only requests of nodes, one a line."""
    used = usage_of(pid)
    user = f'"username":"system:node:{node}"'
    with audit_log.open() as lines:
        requests = sum(user in line for line in lines)
    return Cost(used.rss, used.pss, used.cpu, requests)


def _family(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found
