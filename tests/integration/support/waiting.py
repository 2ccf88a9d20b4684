"""Waiting for the world to become as it should be."""

import subprocess
import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")


def wait_until(
    probe: Callable[[], T | Literal[False] | None], timeout: float = 30, interval: float = 0.05, what: str = ""
) -> T:
    """The first truthy answer of `probe`. Raises AssertionError after `timeout` seconds, with the last answer in it.

    A probe that fails because what it looks at is not there yet (a command, a file, a field) is simply not true yet.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = probe()
        except (AssertionError, OSError, ValueError, KeyError, IndexError, subprocess.CalledProcessError) as problem:
            if time.monotonic() > deadline:
                raise AssertionError(f"not after {timeout:g} s: {what or 'the probe raises'}: {problem!r}") from problem
        else:
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not after {timeout:g} s: {what or 'the probe is not true'}; last answer {answer!r}"
                )
        time.sleep(interval)
