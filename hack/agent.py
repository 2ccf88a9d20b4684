"""The agent as a user runs it: a process with folders of its own, joined to a local runtime and control plane."""

import json
import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.processes import Daemon, free_port
from hack.runtime import Containerd

EVICTION_HARD = "memory.available<100Mi,nodefs.available<1%,imagefs.available<1%"
"""How full the disk of a developer's machine is must not matter to a test."""


class Agent:
    """One `edgelet run`. Killed or terminated, it can be started again on the same folders."""

    def __init__(
        self,
        folder: Path,
        node: str,
        runtime: Containerd | None,
        control_plane: ControlPlane | None,
        flags: Sequence[str] = (),
        manifests: Path | None = None,
        program: Path | None = None,
    ) -> None:
        """Without a control plane it runs the manifests in `manifests`; without a runtime `flags` name a provider that
        needs none. `flags` come last, so they win. `program` is an installed `edgelet`; else it is this source tree's.
        """
        self.node = node
        self.folder = folder
        self.root_dir = folder / "root"
        self.pod_logs_dir = folder / "pod-logs"
        self.container_log_links_dir = folder / "container-logs"
        self.port = free_port()
        self._control_plane = control_plane
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            *((sys.executable, "-m", "agent") if program is None else (str(program),)),
            "run",
            f"--nodename={node}",
            f"--root-dir={self.root_dir}",
            "--node-ip=127.0.0.1",
            f"--port={self.port}",
            f"--pod-logs-dir={self.pod_logs_dir}",
            f"--container-log-links-dir={self.container_log_links_dir}",
            "--log-level=debug",
            "--local-api=",  # several agents run on one machine; a test that wants it says where
        ]
        if not any(flag.startswith("--eviction-hard") for flag in flags):
            command.append(f"--eviction-hard={EVICTION_HARD}")
        if runtime is not None:
            command += [f"--container-runtime-endpoint={runtime.endpoint}", f"--cgroup-root={runtime.cgroup}"]
        if control_plane is not None:
            command.append(f"--kubeconfig={control_plane.node_kubeconfig(node)}")
        if manifests is not None:
            command.append(f"--pod-manifest-path={manifests}")
        # A kubeconfig of the developer's own, in the environment or in config/, must not reach the agent.
        # And its code is compiled once, as an installed one's is, whatever the developer's shell says.
        environment = {
            "KUBECONFIG": "",
            "PYTHONPATH": str(REPOSITORY) if program is None else "",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        self.daemon = Daemon("agent", [*command, *flags], folder, env=environment, working_folder=folder)

    @property
    def pid(self) -> int:
        return self.daemon.pid

    @property
    def running(self) -> bool:
        return self.daemon.running

    @property
    def log(self) -> Path:
        """Every start appends to the same file."""
        return self.daemon.log

    def start(self) -> None:
        self.daemon.start()

    def wait_ready(self, timeout: float = 30) -> None:
        """Until its Node is Ready; standalone: until it answers /healthz. Raises when it ends before."""
        self.daemon.wait_ready(self._is_ready, timeout)

    def kill9(self) -> None:
        self.daemon.kill()

    def terminate(self, timeout: float = 30) -> int:
        """SIGTERM as systemd would send; the exit code."""
        self.daemon.signal(signal.SIGTERM)
        return self.daemon.wait(timeout)

    def stop(self) -> None:
        """The end of a test: SIGTERM, then SIGKILL."""
        self.daemon.stop()

    def node_object(self) -> dict[str, Any]:
        assert self._control_plane is not None, "a standalone agent has no Node"
        return dict(json.loads(self._control_plane.kubectl("get", "node", self.node, "--output=json")))

    def delete_node(self) -> None:
        """Nothing where there is none."""
        if self._control_plane is not None:
            self._control_plane.kubectl("delete", "node", self.node, "--ignore-not-found", "--wait=false", check=False)

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the Node; empty where it has none of the kind."""
        conditions = self.node_object().get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def _is_ready(self) -> bool:
        if self._control_plane is None:
            return self._healthz()
        nodes = self._control_plane.get("/api/v1/nodes")["items"]
        conditions = [
            c for node in nodes if node["metadata"]["name"] == self.node for c in node["status"].get("conditions", [])
        ]
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _healthz(self) -> bool:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a self-signed certificate, on loopback
        try:
            urllib.request.urlopen(f"https://127.0.0.1:{self.port}/healthz", context=context, timeout=2).close()
        except urllib.error.HTTPError as answer:
            return answer.code in (401, 403)  # it serves; who may ask is another matter
        except OSError:
            return False
        return True
