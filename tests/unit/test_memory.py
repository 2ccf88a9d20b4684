from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TLS_CONNECTIONS = """
import asyncio.sslproto, ssl, tracemalloc
from agent import memory
memory.spare()
async def main():
    loop, context = asyncio.get_running_loop(), ssl.create_default_context()
    tracemalloc.start()
    kept = [asyncio.sslproto.SSLProtocol(loop, asyncio.Protocol(), context, None) for _ in range(16)]
    print(tracemalloc.get_traced_memory()[0] // 16)
asyncio.run(main())
"""


def test_an_open_tls_connection_costs_less_than_100_kilobytes() -> None:
    """In a process of its own: the limits hold for a whole process."""
    run = subprocess.run(
        [sys.executable, "-c", _TLS_CONNECTIONS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 100_000
