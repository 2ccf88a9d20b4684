"""Which pods' logs are shipped: as their policies say, and of those that end as the record says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.config import Settings
from agent.kube.events import LoggedEvents
from agent.kube.tokens import StandaloneTokens
from agent.model.meta import ObjectMeta
from agent.model.pod import Pod, PodSpec
from agent.pods.log_shipping import PREFIX
from agent.pods.policing import Policing
from agent.policies.defaults import Defaults
from agent.providers.containerd_logs import LogShipping
from agent.providers.contract import MachineFacts, ProviderContext
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.scene import FakeObjects


def pod(uid: str, sink: Path | None = None) -> Pod:
    annotations = {} if sink is None else {"edgelet.io/logs": f"file://{sink}"}
    return Pod(metadata=ObjectMeta(name="talks", namespace="shop", uid=uid, annotations=annotations), spec=PodSpec())


class Node:
    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.sink = folder / "all.log"
        self.store = MemoryStore()
        self.policing = Policing(host_namespaces=("shop",))

    def write(self, uid: str, text: str) -> Path:
        path = self.logs / f"shop_talks_{uid}" / "main" / "0.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"2026-03-01T12:00:00Z stdout F {text}\n")
        return path.parent.parent

    def make(self) -> LogShipping:
        return LogShipping(
            ProviderContext(
                settings=Settings("n", pod_logs_dir=self.logs),
                store=self.store,
                objects=FakeObjects(),
                tokens=StandaloneTokens(),
                events=LoggedEvents(),
                facts=MachineFacts(1, {}),
                node_ips=(),
                health_changed=lambda: None,
                policing=self.policing,
            ),
            lambda: (),
        )

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[LogShipping]:
        made = self.make()
        await made.load()
        task = asyncio.create_task(made.run())
        yield made
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def sent(self) -> str:
        return self.sink.read_text() if self.sink.exists() else ""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr("agent.pods.log_shipping.shipper.LOOK_S", 0.01)
    monkeypatch.setattr("agent.pods.log_shipping.shipper.FIRST_PAUSE_S", 0.01)
    return Node(tmp_path)


async def test_a_pod_with_a_sink_is_shipped_and_another_is_not(node: Node) -> None:
    async with node.agent() as shipping:
        shipping.follow(pod("a", node.sink))
        shipping.follow(pod("b"))
        node.write("b", "secret")
        node.write("a", "hello")
        await eventually(lambda: '"log":"hello"' in node.sent())
        await eventually(lambda: PREFIX + "a" in node.store.rows)
        assert "secret" not in node.sent()
        assert [key for key in node.store.rows if key.startswith(PREFIX)] == [PREFIX + "a"]


async def test_a_pod_whose_policy_goes_is_not_shipped_any_more(node: Node) -> None:
    async with node.agent() as shipping:
        shipping.follow(pod("a", node.sink))
        node.write("a", "one")
        await eventually(lambda: '"log":"one"' in node.sent())
        shipping.follow(pod("a"))
        node.write("a", "two")
        await eventually(lambda: PREFIX + "a" not in node.store.rows)
        node.policing.take(Defaults(settings={"edgelet.io/logs": f"file://{node.sink}"}))
        shipping.follow(pod("a"))
        await eventually(lambda: '"log":"two"' in node.sent())


async def test_a_pod_that_is_found_only_to_end_goes_where_the_record_says(node: Node) -> None:
    folder = node.write("a", "one")
    async with node.agent() as shipping:
        shipping.follow(pod("a", node.sink.parent / "missing" / "all.log"))
        await eventually(lambda: PREFIX + "a" in node.store.rows)
    (node.sink.parent / "missing").mkdir()
    async with node.agent() as shipping:
        shipping.follow(pod("a"), ending=True)
        node.write("a", "two")
        await asyncio.to_thread(shipping.claim, folder)
        shutil.rmtree(folder)
        shipping.gone("a")
        await eventually(lambda: PREFIX + "a" not in node.store.rows)
    text = (node.sink.parent / "missing" / "all.log").read_text()
    assert text.index('"log":"one"') < text.index('"log":"two"')
