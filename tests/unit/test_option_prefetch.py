"""How images ahead are asked for: names, a rate, times of day."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from tests.unit.test_config import settle


def test_flags_and_file_say_the_same() -> None:
    flags = {
        "prefetch": "busybox,r.example:5000/a/b:1",
        "prefetch_rate": "2MB",
        "prefetch_window": "22:00-06:00,12:00-13:30",
    }
    file = {
        "prefetch": ["busybox", "r.example:5000/a/b:1"],
        "prefetchRate": 2_000_000,
        "prefetchWindow": ["22:00-06:00", "12:00 - 13:30"],
    }
    for settings in (settle(flags), settle({}, {}, file)):
        assert settings.prefetch == ("busybox", "r.example:5000/a/b:1")
        assert settings.prefetch_rate == 2_000_000
        assert settings.prefetch_window == ((1320, 360), (720, 810))


@pytest.mark.parametrize(
    ("written", "bytes_a_second"),
    [("0", 0), ("500k", 500_000), ("1.5MiB/s", 1_572_864), ("2M/s", 2_000_000), ("3000B", 3000)],
)
def test_a_rate_is_a_quantity_of_bytes(written: str, bytes_a_second: int) -> None:
    assert settle({"prefetch_rate": written}).prefetch_rate == bytes_a_second


@pytest.mark.parametrize(
    ("flag", "written", "said"),
    [
        ("prefetch", "Busybox:1", "'Busybox:1' is not the name of an image"),
        ("prefetch_rate", "fast", "fast"),
        ("prefetch_rate", "5B", "at least 1000 bytes"),
        ("prefetch_window", "22-6", "'22-6' is no time of day: write 22:00-06:00"),
        ("prefetch_window", "22:00-22:00", "is no time of day"),
        ("prefetch_window", "22:60-23:00", "is no time of day"),
        ("prefetch_window", "24:00-06:00", "is no time of day"),
        ("prefetch_window", "00:00-24:01", "is no time of day"),
    ],
)
def test_what_is_none_is_refused(flag: str, written: str, said: str) -> None:
    with pytest.raises(ConfigError, match="--" + flag.replace("_", "-")) as refused:
        settle({flag: written})
    assert said in str(refused.value)
