"""A real kubelet on a local runtime and control plane: what the agent is compared with."""

import socket
from pathlib import Path

import yaml

from hack import binaries
from hack.control_plane import ControlPlane
from hack.processes import Daemon, free_port
from hack.runtime import Containerd
from hack.workspace import Workspace


def kubelet(workspace: Workspace, node: str, runtime: Containerd, plane: ControlPlane, cluster_dns: str = "") -> Daemon:
    """Not started yet. Its files, logs and cgroups are inside the workspace."""
    folder = workspace.folder / "kubelet"
    folder.mkdir()
    workspace.make_cgroup()
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(plane.client_ca)}},
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": workspace.cgroup,
        "clusterDNS": [cluster_dns] if cluster_dns else [],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": runtime.endpoint,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "healthzPort": 0,
        "maxPods": 250,
        "podLogsDir": str(folder / "pod-logs"),
        "port": free_port(),
        "serializeImagePulls": False,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command: list[str | Path] = [
        binaries.find("kubelet"),
        f"--config={path}",
        f"--kubeconfig={plane.node_kubeconfig(node)}",
        f"--hostname-override={node}",
        f"--root-dir={folder / 'root'}",
        f"--cert-dir={folder / 'pki'}",
        f"--node-ip={own_address()}",
    ]
    return Daemon("kubelet", command, folder)


def own_address() -> str:
    """This machine's address on its default route; a kubelet takes no loopback address. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address
