"""What the machine and the runtime lack is told as absent, and what they have reaches the pods' containers."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.cri._generated import api_pb2 as pb
from agent.node.facts import hugepages
from agent.pods.translate.context import TranslateContext
from agent.providers.translate_facts import counts_swap, selinux_enabled, thermal_throttles
from tests.fakes.cri import FakeRuntime
from tests.unit.providers.test_containerd_machine import building
from tests.unit.providers.test_runtime_health import Told

MOUNTS = pb.RuntimeHandlerFeatures(recursive_read_only_mounts=True)


async def translate(cri: FakeRuntime, folder: Path, **settings: object) -> TranslateContext:
    async with building(cri, folder, **settings) as build:
        found: TranslateContext = (await build()).translate
        return found


@pytest.mark.parametrize(
    ("handlers", "possible"),
    [
        ((), False),
        ((pb.RuntimeHandler(name=""),), False),
        ((pb.RuntimeHandler(name="", features=MOUNTS),), True),
        ((pb.RuntimeHandler(name="kata", features=MOUNTS), pb.RuntimeHandler(name="")), False),
    ],
)
async def test_mounts_are_recursively_read_only_where_the_default_handler_can(
    handlers: tuple[pb.RuntimeHandler, ...], possible: bool, tmp_path: Path
) -> None:
    cri = Told()
    cri.status = pb.StatusResponse(runtime_handlers=handlers)
    assert (await translate(cri, tmp_path)).recursive_read_only is possible


async def test_the_settings_of_security_reach_translation(tmp_path: Path) -> None:
    plain = await translate(FakeRuntime(), tmp_path)
    assert not plain.seccomp_default
    assert plain.seccomp_root == f"{tmp_path}/seccomp"
    assert "net.ipv4.tcp_syncookies" in plain.allowed_sysctls
    asked = await translate(FakeRuntime(), tmp_path, seccomp_default=True, allowed_unsafe_sysctls=("kernel.msg*",))
    assert asked == replace(plain, seccomp_default=True, allowed_sysctls=(*plain.allowed_sysctls, "kernel.msg*"))


async def test_every_size_of_huge_pages_that_the_kernel_has_is_limited(tmp_path: Path) -> None:
    known = {
        "2Mi": "2MB",
        "1Gi": "1GB",
        "64Ki": "64KB",
        "32Mi": "32MB",
        "16Gi": "16GB",
        "512Mi": "512MB",
        "16Mi": "16MB",
    }
    assert (await translate(FakeRuntime(), tmp_path)).hugepage_sizes == tuple(known[size] for size in hugepages())


def test_cpus_that_count_their_heat_do_not_show_it(tmp_path: Path) -> None:
    assert list(thermal_throttles(tmp_path)) == []
    for folder in ("cpu0/thermal_throttle", "cpu1", "cpufreq/thermal_throttle"):
        (tmp_path / "sys/devices/system/cpu" / folder).mkdir(parents=True)
    assert list(thermal_throttles(tmp_path)) == ["/sys/devices/system/cpu/cpu0/thermal_throttle"]


def test_selinux_counts_where_its_file_system_is(tmp_path: Path) -> None:
    assert not selinux_enabled(tmp_path)
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    assert selinux_enabled(tmp_path)


def test_swap_is_counted_where_the_agents_own_cgroup_has_a_file_for_it(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/system.slice/edgelet.service\n")
    group = tmp_path / "system.slice" / "edgelet.service"
    group.mkdir(parents=True)
    assert not counts_swap(tmp_path, own)
    (group / "memory.swap.max").touch()
    assert counts_swap(tmp_path, own)
    assert not counts_swap(tmp_path, tmp_path / "none")
