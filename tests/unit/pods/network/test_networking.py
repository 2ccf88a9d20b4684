"""What policies ask of a pod's network is made ready, or said to be impossible, before its sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.pod import Pod
from agent.pods.network.networking import PodNetworking
from agent.pods.policing import Policing
from tests.fakes.store import MemoryStore
from tests.unit.pods.network.networks import bridge, cniconfig
from tests.unit.pods.pods import make_pod
from tests.unit.pods.scene import FakeEvents

LIMITS = {"type": "edgelet-bandwidth", "capabilities": {"bandwidth": True}}
BANDWIDTH = {"kubernetes.io/egress-bandwidth": "10M"}
FIXED_IP = {"edgelet.io/fixed-ip": "true"}


class Runtime:
    def __init__(self) -> None:
        self.cniconfig: str | None = "{}"
        self.asked = 0

    async def status(self, *, verbose: bool = False) -> api_pb2.StatusResponse:
        assert verbose
        self.asked += 1
        return api_pb2.StatusResponse(info={} if self.cniconfig is None else {"cniconfig": self.cniconfig})


class Scene:
    def __init__(self, folder: Path) -> None:
        self.runtime = Runtime()
        self.events = FakeEvents()
        self.store = MemoryStore()
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        self.networking = PodNetworking(
            self.runtime,
            Policing(),
            self.events,
            self.store,
            "node-1",
            lambda _: True,
            60.0,
            lambda: 0.0,
            self.folder / "run",
        )

    def have(self, *plugins: dict[str, Any], ipam: str = "edgelet-ipam") -> None:
        own = bridge("10.88.0.0/24", ipam=ipam, dataDir=str(self.folder))
        self.runtime.cniconfig = cniconfig(own, *plugins)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(reason, message) for _, reason, message, _ in self.events.all]

    @property
    def leased(self) -> list[str]:
        return [path.name for path in (self.folder / "edgelet").glob("*")]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def pod(annotations: dict[str, str], uid: str = "u-1", **spec: Any) -> Pod:
    return make_pod({"uid": uid, "annotations": annotations}, **spec)


async def test_a_pod_that_asks_for_nothing_costs_nothing(scene: Scene) -> None:
    await scene.networking.prepare(pod({}))
    await scene.networking.prepare(pod({**BANDWIDTH, **FIXED_IP}, hostNetwork=True))
    assert (scene.runtime.asked, scene.said, scene.leased) == (0, [], [])


async def test_a_network_that_can_do_it_is_left_to_do_it(scene: Scene) -> None:
    scene.have(LIMITS)
    await scene.networking.prepare(pod({**BANDWIDTH, **FIXED_IP}))
    assert (scene.said, scene.leased) == ([], ["10.88.0.254"])


async def test_what_a_network_cannot_do_is_said_on_the_pod(scene: Scene) -> None:
    scene.have(ipam="host-local")
    await scene.networking.prepare(pod({**BANDWIDTH, **FIXED_IP}))
    assert scene.said == [
        (
            "BandwidthUnsupported",
            "the pod's bandwidth is not limited: the pod network edgelet has no plugin that limits it",
        ),
        ("FixedIpUnsupported", "the pod gets any address: the pod network edgelet is not this agent's"),
    ]
    assert scene.leased == []


async def test_without_a_network_the_runtime_itself_says_so(scene: Scene) -> None:
    await scene.networking.prepare(pod({**BANDWIDTH, **FIXED_IP}))
    assert (scene.said, scene.leased) == ([], [])


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "the runtime does not tell what its network can do"),
        ("[]", "the runtime's CNI network cannot be read: Expected `object`, got `array`"),
    ],
)
async def test_a_network_that_nobody_knows_holds_no_pod_up(scene: Scene, told: str | None, why: str) -> None:
    scene.runtime.cniconfig = told
    await scene.networking.prepare(pod({**BANDWIDTH, **FIXED_IP}))
    assert scene.said == [
        ("BandwidthUnsupported", f"the pod's bandwidth is not limited: {why}"),
        ("FixedIpUnsupported", f"the pod gets any address: {why}"),
    ]


async def test_an_address_that_cannot_be_had_holds_the_pod_up_and_names_the_annotation(scene: Scene) -> None:
    scene.have()
    with pytest.raises(Permanent, match=r"edgelet\.io/fixed-ip: 10\.99\.0\.1 is not in the range"):
        await scene.networking.prepare(pod({"edgelet.io/fixed-ip": "10.99.0.1"}))


async def test_after_a_restart_a_pod_without_the_annotation_gives_the_address_back(scene: Scene) -> None:
    scene.have()
    await scene.networking.prepare(pod(FIXED_IP))
    scene.begin()
    await scene.networking.load()
    await scene.networking.prepare(pod({}))
    assert scene.leased == []
