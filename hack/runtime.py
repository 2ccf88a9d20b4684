"""A containerd of our own: root, state, socket, CNI network and bridge inside one workspace, never the machine's.

Two generations are in the field and both are tried: the distribution's (1.6 on Debian 12), and 2.x built from source.
"""

import json
import os
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path

from hack import binaries, images
from hack.paths import REPOSITORY
from hack.processes import Daemon
from hack.workspace import Workspace, end_shims_and_containers, unmount_below

CAP_SYS_RESOURCE = 24
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))


class Generation(StrEnum):
    """Which containerd: the one that the distribution installed, or the one built here."""

    DISTRIBUTION = "1.6"
    BUILT = "2"


class Containerd:
    """`start` returns when it serves CRI and has the test images; `stop` leaves containers running, as a crash does."""

    def __init__(
        self,
        workspace: Workspace,
        generation: Generation,
        bridge_index: int = 0,
        masquerade: bool = False,
        *,
        root: Path | None = None,
    ) -> None:
        """`masquerade`: pods reach the world, through rules in the machine's iptables. `root`: where images and what
        containers write are to be, of one beside the workspace's others.
        """
        self.generation = generation
        name = f"containerd-{generation}"
        if root is not None:
            name += f"-{sum(1 for _ in workspace.folder.glob(f'{name}-*'))}"
        self.folder = workspace.folder / name
        self.root = root or self.folder / "root"
        self.socket = self.folder / "containerd.sock"
        self.endpoint = f"unix://{self.socket}"
        self.bridge = workspace.bridge(bridge_index)
        self.gateway = workspace.gateway(bridge_index)
        self.cgroup = workspace.cgroup
        self._masquerade = masquerade
        self._subnet = workspace.subnet(bridge_index)
        self._binary = _binary(generation)
        self._imported = False
        self.folder.mkdir(parents=True)
        # containerd finds its shim on PATH; the built one must find its own generation.
        path = f"{self._binary.parent}:{os.environ['PATH']}"
        self.daemon = Daemon(
            "containerd", [self._binary, "--config", self._write_config()], self.folder, env={"PATH": path}
        )

    @property
    def pid(self) -> int:
        return self.daemon.pid

    @property
    def log(self) -> Path:
        return self.daemon.log

    def start(self) -> None:
        """Raises DaemonError."""
        self._keep_state_in_memory()
        self.daemon.start()
        self.daemon.wait_ready(self._serves_cri, 30)
        if not self._imported:
            for archive in images.archives():
                self.ctr("images", "import", str(archive))
            self._imported = True

    def stop(self) -> None:
        self.daemon.stop()

    def kill(self) -> None:
        self.daemon.kill()

    def lose_power(self) -> None:
        """What a power cut leaves: containerd's database and images, and no process, mount or file below its state."""
        self.daemon.kill()
        end_shims_and_containers(self.folder)
        unmount_below(self.folder)

    def ctr(self, *args: str) -> str:
        """containerd's own client, in the namespace that CRI uses. Raises CalledProcessError."""
        return _run(["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *args])

    def crictl(self, *args: str, stdin: str | None = None) -> str:
        """Standard output. Raises CalledProcessError."""
        return _run([*self._crictl_command(), *args], stdin)

    def remove_all_pods(self) -> None:
        """Through CRI, so that addresses and host ports are given back."""
        subprocess.run(
            [*self._crictl_command(), "rmp", "--all", "--force"], check=False, capture_output=True, timeout=120
        )

    def _crictl_command(self) -> list[str]:
        endpoints = [f"--runtime-endpoint={self.endpoint}", f"--image-endpoint={self.endpoint}"]
        # A config file that is not there is an error, an empty one is not: the machine's own must not matter.
        return [str(binaries.find("crictl")), "--config=/dev/null", *endpoints, "--timeout=30s"]

    def _serves_cri(self) -> bool:
        return self.socket.exists() and subprocess.run(
            [*self._crictl_command(), "version"], check=False, capture_output=True
        ).returncode == 0  # fmt: skip

    def _keep_state_in_memory(self) -> None:
        """As on a machine, where it is below /run: on a disk each of a pod's twenty files would cost as much again."""
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        if not state.is_mount():
            _run(["mount", "-t", "tmpfs", "-o", "mode=755", "containerd", str(state)])

    def _write_config(self) -> Path:
        network = {
            "cniVersion": "0.4.0",
            "name": self.bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": self._masquerade,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "edgelet-ipam",
                        "ranges": [[{"subnet": self._subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.folder / "addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
                {"type": "edgelet-bandwidth", "capabilities": {"bandwidth": True}},
            ],
        }
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-test.conflist").write_text(json.dumps(network))
        config = self.folder / "config.toml"
        template = CONFIG_1 if self.generation is Generation.DISTRIBUTION else CONFIG_2
        config.write_text(
            template.format(
                folder=self.folder,
                root=self.root,
                socket=self.socket,
                pause=images.PAUSE,
                cni=self._plugins(),
                restrict=str(_lacks_sys_resource()).lower(),
            )
        )
        return config

    def _plugins(self) -> Path:
        """The machine's CNI plugins with ours among them, which call the others as their neighbours."""
        folder = self.folder / "cni-bin"
        folder.mkdir()
        for plugin in (*_cni_plugins().iterdir(), *(REPOSITORY / "scripts/cni").iterdir()):
            (folder / plugin.name).symlink_to(plugin)
        return folder


CONFIG_1 = """\
version = 2
root = "{root}"
state = "{folder}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{folder}/state/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/certs.d"
"""
CONFIG_2 = """\
version = 3
root = "{root}"
state = "{folder}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true  # its socket is the machine's
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{folder}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "{folder}/state/runc"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{folder}/cni"
"""


def _binary(generation: Generation) -> Path:
    if generation is Generation.BUILT:
        binaries.find("containerd-shim-runc-v2")
        return binaries.find("containerd")
    found = shutil.which("containerd")
    if found is None:
        raise FileNotFoundError("no containerd on this machine: hack/packages.sh installs it")
    return Path(found)


def _cni_plugins() -> Path:
    for folder in CNI_FOLDERS:
        if (folder / "bridge").exists():
            return folder
    raise FileNotFoundError(f"no CNI plugins in {', '.join(map(str, CNI_FOLDERS))}: hack/packages.sh installs them")


def _lacks_sys_resource() -> bool:
    [effective] = [
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    ]
    return not effective >> CAP_SYS_RESOURCE & 1


def _run(command: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
