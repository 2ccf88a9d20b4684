"""Traces of pods that nobody knows are found, and nothing of anybody else is taken for one."""

from __future__ import annotations

from pathlib import Path

from agent.cri._generated import api_pb2
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.cgroups import CgroupDriver
from agent.pods.logfiles import LogFiles
from agent.pods.qos import QosClass, qos_class
from agent.pods.volumes.pod_volumes import PodVolumes
from agent.providers.leftovers import Leftovers
from tests.unit.pods.volumes.fake_mounts import FakeMounts


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandboxes: list[str] = []
        self.cgroups = folder / "cgroups/pids/kubepods"
        self.cgroups.mkdir(parents=True)
        tree = CgroupTree(CgroupDriver.CGROUPFS, mount=folder / "cgroups")
        volumes = PodVolumes(folder / "root", FakeMounts())
        self.leftovers = Leftovers(self, volumes, LogFiles(folder / "logs", folder / "links"), tree)

    async def list_pod_sandbox(self) -> list[api_pb2.PodSandbox]:
        return [api_pb2.PodSandbox(metadata=api_pb2.PodSandboxMetadata(uid=uid)) for uid in self.sandboxes]

    def volumes_of(self, uid: str) -> None:
        (self.folder / "root/pods" / uid).mkdir(parents=True)

    def logs_of(self, name: str) -> None:
        (self.folder / "logs" / name).mkdir(parents=True)

    def cgroup_of(self, uid: str, level: str = ".", process: int | None = None) -> None:
        made = self.cgroups / level / f"pod{uid}" / "child"
        made.mkdir(parents=True)
        if process is not None:
            (made / "cgroup.procs").write_text(f"{process}\n")

    async def found(self, *known: str) -> dict[str, tuple[str, str]]:
        records = await self.leftovers.records(lambda: set(known))
        return {record.uid: (record.pod.metadata.namespace, record.pod.metadata.name) for record in records}


async def test_an_orderly_machine_has_none_and_the_runtime_is_not_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.volumes_of("u-1")
    machine.logs_of("shop_web_u-1")
    machine.cgroup_of("u-1")
    machine.list_pod_sandbox = None  # type: ignore[method-assign, assignment]
    assert await machine.found("u-1") == {}


async def test_folders_of_volumes_and_of_logs_are_traces_and_logs_know_the_pods_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.volumes_of("u-1")
    machine.volumes_of("u-2")
    machine.logs_of("shop_web-0.a_u-2")
    machine.logs_of("shop_db_u-3")
    machine.logs_of("lost+found")
    machine.logs_of("not_a_pod_s")
    (tmp_path / "logs/shop_file_u-4").touch()
    assert await machine.found("u-0") == {
        "u-1": ("default", "u-1"),
        "u-2": ("shop", "web-0.a"),
        "u-3": ("shop", "db"),
    }


async def test_a_cgroup_is_one_once_it_was_empty_twice(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.cgroup_of("u-1", "burstable")
    machine.logs_of("shop_web_u-1")
    assert await machine.found() == {}
    assert await machine.found() == {"u-1": ("shop", "web")}


async def test_a_cgroup_with_a_process_is_somebodys_and_so_are_its_pods_logs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.cgroup_of("u-1", "besteffort", process=4194304)
    machine.logs_of("shop_web_u-1")
    for _ in range(3):
        assert await machine.found() == {}


async def test_a_pod_that_the_runtime_has_is_somebodys(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.sandboxes = ["u-1", "u-2"]
    machine.logs_of("kube-system_theirs_u-1")
    machine.cgroup_of("u-1")
    machine.volumes_of("u-2")
    for _ in range(3):
        # Folders of volumes are the agent's own.
        assert await machine.found() == {"u-2": ("default", "u-2")}


async def test_a_record_made_of_a_cgroup_is_of_its_class(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.cgroup_of("g")
    machine.cgroup_of("b", "burstable")
    machine.cgroup_of("e", "besteffort")
    await machine.leftovers.records(frozenset)
    found = await machine.leftovers.records(frozenset)
    assert {record.uid: qos_class(record.pod) for record in found} == {
        "g": QosClass.GUARANTEED,
        "b": QosClass.BURSTABLE,
        "e": QosClass.BEST_EFFORT,
    }
