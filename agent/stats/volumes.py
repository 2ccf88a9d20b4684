"""A reading as kubelet_volume_stats_*: the file systems of volumes that are claims. Pure."""

from __future__ import annotations

from collections.abc import Callable

from agent.exposition import Exposition, Kind
from agent.stats.disk import FileSystem
from agent.stats.figures import Reading

_SERIES: tuple[tuple[str, str, Callable[[FileSystem], int]], ...] = (
    ("capacity_bytes", "Size of the volume.", lambda disk: disk.capacity_bytes),
    ("available_bytes", "Free on the volume.", lambda disk: disk.available_bytes),
    ("used_bytes", "Used on the volume.", lambda disk: disk.used_bytes),
    ("inodes", "Inodes of the volume.", lambda disk: disk.inodes),
    ("inodes_free", "Free inodes of the volume.", lambda disk: disk.inodes_free),
    ("inodes_used", "Used inodes of the volume.", lambda disk: disk.inodes_used),
)


def volume_metrics(reading: Reading) -> str:
    """A claim that several pods use is told once."""
    claims = {(pod.namespace, v.claim): v.disk for pod in reading.pods for v in pod.volumes if v.claim}
    out = Exposition()
    for name, about, read in _SERIES:
        out.family(f"kubelet_volume_stats_{name}", Kind.GAUGE, about)
        for (namespace, claim), disk in claims.items():
            out.sample(read(disk), {"namespace": namespace, "persistentvolumeclaim": claim})
    return out.text()
