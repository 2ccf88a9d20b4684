"""What the pod workers share is built from the settings and the runtime's word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.model.node import NodeFacts
from agent.pods.admission.gate import Gate, SettledNode
from agent.pods.cgroups import CgroupDriver
from agent.pods.garbage.kept import KeptPods
from agent.pods.logfiles import LogFiles
from agent.pods.machine import Machine
from agent.pods.user_namespaces import UserNamespaces
from agent.providers.containerd_machine import WorkerParts, build_machine
from agent.providers.contract import MachineFacts, ProviderContext
from tests.fakes.cri import FakeRuntime, serving
from tests.fakes.store import MemoryStore
from tests.unit.pods.scene import FakeEvents, FakeObjects


class NoTokens:
    async def token(self, pod: Any, audience: str, expiration_s: int) -> Any:
        raise AssertionError("nobody asks here")

    async def forget(self, pod_uid: str) -> None:
        raise AssertionError("nobody asks here")


@asynccontextmanager
async def building(cri: FakeRuntime, folder: Path, **settings: Any) -> AsyncIterator[Any]:
    async with serving(cri) as endpoint, RuntimeChannel(endpoint) as channel:
        runtime, images = RuntimeClient(channel), ImageClient(channel)
        made = replace(Settings(node_name="n", root_dir=folder, resolv_conf=None), **settings)
        context = ProviderContext(
            settings=made,
            store=MemoryStore(),
            objects=FakeObjects(),
            tokens=NoTokens(),
            events=FakeEvents(),
            facts=MachineFacts(7 << 30, {"cpu": "2"}),
            node_ips=("10.0.0.1", "fd00::1"),
            health_changed=lambda: None,
        )

        async def build() -> Machine:
            gate = Gate(context.store, SettledNode(NodeFacts("n")), lambda uid, verdict: None)
            async with WorkerParts(runtime, context, lambda _: None, lambda _: True) as parts:
                users = UserNamespaces(context.store)
                kept = KeptPods(context.store, context.events, context.clock.wall)
                return await build_machine(context, runtime, images, LogFiles.of(made), parts, gate, users, kept)

        yield build


async def test_facts_and_settings_reach_the_workers(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.53\nsearch example.org\n")
    async with building(
        FakeRuntime(), tmp_path, resolv_conf=resolv, cluster_dns=("10.96.0.10",), max_parallel_image_pulls=2
    ) as build:
        machine: Machine = await build()
        assert machine.node.host_ips == ("10.0.0.1", "fd00::1")
        assert machine.translate.memory_capacity_bytes == 7 << 30
        assert machine.translate.cluster_dns == ("10.96.0.10",)
        assert machine.translate.resolv_conf is not None
        assert machine.translate.resolv_conf.nameservers == ("192.0.2.53",)
        assert machine.translate.standalone
        assert machine.pulls._places._value == 2
        assert machine.cgroups.driver is CgroupDriver.CGROUPFS


async def test_a_cgroup_driver_of_the_settings_is_not_asked_for(tmp_path: Path) -> None:
    cri = FakeRuntime()
    async with building(cri, tmp_path, cgroup_driver="systemd") as build:
        assert (await build()).cgroups.driver is CgroupDriver.SYSTEMD
        assert cri.called("RuntimeConfig") == []


async def test_a_machine_without_resolv_conf_has_none(tmp_path: Path) -> None:
    async with building(FakeRuntime(), tmp_path, resolv_conf=tmp_path / "none") as build:
        assert (await build()).translate.resolv_conf is None


async def test_a_runtime_that_is_away_is_no_machine_yet(tmp_path: Path) -> None:
    cri = FakeRuntime()
    cri.fail("RuntimeConfig", grpc.StatusCode.UNAVAILABLE)
    async with building(cri, tmp_path) as build:
        with pytest.raises(ExceptionGroup) as met:
            await build()
        assert met.group_contains(Retryable, match="is unavailable")
