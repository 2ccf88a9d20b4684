"""Certificates of ten minutes for forty minutes: a node joins by token and renews, its pod is asked all the time.

Run as root: `python -m hack.rotation [--minutes 40] [--life 10m] [--at-least 4]`. Each five seconds the pod's log is
read through the API server (which the node's serving certificate and its clients' end of TLS take part in), the Node
must be Ready and the agent's process the same. Fails on the first refused request, and where there were too few
renewals.
"""

import argparse
import contextlib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.joining import Joining
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

NODE = "rotates"
EVERY_S = 5.0
REFUSALS = ("Unauthorized", "the API server refuses", "is not renewed", "Traceback")
"""What the agent's log must not say."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--life", default="10m")
    parser.add_argument("--at-least", type=int, default=4)
    asked = parser.parse_args()
    workspace = Workspace()
    runtime = Containerd(workspace, Generation.BUILT)
    plane = ControlPlane(workspace.folder / "control-plane", signing_duration=asked.life)
    machine = workspace.folder / "machine"
    flags = (f"--kubeconfig={machine / 'kubeconfig'}", f"--root-dir={machine / 'root'}", "--rotate-server-certificates")
    agent = Agent(machine / "agent", NODE, runtime, plane, flags)
    try:
        runtime.start()
        plane.start()
        joining = Joining(plane)
        joining.join(machine, NODE)
        agent.start()
        agent.wait_ready(60)
        return _watch(joining, agent, machine, asked.minutes * 60, asked.at_least)
    except (AssertionError, DaemonError, subprocess.CalledProcessError) as problem:
        print(f"failed: {problem}\n{getattr(problem, 'stderr', '') or ''}", file=sys.stderr)
        return 1
    finally:
        agent.stop()
        with contextlib.suppress(DaemonError, subprocess.SubprocessError):
            runtime.remove_all_pods()
        plane.stop()
        runtime.stop()
        workspace.release()


def _watch(joining: Joining, agent: Agent, machine: Path, seconds: float, at_least: int) -> int:
    plane, pid, began = joining.plane, agent.pid, time.monotonic()
    script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 1; done"
    image = ("--image=docker.io/library/busybox:1.36", "--image-pull-policy=Never")
    plane.kubectl("run", "clock", *image, "--command", "--", "sh", "-c", script)
    plane.kubectl("wait", "--for=condition=Ready", "pod/clock", "--timeout=60s")
    seen: dict[str, list[str]] = {"client": [], "server": []}
    asked = 0
    while time.monotonic() - began < seconds:
        for name in joining.waiting_requests(NODE):
            plane.kubectl("certificate", "approve", name)
        assert "line" in plane.kubectl("logs", "clock", "--tail=1"), "kubectl logs gave nothing"
        asked += 1
        assert agent.running, "the agent ended"
        assert agent.pid == pid, "the agent was restarted"
        assert agent.condition("Ready").get("status") == "True", "the Node is not Ready"
        said = agent.log.read_text()
        refused = next((words for words in REFUSALS if words in said), "")
        assert not refused, f"the agent's log has: {refused}"
        for kind, files in seen.items():
            link = machine / "root" / "pki" / f"kubelet-{kind}-current.pem"
            if link.is_symlink() and link.readlink().name not in files:
                files.append(link.readlink().name)
                print(f"{time.monotonic() - began:7.0f} s  {kind} certificate {len(files)}", flush=True)
        if len(seen["server"]) > 1:
            _verify(plane, agent.port)
        time.sleep(EVERY_S)
    pod = plane.get("/api/v1/namespaces/default/pods/clock")
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    assert restarts == 0, f"the pod restarted {restarts} times"
    renewals = {kind: len(files) - 1 for kind, files in seen.items()}
    print(f"{seconds / 60:.0f} minutes, {asked} requests, renewals: {renewals}, none refused, no restart")
    return 0 if min(renewals.values()) >= at_least else 1


def _verify(plane: ControlPlane, port: int) -> None:
    """Raises where the server's certificate is not of the cluster, or has ended."""
    context = ssl.create_default_context(cafile=str(plane.client_ca))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        context.wrap_socket(link, server_hostname="127.0.0.1").close()


if __name__ == "__main__":
    sys.exit(main())
