"""A wall clock of one process's own, which a test sets while it runs: libfaketime, from the distribution.

Only what the clock shows is moved. Monotonic time, time since the machine's start and files' times stay real, so the
process finds itself on a machine whose clock was set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

LIBRARY = "libfaketimeMT.so.1"
SEEN_AFTER_S = 1
"""The process looks so seldom: it costs a read of a file."""
PLACES = ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/lib*")


class FakeClock:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._write(0)

    @property
    def env(self) -> Mapping[str, str]:
        """For the process."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(SEEN_AFTER_S),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set_off(self, seconds: float) -> None:
        """So far ahead of the machine's clock, or behind it. Returns when the process has seen it."""
        self._write(seconds)
        time.sleep(SEEN_AFTER_S + 0.2)

    def _write(self, seconds: float) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.0f}\n")
        fresh.replace(self._file)


def _library() -> Path:
    found = [path for place in PLACES for path in Path("/").glob(f"{place}/{LIBRARY}".lstrip("/"))]
    if not found:
        pytest.fail(f"no {LIBRARY} here: hack/packages.sh installs it")
    return found[0]
