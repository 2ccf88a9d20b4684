"""An address is the name's: in the record before it is used, nobody else's while its pod is away, free after that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import Permanent, Retryable
from agent.model.pod import Pod
from agent.pods.network.fixed_ips import FixedIps
from agent.pods.network.leases import Leases
from agent.pods.network.pod_network import PodNetwork, pod_network
from agent.policies.fixed_ip import FixedIp
from agent.store.base import Delete, Put
from tests.fakes.store import MemoryStore
from tests.unit.pods.network.networks import bridge, cniconfig
from tests.unit.pods.pods import make_pod

ANY = FixedIp()
DAY_S = 86400.0
FIRST, SECOND = "10.88.0.254", "10.88.0.253"


class Node:
    """What is on its disk, which pods are here, and the time."""

    def __init__(self, folder: Path, *subnets: str) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.here: set[str] = set()
        self.now = 1000.0
        self.network = self.having(*(subnets or ("10.88.0.0/24",)))

    def having(self, *subnets: str) -> PodNetwork:
        found = pod_network(cniconfig(bridge(*subnets, dataDir=str(self.folder))))
        assert found is not None
        self.network = found
        return found

    async def boot(self) -> FixedIps:
        leases = Leases("node-1", self.folder / "run")
        made = FixedIps(self.store, leases, self.here.__contains__, DAY_S, lambda: self.now)
        await made.load()
        return made

    async def keep(self, own: FixedIps, one: Pod, wanted: FixedIp = ANY) -> str:
        """What the plugin is told."""
        self.here.add(one.uid)
        await own.keep(one, wanted, self.network)
        return (self.folder / "run" / one.uid).read_text()

    def host_local_gives(self, address: str, sandbox: str = "0123456789abcdef") -> None:
        self.network.leases.mkdir(parents=True, exist_ok=True)
        (self.network.leases / address).write_text(f"{sandbox}\r\neth0")

    @property
    def leased(self) -> set[str]:
        return {path.name for path in self.network.leases.iterdir()}


def pod(uid: str, name: str = "web-0", namespace: str = "shop") -> Pod:
    return make_pod({"uid": uid, "name": name, "namespace": namespace})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_pod_made_again_under_its_name_has_its_address_again(node: Node) -> None:
    own = await node.boot()
    assert await node.keep(own, pod("u-1")) == f"IP={FIRST}/24;GATEWAY=10.88.0.1\n"
    assert await node.keep(own, pod("u-2", "web-1")) == f"IP={SECOND}/24;GATEWAY=10.88.0.1\n"
    node.here.remove("u-1")
    assert FIRST in await node.keep(own, pod("u-3"))
    assert node.leased == {FIRST, SECOND}


async def test_after_a_reboot_the_address_is_kept_before_the_first_pod_starts(node: Node) -> None:
    await node.keep(await node.boot(), pod("u-1"))
    for path in (*node.network.leases.iterdir(), *(node.folder / "run").iterdir()):
        path.unlink()
    own = await node.boot()
    assert node.leased == {FIRST}
    assert FIRST in await node.keep(own, pod("u-1"))


async def test_a_lost_record_is_made_again_from_what_is_taken(node: Node) -> None:
    await node.keep(await node.boot(), pod("u-1"))
    node.store, node.here = MemoryStore(), set()
    own = await node.boot()
    assert SECOND in await node.keep(own, pod("u-2", "web-1"))
    assert FIRST in await node.keep(own, pod("u-3"))


async def test_an_address_waits_for_its_pod_for_as_long_as_is_set(node: Node) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    node.here.clear()
    await own.look()
    assert list((node.folder / "run").iterdir()) == []
    node.now += DAY_S - 1
    own = await node.boot()  # a restart does not begin it anew
    await own.look()
    assert node.leased == {FIRST}
    node.now += 1
    await own.look()
    assert node.leased == set()
    assert await node.store.list("fixed-ip/") == ()


async def test_a_pod_that_came_back_has_all_the_time_again(node: Node) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    node.here.clear()
    await own.look()
    node.now += DAY_S
    await node.keep(own, pod("u-2"))
    await own.look()
    node.here.clear()
    await own.look()
    assert node.leased == {FIRST}


async def test_who_asks_no_more_gives_it_back(node: Node) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    await own.give_up(pod("u-2", "web-1"))
    assert node.leased == {FIRST}
    await own.give_up(pod("u-1"))
    assert node.leased == set()
    assert list((node.folder / "run").iterdir()) == []


async def test_an_address_that_is_asked_for_is_the_one(node: Node) -> None:
    own = await node.boot()
    assert "IP=10.88.0.7/24" in await node.keep(own, pod("u-1"), FixedIp("10.88.0.7"))
    assert "IP=10.88.0.8/24" in await node.keep(own, pod("u-1"), FixedIp("10.88.0.8"))
    assert "IP=10.88.0.8/24" in await node.keep(own, pod("u-1"))
    assert node.leased == {"10.88.0.8"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("10.89.0.7", r"10.89.0.7 is not in the range of the pod network edgelet \(10.88.0.0/24\)"),
        ("10.88.0.1", "10.88.0.1 is not in the range"),
        ("fd00::7", "fd00::7 is not in the range"),
        ("10.88.0.9", r"10.88.0.9 is in use by another pod \(sandbox 0123456789abc\)"),
        (FIRST, f"{FIRST} is kept for pod shop/web-0"),
    ],
)
async def test_an_address_that_it_cannot_have_is_refused_and_nothing_is_taken(node: Node, asked: str, why: str) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    node.host_local_gives("10.88.0.9")
    with pytest.raises(Permanent, match=why):
        await node.keep(own, pod("u-2", "other"), FixedIp(asked))
    assert node.leased == {FIRST, "10.88.0.9"}
    assert len(await node.store.list("fixed-ip/")) == 1


async def test_an_address_that_is_written_out_goes_to_the_next_pod_of_its_namespace(node: Node) -> None:
    own = await node.boot()
    written = FixedIp("10.88.0.7")
    await node.keep(own, pod("u-1", "web-abc"), written)
    node.here.clear()
    with pytest.raises(Permanent, match=r"10\.88\.0\.7 is kept for pod shop/web-abc"):
        await node.keep(own, pod("u-2", "web-abc", "other"), written)
    assert "10.88.0.7" in await node.keep(own, pod("u-3", "web-xyz"), written)
    assert len(await node.store.list("fixed-ip/")) == 1


async def test_two_pods_of_one_name_do_not_share_an_address(node: Node) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    with pytest.raises(Permanent, match=f"{FIRST} is in use by another pod of this name"):
        await node.keep(own, pod("u-2"))
    await own.give_up(pod("u-2"))
    assert node.leased == {FIRST}


async def test_what_host_local_gave_is_nobody_elses(node: Node) -> None:
    node.host_local_gives(FIRST)
    assert SECOND in await node.keep(await node.boot(), pod("u-1"))


async def test_a_full_network_is_said(node: Node) -> None:
    node.having("10.88.0.0/30")
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    with pytest.raises(Permanent, match=r"no address is left in the pod network edgelet \(10.88.0.0/30\)"):
        await node.keep(own, pod("u-2", "web-1"))


async def test_in_another_range_the_pod_gets_another_address(node: Node) -> None:
    own = await node.boot()
    await node.keep(own, pod("u-1"))
    node.having("10.99.0.0/24")
    assert "IP=10.99.0.254/24;GATEWAY=10.99.0.1" in await node.keep(own, pod("u-1"))
    assert node.leased == {"10.99.0.254"}


async def test_of_two_families_both_addresses_are_kept(tmp_path: Path) -> None:
    node = Node(tmp_path, "10.88.0.0/24", "fd00::/120")
    own = await node.boot()
    told = await node.keep(own, pod("u-1"), FixedIp("fd00::7"))
    assert told == f"IP={FIRST}/24,fd00::7/120;GATEWAY=10.88.0.1,fd00::1\n"
    assert node.leased == {FIRST, "fd00::7"}


async def test_a_record_that_refuses_takes_no_address(node: Node) -> None:
    class Refusing(MemoryStore):
        async def batch(self, changes: Sequence[Put | Delete]) -> int:
            raise Retryable("disk is full")

    node.store = Refusing()
    with pytest.raises(Retryable, match="disk is full"):
        await node.keep(await node.boot(), pod("u-1"))
    assert node.leased == set()


async def test_addresses_of_another_node_on_this_machine_are_left_alone(node: Node) -> None:
    Leases("node-2", node.folder / "run").take(node.network, None, "shop/web-0")
    own = await node.boot()
    assert SECOND in await node.keep(own, pod("u-1"))
    assert node.leased == {FIRST, SECOND}
    await own.give_up(pod("u-1"))
    assert node.leased == {FIRST}
