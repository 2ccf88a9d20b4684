"""The node's figures on a real runtime: they are the kernel's own, parse, and survive the agent."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version
from tests.integration.agent.edge import Edge
from tests.integration.agent.figures import page, run_busy, samples
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.skipif(cgroup_version() is CgroupVersion.V2, reason="compares with version 1's files")
PAGES = ("/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes")


def test_figures_are_the_kernels_and_counters_do_not_fall_when_the_agent_restarts(every_edge: Edge) -> None:
    edge = every_edge
    cgroup = run_busy(edge)
    cpu_file = CGROUP_FS / "cpuacct" / cgroup / "cpuacct.usage"

    def mine(path: str, name: str, **labels: str) -> Sample:
        wanted = {"namespace": edge.namespace, **labels}
        return next(s for s in samples(edge, path) if s.name == name and wanted.items() <= s.labels.items())

    for path in ("/metrics/resource", "/metrics/cadvisor"):
        before = int(cpu_file.read_text()) / 1e9
        told = mine(path, "container_cpu_usage_seconds_total", container="main")
        assert before <= told.value <= int(cpu_file.read_text()) / 1e9
        assert told.timestamp == pytest.approx(time.time(), abs=10)

    summary = json.loads(page(edge, "/stats/summary"))
    (found,) = [one for one in summary["pods"] if one["podRef"]["namespace"] == edge.namespace]
    _check_pod(found, cgroup)
    assert summary["node"]["cpu"]["usageNanoCores"] > 0
    assert summary["node"]["fs"]["capacityBytes"] >= summary["node"]["fs"]["usedBytes"] > 0
    # What images take the runtime counts every ten seconds, so a young one has counted none.
    assert summary["node"]["runtime"]["imageFs"]["capacityBytes"] > 0

    wait_until(lambda: mine("/metrics/probes", "prober_probe_total", result="successful"))
    throttled = "container_cpu_cfs_throttled_periods_total"
    # On a machine that has no time for it, it does not reach its limit at once.
    wait_until(lambda: mine("/metrics/cadvisor", throttled, container="main").value > 0)
    assert mine("/metrics/cadvisor", "container_spec_memory_limit_bytes", container="main").value == 64 << 20
    received = mine("/metrics/cadvisor", "container_network_receive_bytes_total", container="", pod="busy")
    assert received.value > 0
    assert received.labels["interface"] == "eth0"
    own = {s.name: s.value for s in samples(edge, "/metrics")}
    assert own["kubelet_running_pods"] >= 1
    assert own["kubelet_pod_start_sli_duration_seconds_count"] >= 1
    assert own["edgelet_record_bytes"] > 0

    counted = _cumulative(edge)
    assert counted
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    wait_until(lambda: any(s.labels.get("pod") == "busy" for s in samples(edge, "/metrics/resource")))
    again = _cumulative(edge)
    fallen = {key: (value, again.get(key)) for key, value in counted.items() if again.get(key, -1.0) < value}
    assert not fallen


def _check_pod(found: dict[str, Any], cgroup: str) -> None:
    (main,) = found["containers"]
    # Limited to a fifth of a core; a busy machine gives it less.
    assert 0.01e9 < main["cpu"]["usageNanoCores"] < 0.25e9
    memory = CGROUP_FS / "memory" / cgroup
    used = int((memory / "memory.usage_in_bytes").read_text())
    assert main["memory"]["usageBytes"] == pytest.approx(used, rel=0.1, abs=1 << 20)
    assert main["memory"]["availableBytes"] == (64 << 20) - main["memory"]["workingSetBytes"]
    (cache,) = [one for one in found["volume"] if one["name"] == "cache"]
    assert cache["usedBytes"] == pytest.approx(8 << 20, rel=0.05)
    assert main["logs"]["inodesUsed"] >= 1
    # The runtime measures written layers every ten seconds: the first answer may be from before the write.
    assert main["rootfs"]["capacityBytes"] > 0
    assert found["network"]["name"] == "eth0"
    assert found["network"]["rxBytes"] > 0
    assert found["ephemeral-storage"]["usedBytes"] >= cache["usedBytes"]
    assert found["cpu"]["usageCoreNanoSeconds"] >= main["cpu"]["usageCoreNanoSeconds"]


def _cumulative(edge: Edge) -> dict[tuple[str, str], float]:
    """Counters that a kubelet's restart does not begin anew: those of the kernel."""
    found: dict[tuple[str, str], float] = {}
    for path in ("/metrics/resource", "/metrics/cadvisor"):
        for family in text_string_to_metric_families(page(edge, path)):
            if family.type == "counter":
                for sample in family.samples:
                    found[f"{path} {sample.name}", json.dumps(sample.labels, sort_keys=True)] = sample.value
    return found


def test_every_page_parses_and_names_each_series_once(edge: Edge) -> None:
    run_busy(edge)
    for path in PAGES:
        text = page(edge, path)
        assert list(text_string_to_metric_families(text)) or path == "/metrics/probes"
        series = [line.rsplit("}", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]
        assert len(series) == len(set(series)), path
