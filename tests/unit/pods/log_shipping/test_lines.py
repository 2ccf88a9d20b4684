"""Blocks of CRI's log format to lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.pods.log_shipping.lines import count, parse

T = "2026-03-01T12:00:00.123456789+01:00"


def cri(text: str, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"{T} {stream} {tag} {text}\n".encode()


def test_whole_lines_are_given_and_a_half_one_waits() -> None:
    block = cri("one") + cri("", stream="stderr") + cri("half")[:-1]
    lines, used = parse(block, whole=False)
    assert [(line.stream, line.text) for line in lines] == [("stdout", "one"), ("stderr", "")]
    assert used == lines[-1].end == len(cri("one") + cri("", stream="stderr"))
    assert lines[0].time == T
    assert lines[0].end == len(cri("one"))


def test_parts_of_a_line_are_joined_while_the_other_stream_goes_on() -> None:
    block = cri("a", "P") + cri("err", stream="stderr") + cri("b", "P:x") + cri("c")
    lines, used = parse(block, whole=False)
    assert [line.text for line in lines] == ["err", "abc"]
    assert used == len(block)
    assert [line.is_safe for line in lines] == [False, True]
    assert lines[0].end == 0  # to stop there would lose the beginning of the other


def test_no_line_is_given_before_its_last_part_is_there() -> None:
    done = cri("done")
    block = done + cri("a", "P") + cri("err", stream="stderr")
    lines, used = parse(block, whole=False)
    assert [line.text for line in lines] == ["done"]
    assert used == len(done)
    lines, used = parse(block, whole=True)
    assert [line.text for line in lines] == ["done", "err", "a"]
    assert (used, lines[-1].end, lines[-1].is_safe) == (len(block), len(block), True)


def test_the_end_of_a_file_may_be_torn_or_be_no_line_at_all() -> None:
    block = cri("one") + cri("torn")[:-1]
    lines, used = parse(block, whole=True)
    assert [line.text for line in lines] == ["one", "torn"]
    assert used == len(block)
    lines, used = parse(cri("one") + b"\0" * 100, whole=True)
    assert [line.text for line in lines] == ["one"]
    assert used == lines[-1].end == len(cri("one")) + 100
    assert parse(b"\0\xff\n", whole=True) == ([], 3)


def test_what_is_not_utf_8_is_replaced() -> None:
    lines, _ = parse(cri("x").replace(b"x", b"a\xffb"), whole=False)
    assert lines[0].text == "a�b"


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FP"), st.text("ab", max_size=3))))
def test_going_on_from_any_safe_place_gives_the_same_lines(parts: list[tuple[str, str, str]]) -> None:
    block = b"".join(cri(text, tag, stream) for stream, tag, text in parts)
    lines, used = parse(block, whole=False)
    texts = [(line.stream, line.text) for line in lines]
    for index, line in enumerate(lines):
        if line.is_safe:
            rest, more = parse(block[line.end :], whole=False)
            assert texts[: index + 1] + [(one.stream, one.text) for one in rest] == texts
            assert line.end + more == used
    assert count(block) == sum(1 for _, tag, _ in parts if tag == "F")
