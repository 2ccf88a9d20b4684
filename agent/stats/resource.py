"""A reading as /metrics/resource: CPU and memory of the node, its pods and containers, each with its moment. Pure.

It is what metrics-server asks for, and through it `kubectl top` and the autoscalers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.exposition import Exposition, Kind
from agent.stats.cgroups import Usage
from agent.stats.figures import Reading

_Row = tuple[dict[str, str], Usage, int]
"""Labels, usage, start in Unix nanoseconds."""


def resource_metrics(reading: Reading) -> str:
    pods = [({"namespace": pod.namespace, "pod": pod.name}, pod.usage, 0) for pod in reading.pods if pod.usage]
    containers: list[_Row] = [
        ({"container": one.name, "namespace": pod.namespace, "pod": pod.name}, one.usage, one.started_at_ns)
        for pod in reading.pods
        for one in pod.containers
    ]
    node: list[_Row] = [({}, reading.node, 0)] if reading.node is not None else []
    out = Exposition()
    for level, rows in (("container", containers), ("node", node), ("pod", pods)):
        for series, kind, read in _SERIES:
            out.family(f"{level}_{series}", kind, f"{_ABOUT[series]} of the {level}.")
            _write(out, rows, read)
    out.family("container_swap_limit_bytes", Kind.GAUGE, "Swap that the container may use.")
    _write(out, ((labels, usage, at) for labels, usage, at in containers if usage.swap_limit), _swap_limit)
    out.family("container_start_time_seconds", Kind.GAUGE, "When the container was started, in Unix seconds.")
    for labels, _, started_at_ns in containers:
        out.sample(started_at_ns / 1e9, labels)
    out.family("resource_scrape_error", Kind.GAUGE, "1 where the node's figures could not be read.")
    out.sample(0 if reading.node is not None else 1)
    return out.text()


def _write(out: Exposition, rows: Iterable[_Row], read: Callable[[Usage], float]) -> None:
    for labels, usage, _ in rows:
        out.sample(read(usage), labels, usage.at_ns // 1_000_000)


def _swap_limit(usage: Usage) -> float:
    return usage.swap_limit or 0


_SERIES: tuple[tuple[str, Kind, Callable[[Usage], float]], ...] = (
    ("cpu_usage_seconds_total", Kind.COUNTER, lambda usage: usage.cpu_ns / 1e9),
    ("memory_working_set_bytes", Kind.GAUGE, lambda usage: usage.working_set_bytes),
    ("swap_usage_bytes", Kind.GAUGE, lambda usage: usage.swap_bytes),
)
_ABOUT = {
    "cpu_usage_seconds_total": "CPU time",
    "memory_working_set_bytes": "Memory without what the kernel would drop first",
    "swap_usage_bytes": "Swap",
}
