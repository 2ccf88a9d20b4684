"""What the Node says of images ahead."""

from __future__ import annotations

import json

from agent.pods.prefetch.told import (
    LISTED,
    MESSAGE_CHARS,
    BundleStatus,
    ImageStatus,
    State,
    shortened,
    told,
)


def test_images_and_bundles_are_told_in_few_words() -> None:
    text = told(
        [ImageStatus("a:1", State.PULLING, 10, 20), ImageStatus("b:1", State.PENDING)],
        [BundleStatus("x.tar", State.IMPORTED, ("c:1",))],
    )
    assert text == (
        '{"images":[{"image":"a:1","state":"Pulling","bytes":10,"total":20},{"image":"b:1","state":"Pending"}],'
        '"bundles":[{"file":"x.tar","state":"Imported","images":["c:1"]}]}'
    )


def test_where_there_is_nothing_to_tell_there_is_no_annotation() -> None:
    assert told([], []) is None


def test_of_too_many_those_that_are_not_well_are_listed() -> None:
    many = [ImageStatus(f"a:{number}", State.PRESENT) for number in range(LISTED)]
    whole = json.loads(told([*many, ImageStatus("b:1", State.FAILED, message="x" * MESSAGE_CHARS)], []) or "")
    assert whole["more"] == 1
    assert whole["images"][0]["image"] == "b:1"
    assert len(whole["images"]) == LISTED


def test_a_long_message_is_cut() -> None:
    assert len(shortened("x" * 1000)) == MESSAGE_CHARS
    assert shortened("short") == "short"
