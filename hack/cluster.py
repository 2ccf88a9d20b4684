"""A cluster of one node on this machine, to try things in: control plane, own containerd, agent; until Ctrl-C.

The machine's own containerd, kubeconfig and networks are left alone, and at the end nothing is left of any of it.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from hack import binaries, images
from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.processes import Daemon, DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

NODE = "edge"


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _cluster() as daemons:
            _watch_over(daemons)
    except KeyboardInterrupt:
        return 0
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _cluster() -> Iterator[list[Daemon]]:
    workspace = Workspace()
    kept: list[Agent | ControlPlane] = []
    runtime = Containerd(workspace, Generation.DISTRIBUTION, masquerade=True)
    try:
        _say("starting containerd, the control plane and the agent")
        runtime.start()
        plane = ControlPlane(workspace.folder / "control-plane")
        kept.append(plane)
        plane.start()
        agent = Agent(workspace.folder / "agent", NODE, runtime, plane)
        kept.insert(0, agent)
        agent.start()
        agent.wait_ready(60)
        print(_instructions(plane, runtime, agent), flush=True)
        yield [agent.daemon, runtime.daemon, plane.api_server, plane.etcd]
    finally:
        # A second Ctrl-C, born of impatience, must not leave pods behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _say("ending the cluster and its pods")
        for part in kept:
            part.stop()
        with contextlib.suppress(DaemonError, subprocess.SubprocessError):
            runtime.remove_all_pods()
        runtime.stop()
        workspace.release()


def _watch_over(daemons: list[Daemon]) -> NoReturn:
    while True:
        for daemon in daemons:
            if not daemon.running:
                raise DaemonError(f"{daemon.name} ended with {daemon.exit_code}\n{daemon.log_tail()}")
        time.sleep(0.5)


def _instructions(plane: ControlPlane, runtime: Containerd, agent: Agent) -> str:
    lines = [
        "",
        f"Node {NODE} is Ready. In another terminal:",
        "",
        f"  export KUBECONFIG={plane.admin_kubeconfig}",
        f"  export CONTAINER_RUNTIME_ENDPOINT={runtime.endpoint}",
    ]
    missing = [name for name in ("kubectl", "crictl") if shutil.which(name) is None]
    if missing:
        lines.append(f"  export PATH=$PATH:{':'.join(str(binaries.find(name).parent) for name in missing)}")
    lines += [
        "  kubectl apply -f examples/deployment.yaml",
        "",
        f"The agent's log: {agent.log}",
        "Ctrl-C ends the cluster and removes all of it.",
    ]
    return "\n".join(lines)


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
