"""Policies by annotations of the Node: heard of once, said once, and the figures that follow."""

from __future__ import annotations

from agent.node.allocatable import Allocatable
from agent.node.policies import NodePolicing
from tests.unit.node.machine import FACTS, SETTINGS, FakeEvents


def test_a_change_is_heard_of_and_a_sight_of_the_same_is_not() -> None:
    policing, heard = NodePolicing(SETTINGS), list[int]()
    policing.notify(lambda: heard.append(policing.settings.image_gc_high_threshold))
    policing.saw({})
    policing.saw({"edgelet.io/image-gc-high-threshold": "90"})
    policing.saw({"edgelet.io/image-gc-high-threshold": "90"})
    policing.saw({})
    assert heard == [90, 85]
    assert policing.settings == SETTINGS


def test_a_fault_is_an_event_that_names_annotation_and_value_once_until_it_was_put_right() -> None:
    events = FakeEvents()
    policing, heard = NodePolicing(SETTINGS, events), list[int]()
    policing.notify(lambda: heard.append(1))
    wrong = {"edgelet.io/image-gc-high-threshold": "many"}
    policing.saw(wrong)
    policing.saw({**wrong, "edgelet.io/image-gc-low-threshold": "70"})
    message = "annotation edgelet.io/image-gc-high-threshold='many' does not count: not a whole number: 'many'"
    ((about, *told),) = events.recorded
    assert (about.kind, about.name, told) == ("Node", "edge-1", ["Warning", "InvalidPolicy", message])
    assert (policing.settings.image_gc_high_threshold, policing.settings.image_gc_low_threshold) == (85, 70)
    assert heard == [1]
    policing.saw({})
    policing.saw(wrong)
    assert events.reasons == ["InvalidPolicy"] * 2


def test_allocatable_follows_the_hard_threshold() -> None:
    policing = NodePolicing(SETTINGS)
    room = Allocatable(FACTS, policing)
    before = dict(room)
    assert before["memory"] == f"{8 * 2**20 - 2**20 - 100 * 2**10}Ki"
    policing.saw({"edgelet.io/eviction-hard": "memory.available<1Gi,nodefs.available<50%"})
    assert room["memory"] == f"{6 * 2**20}Ki"
    assert room["ephemeral-storage"] == str(50 * 2**30)
    assert room.told_of(FACTS) == room.told() == dict(room)
    policing.saw({})
    assert dict(room) == before
