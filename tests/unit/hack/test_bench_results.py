"""The bench's table, its verdict on a noisy run, and its picture."""

from __future__ import annotations

from xml.etree import ElementTree

from hack.bench.chart import chart
from hack.bench.results import Results, spread
from hack.bench.table import AGENT, FLOOR, KUBELET, table, verdict


def results(*milliseconds: float, name: str = "start ms", by_chance: bool = False) -> Results:
    made = Results()
    for time in milliseconds:
        made.add(name, time / 1000, by_chance=by_chance)
    return made


def test_the_table_has_medians_their_ratio_and_the_floor() -> None:
    kubelet, agent, floor = results(190, 200, 210), results(99, 100, 101), results(50)
    agent.values["memory MiB"] = 70.25
    rows = table({KUBELET: kubelet, AGENT: agent, FLOOR: floor}).splitlines()
    assert rows[0].split() == ["kubelet", "edgelet", "ratio", "runtime", "alone"]
    assert rows[1].split() == ["start", "ms", "200", "100", "0.50", "50.0"]
    assert rows[2].split() == ["memory", "MiB", "-", "70.2", "-"]


def test_times_that_are_far_apart_make_a_run_that_is_not_good() -> None:
    quiet = {AGENT: results(100, 101, 99, 103, 100)}
    assert verdict(quiet) == ""
    noisy = {AGENT: results(100, 180, 90, 250, 100)}
    assert "edgelet: start ms" in verdict(noisy)
    assert "~100" in table(noisy)


def test_times_that_depend_on_chance_prove_no_noise() -> None:
    assert verdict({AGENT: results(100, 180, 90, 250, 100, by_chance=True)}) == ""


def test_of_three_times_no_spread_is_told() -> None:
    assert spread([1, 100, 1000]) == 0.0


def test_the_picture_is_svg_with_a_line_for_each_agent() -> None:
    kubelet, agent = results(190, 200, 210, 220), results(99, 100, 101, 104)
    agent.memory = [(0.0, 60.0), (10.0, 70.0)]
    drawn = ElementTree.fromstring(chart({KUBELET: kubelet, AGENT: agent}))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 3
