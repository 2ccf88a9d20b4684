"""Run a part of the agent in a process of its own: its libraries' memory comes back when it ends."""

from __future__ import annotations

import sys


def command(module: str, *arguments: str) -> list[str]:
    """The command that calls `main(*arguments)` of one of our modules."""
    # Our sys.path is handed on, not PYTHONPATH: what the process starts may be Python too and inherits the environment.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main(*sys.argv[1:])"
    return [sys.executable, "-I", "-c", program, *arguments]
