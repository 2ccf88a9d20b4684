"""Which devices a container gets, and what comes with them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import Permanent
from agent.model.devices import Device, DeviceMount, DeviceNode, DeviceSettings, GivenDevice, Grant
from agent.pods.devices.allocation import (
    Choice,
    Role,
    Stock,
    Wanted,
    choose,
    complete,
    given,
    merged,
    reusable_after,
    wanted_by,
)
from tests.unit.pods.pods import make_pod

R = "example.com/widget"
ONE, TWO = Wanted("main", R, 1), Wanted("main", R, 2)


def ids(*names: str) -> frozenset[str]:
    return frozenset(names)


def asks(name: str, limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": limits}, **more}


def test_a_pod_asks_by_its_limits_in_the_order_of_its_containers() -> None:
    pod = make_pod(
        {"uid": "a"},
        initContainers=[asks("first", {R: "1"}), asks("beside", {R: 2}, restartPolicy="Always")],
        containers=[asks("main", {R: "3", "cpu": "1", "example.com/other": 1, "example.com/unknown": 1, "pods": 1})],
    )
    known = {R, "example.com/other", "cpu"}
    assert list(wanted_by(pod, known.__contains__)) == [
        Wanted("first", R, 1, Role.INIT),
        Wanted("beside", R, 2, Role.SIDECAR),
        Wanted("main", "example.com/other", 1),
        Wanted("main", R, 3),
    ]


def test_nothing_is_asked_for_with_a_limit_of_none() -> None:
    assert list(wanted_by(make_pod(containers=[asks("main", {R: "0"})]), {R}.__contains__)) == []


@pytest.mark.parametrize(
    ("wanted", "mine", "reusable", "stock", "choice"),
    [
        (ONE, None, ids(), Stock(ids("a", "b")), Choice((), 1, ids("a", "b"))),
        (ONE, None, ids(), Stock(ids("a", "b"), held=ids("a")), Choice((), 1, ids("b"))),
        (ONE, ids("a"), ids(), Stock(ids("a", "b"), held=ids("a")), Choice(("a",))),
        (ONE, None, ids("a"), Stock(ids("a", "b"), held=ids("a")), Choice(("a",), 0, ids("b"))),
        (TWO, None, ids("a"), Stock(ids("a", "b"), held=ids("a")), Choice(("a",), 1, ids("b"))),
        (ONE, None, ids("a", "c"), Stock(ids("a", "c"), held=ids("a", "c")), Choice(("a",), 0, ids())),
        # One that has turned bad meanwhile is no use to the next container.
        (ONE, None, ids("a"), Stock(ids("b"), held=ids("a")), Choice((), 1, ids("b"))),
    ],
)
def test_what_is_free_and_what_the_pod_has_already(
    wanted: Wanted, mine: frozenset[str] | None, reusable: frozenset[str], stock: Stock, choice: Choice
) -> None:
    assert choose(wanted, "uid", mine, reusable, stock) == choice


@pytest.mark.parametrize(
    ("wanted", "mine", "stock", "why"),
    [
        (
            ONE,
            None,
            Stock(ids("a"), held=ids("a")),
            f"requested number of devices unavailable for {R}. Requested: 1, Available: 0",
        ),
        (
            TWO,
            None,
            Stock(ids("a", "b"), held=ids("a")),
            f"requested number of devices unavailable for {R}. Requested: 2, Available: 1",
        ),
        (ONE, None, Stock(), f"no healthy devices present; cannot allocate unhealthy devices {R}"),
        (ONE, None, Stock(registered=False), f"cannot allocate unregistered device {R}"),
        (
            ONE,
            ids("a"),
            Stock(ids("b"), held=ids("a")),
            f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {R}",
        ),
        (
            TWO,
            ids("a"),
            Stock(ids("a", "b"), held=ids("a")),
            f'pod "uid" container "main" changed request for resource "{R}" from 1 to 2',
        ),
    ],
)
def test_the_refusals_are_the_kubelet_s(wanted: Wanted, mine: frozenset[str] | None, stock: Stock, why: str) -> None:
    with pytest.raises(Permanent) as refused:
        choose(wanted, "uid", mine, frozenset(), stock)
    assert str(refused.value) == why
    assert refused.value.reason == "UnexpectedAdmissionError"


@pytest.mark.parametrize(
    ("choice", "preferred", "taken"),
    [
        (Choice((), 2, ids("c", "a", "b")), (), ("a", "b")),
        (Choice((), 2, ids("c", "a", "b")), ("c", "b"), ("c", "b")),
        (Choice((), 2, ids("c", "a", "b")), ("c",), ("c", "a")),
        (Choice((), 1, ids("a", "b")), ("held", "b", "b"), ("b",)),
        (Choice(("x",), 1, ids("a", "b")), ("x", "b"), ("x", "b")),
        (Choice(("x",)), ("a",), ("x",)),
    ],
)
def test_a_plugin_s_wishes_come_first_as_far_as_they_are_free(
    choice: Choice, preferred: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    assert complete(choice, preferred) == taken


def test_what_an_init_container_had_is_there_for_the_next_but_not_what_a_sidecar_has() -> None:
    after_init = reusable_after(Wanted("first", R, 2, Role.INIT), ("a", "b"), {})
    assert after_init == {R: ids("a", "b")}
    after_sidecar = reusable_after(Wanted("beside", R, 1, Role.SIDECAR), ("a",), after_init)
    assert after_sidecar == {R: ids("b")}
    assert reusable_after(Wanted("main", R, 1), ("b",), after_sidecar) == {R: ids()}


def test_devices_keep_the_numa_nodes_that_the_plugin_said() -> None:
    assert given(("a", "b"), {"a": Device("a", numa=(0, 1))}) == (GivenDevice("a", (0, 1)), GivenDevice("b"))


def test_settings_of_several_resources_come_together_and_the_first_word_counts() -> None:
    first = DeviceSettings(
        {"A": "1", "B": "1"},
        (DeviceMount("/m", "/host/1"),),
        (DeviceNode("/dev/x", "/dev/1", "rw"),),
        {"note": "1"},
        ("example.com/w=1",),
    )
    second = DeviceSettings(
        {"B": "2", "C": "2"},
        (DeviceMount("/m", "/host/2"), DeviceMount("/n", "/host/2", read_only=True)),
        (DeviceNode("/dev/x", "/dev/2"), DeviceNode("/dev/y", "/dev/2")),
        {"note": "2", "more": "2"},
        ("example.com/w=1", "example.com/w=2"),
    )
    together = merged([Grant("main", R, settings=first), Grant("main", "example.com/other", settings=second)])
    assert together.env == {"A": "1", "B": "1", "C": "2"}
    assert set(together.mounts) == {first.mounts[0], second.mounts[1]}
    assert set(together.nodes) == {first.nodes[0], second.nodes[1]}
    assert together.annotations == {"note": "1", "more": "2"}
    assert together.cdi == ("example.com/w=1", "example.com/w=2")
