"""What may be given back to the kernel: mapped files whose pages are all still those of the file."""

from __future__ import annotations

from pathlib import Path

from agent import memory

SMAPS = """\
7f0000000000-7f0000002000 r-xp 00001000 fe:00 11 /usr/lib/libunused.so
Rss:                   8 kB
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00003000 fe:00 11 /usr/lib/libunused.so
Rss:                   4 kB
Anonymous:             4 kB
7f0000003000-7f0000004000 rw-p 00004000 fe:00 11 /usr/lib/libunused.so
Anonymous:             0 kB
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000005000-7f0000006000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
7f0000006000-7f0000007000 r--s 00000000 fe:00 12 /var/cache/a file
Anonymous:             0 kB
"""


def test_written_own_and_nameless_memory_stays_and_unchanged_files_may_go() -> None:
    assert list(memory.files_unchanged(SMAPS.splitlines())) == [
        (0x7F0000000000, 0x7F0000002000),
        (0x7F0000006000, 0x7F0000007000),
    ]


def test_giving_back_leaves_code_and_data_as_they_are() -> None:
    before = Path(__file__).read_bytes()
    memory.give_back()
    assert Path(__file__).read_bytes() == before
    assert sorted({"b": 1, "a": 2}) == ["a", "b"]
