"""Several agents in one process: `python -m hack.fleet.nodes SPEC`. Each is composed as `edgelet run` does.

In: a JSON file with the flags of each. Out: they run until SIGTERM, and a file that says how large the process was
before the first of them. One that fails ends all of them.
"""

import asyncio
import importlib
import json
import signal
import sys
from pathlib import Path

from agent import log, memory
from agent.kube.credentials import Credentials
from agent.options import resolve
from agent.run import serve


def main(spec: str) -> int:
    memory.spare()
    log.configure("warning")
    nodes = json.loads(Path(spec).read_text())
    # What all of them share; with the loader's package in it no kubeconfig needs a process to be read.
    importlib.import_module("agent.kube.official_loader")
    importlib.import_module("agent.providers.mock")
    Path(nodes["base"]).write_text(Path("/proc/self/smaps_rollup").read_text())
    asyncio.run(_run(nodes["flags"], nodes["apart_s"]))
    return 0


async def _run(nodes: list[dict[str, str]], apart_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for flags in nodes:
            tasks.create_task(_node(flags, stop), name=flags["node_name"])
            await asyncio.sleep(apart_s)


async def _node(flags: dict[str, str], stop: asyncio.Event) -> None:
    settings = resolve(flags, {}, {}, file_name="", hostname="fleet", exists=Path.exists)
    assert settings.kubeconfig is not None, "a fleet's nodes have a cluster"
    await serve(settings, await Credentials.load(settings.kubeconfig), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
