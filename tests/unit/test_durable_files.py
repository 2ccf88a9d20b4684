"""A file is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.durable_files import fresh_name, replace_file


def test_a_file_is_replaced_with_its_mode_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "note"
    file.write_text("old")
    fresh_name(file).write_text("left by a power cut")
    replace_file(file, b"new", 0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "note"
    file.write_text("old")
    fresh_name(file).mkdir()
    with pytest.raises(OSError, match="note"):
        replace_file(file, b"new")
    assert file.read_text() == "old"
