"""What an agent costs: memory and CPU of its process and children."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process with its children. Memory in MiB; CPU seconds since the start."""

    rss: float
    pss: float
    cpu: float


def usage_of(pid: int) -> Usage:
    rss = pss = cpu = 0.0
    for process in family(pid):
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


def family(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
