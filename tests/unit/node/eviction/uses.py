"""Pods and what they use, for the tests of eviction."""

from __future__ import annotations

from typing import Any

from agent.model.pod import Pod
from agent.stats.cgroups import Details, Usage
from agent.stats.disk import FileSystem
from agent.stats.figures import ContainerFigures, PodFigures, Taken, VolumeFigures
from tests.unit.pods.pods import make_pod

MIB = 2**20


def pod(name: str, *, priority: int | None = None, **requests: str) -> Pod:
    """`requests` of its one container `main`, with `ephemeral_storage` for the resource of that name."""
    asked = {resource.replace("_", "-"): amount for resource, amount in requests.items()}
    main = {"name": "main", "image": "i", "resources": {"requests": asked}}
    more: dict[str, Any] = {} if priority is None else {"priority": priority}
    return make_pod({"name": name, "uid": name}, containers=[main], **more)


def usage(memory: int) -> Usage:
    return Usage(0, 0, memory, memory, memory, 0, 0, 0, 0, 0, None)


def figures(
    name: str, memory: int = 0, written: int = 0, log: int = 0, volume: int = 0, processes: int = 1, inodes: int = 0
) -> PodFigures:
    disk = FileSystem(0, 0, volume, 0, 0, inodes)
    container = ContainerFigures(
        "main", "c", "i", "/c", 0, usage(memory), writable=Taken(written, inodes), log=Taken(log, 1)
    )
    return PodFigures(
        "shop",
        name,
        name,
        0,
        "/p",
        usage(memory),
        (container,),
        details=Details(processes=processes),
        volumes=(
            VolumeFigures("cache", disk, on_node=True),
            VolumeFigures("claim", FileSystem(0, 0, 10**12, 0, 0, 1), "c"),
        ),
    )
