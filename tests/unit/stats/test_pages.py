"""From a machine's files to the pages: a reading of pods whose cgroups lie in a folder, then what the pages say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.pods.cgroups import CgroupDriver
from agent.pods.logfiles import LogFiles
from agent.pods.volumes.layout import VolumePlugin, volume_dir
from agent.stats.cadvisor import MachineIdentity, cadvisor_metrics
from agent.stats.cgroups import Cgroups
from agent.stats.disk import FileSystem
from agent.stats.figures import Reading, Subject, Taken, VolumeFigures
from agent.stats.rates import Rates
from agent.stats.reader import Depth, Reader
from agent.stats.resource import resource_metrics
from agent.stats.summary import summary
from agent.stats.volumes import volume_metrics
from tests.unit.pods.observations import START_NS, container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod
from tests.unit.stats.trees import NET_DEV, version_1, version_2, write

POD = "kubepods/besteffort/podu-1"
SEEN = observed(sandbox(), container(), exited("old"))
VOLUMES = [{"name": "cache", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/"}}]
S = 1_000_000_000


class Machine:
    def __init__(self, top: Path, tree: Callable[[Path, str], None] = version_1) -> None:
        self.mount, self.proc, self.root = top / "cgroup", top / "proc", top / "root"
        self.logs = LogFiles(top / "logs", top / "links")
        for path in ("", POD, f"{POD}/s0", f"{POD}/main-0"):
            tree(self.mount, path)
        write(self.proc, {"42/net/dev": NET_DEV, "self/net/dev": NET_DEV, "loadavg": "0 0 0 2/345 9\n"})
        write(self.logs.pods, {"shop_web_u-1/main/0.log": "hello\n", "shop_web_u-1/main/0.log.20260101": "before\n"})
        cache = volume_dir(self.root, "u-1", VolumePlugin.EMPTY_DIR, "cache")
        write(cache, {"file": "x" * 50_000})

    def read(
        self, depth: Depth = Depth.DISKS, pod: Pod | None = None, seen: ObservedPod = SEEN, **more: Any
    ) -> Reading:
        cgroups = Cgroups(self.mount, self.proc)
        reader = Reader(CgroupDriver.CGROUPFS, "/", self.root, self.logs, cgroups, self.proc)
        return reader.read([Subject(pod or make_pod(volumes=VOLUMES), seen)], depth, **more)


def series(text: str) -> dict[tuple[str, str], float]:
    """By name and container; the pod's own (and the node's) have none."""
    return {
        (sample.name, sample.labels.get("container", "-")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("tree", [version_1, version_2])
def test_a_summary_tells_node_pod_and_container(tmp_path: Path, tree: Callable[[Path, str], None]) -> None:
    written = {"main-0": Taken(7000, 3)}
    reading = Machine(tmp_path, tree).read(written=written)
    disk = FileSystem(1, 2, 1, 10, 9, 1)
    reading = replace(reading, machine=replace(reading.machine, images_disk=disk, images_used_bytes=77))
    rates = Rates()
    told = summary("edge-1", reading, rates)
    assert told["node"]["nodeName"] == "edge-1"
    assert told["node"]["memory"]["workingSetBytes"] == 600_000
    assert told["node"]["network"]["name"] == "eth0"
    assert told["node"]["runtime"]["imageFs"]["usedBytes"] == 77
    assert told["node"]["rlimit"]["curproc"] == 345
    assert {one["name"] for one in told["node"]["systemContainers"]} >= {"kubelet"}
    (pod,) = told["pods"]
    assert pod["podRef"] == {"name": "web", "namespace": "shop", "uid": "u-1"}
    assert (pod["network"]["rxBytes"], pod["network"]["txBytes"]) == (1_000_000, 500_000)
    assert pod["process_stats"] == {"process_count": 3}
    (main,) = pod["containers"]
    assert main["name"] == "main"
    assert main["startTime"] == "2023-11-14T22:13:20Z"
    assert main["cpu"]["usageCoreNanoSeconds"] == 5 * S
    assert "usageNanoCores" not in main["cpu"]
    memory = main["memory"]
    assert (memory["usageBytes"], memory["workingSetBytes"], memory["availableBytes"]) == (
        1_000_000,
        600_000,
        3_400_000,
    )
    assert (main["logs"]["usedBytes"], main["logs"]["inodesUsed"]) == (13, 2)
    assert (main["rootfs"]["usedBytes"], main["rootfs"]["inodesUsed"]) == (7000, 3)
    (cache,) = pod["volume"]
    assert cache["name"] == "cache"
    assert 50_000 <= cache["usedBytes"] < 70_000
    assert pod["ephemeral-storage"]["usedBytes"] == 7000 + 13 + cache["usedBytes"]


def test_the_second_summary_has_rates(tmp_path: Path) -> None:
    machine, rates = Machine(tmp_path), Rates()
    reading = machine.read()
    summary("edge-1", reading, rates)
    (pod,) = reading.pods
    (main,) = pod.containers
    later = replace(main.usage, at_ns=main.usage.at_ns + 10 * S, cpu_ns=main.usage.cpu_ns + 2 * S)
    moved = replace(pod, containers=(replace(main, usage=later),))
    told = summary("edge-1", replace(reading, pods=(moved,)), rates)
    assert told["pods"][0]["containers"][0]["cpu"]["usageNanoCores"] == S // 5


def test_resource_metrics_parse_and_carry_their_moment(tmp_path: Path) -> None:
    reading = Machine(tmp_path).read(Depth.USAGE)
    text = resource_metrics(reading)
    found = series(text)
    assert found["container_cpu_usage_seconds_total", "main"] == 5
    assert found["container_memory_working_set_bytes", "main"] == 600_000
    assert found["pod_cpu_usage_seconds_total", "-"] == 5
    assert found["node_memory_working_set_bytes", "-"] == 600_000
    assert found["container_start_time_seconds", "main"] == START_NS / S
    assert found["resource_scrape_error", "-"] == 0
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["node_cpu_usage_seconds"].samples
    assert reading.node is not None
    assert sample.timestamp == pytest.approx(reading.node.at_ns / S, abs=0.001)


def test_cadvisors_metrics_have_the_series_of_dashboards(tmp_path: Path) -> None:
    reading = Machine(tmp_path).read(Depth.DETAILS)
    text = cadvisor_metrics(reading, MachineIdentity("m", "s", "b"), {"8:0": "sda"}, "pause", cores=2)
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    values: dict[tuple[str, str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("pod", "-"), sample.labels.get("container", "-"))
            found.setdefault(key, sample.labels)
            values.setdefault(key, sample.value)
    main = ("web", "main")
    cpu = found["container_cpu_usage_seconds_total", *main]
    assert cpu["cpu"] == "total"
    assert cpu["id"] == f"/{POD}/main-0"
    assert (cpu["image"], cpu["name"], cpu["namespace"]) == ("docker.io/library/busybox:latest", "main-0", "shop")
    assert values["container_cpu_cfs_throttled_periods_total", *main] == 4
    assert values["container_cpu_cfs_throttled_seconds_total", *main] == 1.5
    assert values["container_memory_rss", *main] == 300_000
    assert values["container_spec_cpu_quota", *main] == 50_000
    assert values["container_spec_memory_limit_bytes", *main] == 4_000_000
    assert found["container_fs_writes_bytes_total", *main]["device"] == "/dev/sda"
    assert values["container_fs_writes_bytes_total", *main] == 8192
    # The network is its sandbox's, told once.
    received = [line for line in text.splitlines() if line.startswith("container_network_receive_bytes_total{")]
    (of_pod,) = [line for line in received if 'pod="web"' in line]
    assert 'container=""' in of_pod
    assert 'image="pause"' in of_pod
    assert 'interface="eth0"' in of_pod
    assert values["machine_cpu_physical_cores", "-", "-"] == 2
    assert values["container_fs_limit_bytes", "", ""] > 0
    lines = [line.rsplit("}", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_a_pod_on_the_hosts_network_has_none_of_its_own(tmp_path: Path) -> None:
    (pod,) = Machine(tmp_path).read(pod=make_pod(hostNetwork=True)).pods
    assert pod.network == ()


def test_a_pod_of_which_nothing_runs_is_not_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.read(seen=observed(sandbox(ready=False), exited())).pods == ()
    assert machine.read(seen=observed()).pods == ()


def test_a_container_that_ended_meanwhile_is_left_out(tmp_path: Path) -> None:
    (pod,) = Machine(tmp_path).read(seen=observed(sandbox(), container(), container("other"))).pods
    assert [one.name for one in pod.containers] == ["main"]


def test_the_cgroups_of_systemd_are_slices_and_scopes(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    slices = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podu_1.slice"
    for path in (slices, f"{slices}/cri-containerd-main-0.scope"):
        version_2(machine.mount, path)
    version_2(machine.mount, "")
    cgroups = Cgroups(machine.mount, machine.proc)
    reader = Reader(CgroupDriver.SYSTEMD, "/", machine.root, machine.logs, cgroups, machine.proc)
    (pod,) = reader.read([Subject(make_pod(), SEEN)], Depth.USAGE).pods
    assert [one.cgroup for one in pod.containers] == [f"/{slices}/cri-containerd-main-0.scope"]


def test_a_claims_volume_is_told_once_however_many_pods_use_it(tmp_path: Path) -> None:
    reading = Machine(tmp_path).read()
    (pod,) = reading.pods
    data = VolumeFigures("data", FileSystem(30, 100, 70, 10, 4, 6), claim="db")
    twice = (replace(pod, volumes=(data,)), replace(pod, name="other", volumes=(data,)))
    text = volume_metrics(replace(reading, pods=twice))
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    told = {sample.name.removeprefix("kubelet_volume_stats_"): sample.value for sample in found}
    assert told == {
        "capacity_bytes": 100,
        "available_bytes": 30,
        "used_bytes": 70,
        "inodes": 10,
        "inodes_free": 4,
        "inodes_used": 6,
    }
    assert len(found) == 6
    assert found[0].labels == {"namespace": "shop", "persistentvolumeclaim": "db"}
