from __future__ import annotations

from agent.pods.disk_restart import Layer, fullest, over_limit
from agent.pods.garbage.image_collector import Room

MIB = 2**20
FULL, HALF_FULL = Room(1000 * MIB, 100 * MIB), Room(1000 * MIB, 500 * MIB)


def layer(name: str, used_mib: float, limit_mib: int = 0, percent: int = 85) -> Layer:
    return Layer("u-1", name, f"{name}-0", int(used_mib * MIB), percent, limit_mib * MIB)


def test_who_has_a_limit_is_measured_by_it_alone() -> None:
    small, large = layer("small", 7, 8), layer("large", 400, 4000)
    ((found, why),) = over_limit([small, large, layer("free", 300)])
    assert found is small
    assert why == ("its file system has 7.0 MiB, 88 % of its ephemeral-storage limit of 8.0 MiB, and 85 % is allowed.")
    assert fullest([small, large], FULL) is None


def test_on_a_full_disk_the_one_that_has_most_of_it_goes() -> None:
    found = fullest([layer("some", 20), layer("most", 300), layer("patient", 400, percent=95)], FULL)
    assert found is not None
    assert found[0].name == "most"
    assert found[1] == ("the node's disk is 90 % full, 85 % is allowed, and its file system has 300.0 MiB of it.")


def test_a_restart_that_gives_nothing_back_is_none() -> None:
    assert fullest([layer("idle", 2)], FULL) is None
    assert fullest([layer("most", 300)], HALF_FULL) is None
    assert fullest([layer("most", 300)], Room(0, 0)) is None
