"""Who has a SQLite record and no Secrets pays nothing for the rest."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("cryptography", "redis", "agent.store.etcd", "agent.store.redis", "agent.store.write_behind")


def test_the_agent_loads_no_server_client_and_no_cipher_before_they_are_needed() -> None:
    program = f"import sys, agent.run; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
