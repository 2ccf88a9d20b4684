"""scripts/install-containerd.sh on a fresh Debian: packages, containerd, a pod with a network, all of it taken back.

The machine is a debootstrap tree with its own mounts; its pods run in a network namespace of their own, so nothing here
meets the containerd of the machine that runs the tests. It takes about two minutes, so it runs only when asked:

    EDGELET_TEST_FRESH_MACHINE=1 pytest tests/integration/setup/test_fresh_machine.py
"""

import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
CGROUP = "/edgelet-setup-test"

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("EDGELET_TEST_FRESH_MACHINE"), reason="asked for with EDGELET_TEST_FRESH_MACHINE=1"
    ),
    pytest.mark.timeout(900),
]

# The root is bound onto itself because runc wants it to be a mount point. The Go caches are the host's.
MOUNTS = """\
mount --bind {root} {root}
mount --rbind /proc {root}/proc; mount --rbind /sys {root}/sys; mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/run; mount -t tmpfs tmpfs {root}/tmp
mount --bind {scripts} {root}/scripts
mount --bind {go} {root}/usr/local/go
mount --bind {cache} {root}/root/.cache; mount --bind {modules} {root}/root/go/pkg/mod
touch {root}/tmp/mounted; exec sleep 3600
"""

POD = """\
set -eu
ip link set lo up
/scripts/install-containerd.sh >/tmp/again
cat >/tmp/pod.json <<J
{"metadata": {"name": "t", "namespace": "default", "uid": "u", "attempt": 0}, "log_directory": "/tmp/logs",
 "port_mappings": [{"container_port": 8080, "host_port": 18080, "protocol": 0}],
 "linux": {"cgroup_parent": "CGROUP", "security_context": {}}}
J
cat >/tmp/container.json <<J
{"metadata": {"name": "c"}, "image": {"image": "docker.io/library/busybox:1.36"}, "log_path": "c.log", "linux": {},
 "command": ["sh", "-c", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"]}
J
pod=$(crictl runp /tmp/pod.json)
container=$(crictl create "$pod" /tmp/container.json /tmp/pod.json)
crictl start "$container" >/dev/null
sleep 1
echo "pod answers: $(crictl exec "$container" wget -qO- http://localhost:8080/)"
gateway=$(ip -4 -o address show edgelet0 | awk '{ sub("/.*", "", $4); print $4 }')
echo "host port answers: $(crictl exec "$container" wget -qO- "http://$gateway:18080/")"
if /scripts/install-containerd.sh --uninstall 2>/tmp/refusal; then exit 9; fi
cat /tmp/refusal
crictl rmp --force "$pod" >/dev/null
/scripts/install-containerd.sh --uninstall
ip link show edgelet0 2>/dev/null && exit 8
true
""".replace("CGROUP", CGROUP)


class FreshMachine:
    def __init__(self, root: Path, holder: int) -> None:
        self.root = root
        self.holder = holder

    def run(self, *command: str, own_network: bool = False) -> subprocess.CompletedProcess[str]:
        enter = ["unshare", "--net"] if own_network else []
        enter += ["nsenter", f"--target={self.holder}", "--mount", "chroot", str(self.root), "/usr/bin/env", "-i"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*enter, path, "HOME=/root", "LC_ALL=C", *command], capture_output=True, text=True, timeout=600
        )

    def packages(self) -> list[str]:
        return self.run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n").stdout.splitlines()

    def files(self) -> set[str]:
        """What is in the folders that an owner looks after. Alternatives and apt's notes are the package manager's."""
        found = self.run("find", "/etc", "/usr/local", "/opt", "-xdev", "-not", "-path", "/etc/alternatives/*")
        return {line for line in found.stdout.splitlines() if not line.startswith("/usr/local/go")}

    def containerd(self) -> int:
        return int(self.run("cat", "/run/edgelet-setup/containerd.pid").stdout)


def go_folder(variable: str) -> Path:
    return Path(subprocess.run(["go", "env", variable], capture_output=True, text=True, check=True).stdout.strip())


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[FreshMachine]:
    for program in ("debootstrap", "unshare", "nsenter", "go"):
        if shutil.which(program) is None:
            pytest.fail(f"this test needs {program}")
    root = tmp_path / "root"
    include = "--include=ca-certificates,iproute2"
    subprocess.run(["debootstrap", "--variant=minbase", include, "bookworm", str(root)], check=True, timeout=600)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    modules = go_folder("GOMODCACHE")
    for folder in (cache, modules):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("scripts", "usr/local/go", "root/.cache", "root/go/pkg/mod"):
        (root / name).mkdir(parents=True, exist_ok=True)
    mounts = MOUNTS.format(root=root, scripts=SCRIPTS, go=go_folder("GOROOT"), cache=cache, modules=modules)
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", "-ec", mounts])
    machine = FreshMachine(root, holder.pid)
    try:
        deadline = time.monotonic() + 20
        while machine.run("test", "-e", "/tmp/mounted").returncode != 0:
            assert holder.poll() is None, "the mounts failed"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield machine
    finally:
        pid = machine.run("cat", "/run/edgelet-setup/containerd.pid").stdout.strip()
        if pid:
            machine.run("crictl", "rmp", "--all", "--force")
            end(int(pid))
        holder.kill()
        holder.wait()
        for folder in Path("/sys/fs/cgroup").glob(f"**{CGROUP}"):
            folder.rmdir()
        shutil.rmtree(root)  # its mounts ended with the holder's namespace


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_a_fresh_debian_runs_a_pod_and_is_as_before_after_uninstall(fresh: FreshMachine) -> None:
    packages, files = fresh.packages(), fresh.files()

    first = fresh.run("/scripts/install-containerd.sh", "--demo-image")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1].startswith("ready")
    assert "do     install packages: containerd runc" in first.stdout

    second = fresh.run("/scripts/install-containerd.sh", "--demo-image")
    assert second.returncode == 0, second.stderr
    assert [line for line in second.stdout.splitlines() if line.startswith("do ")] == []

    end(fresh.containerd())  # as after a reboot: the next run starts it again, here in a network of its own
    pod = fresh.run("bash", "-c", textwrap.dedent(POD), own_network=True)
    assert pod.returncode == 0, pod.stdout + pod.stderr
    assert "pod answers: hello" in pod.stdout
    assert "host port answers: hello" in pod.stdout
    assert "containers still exist" in pod.stdout
    assert "everything that this script made is taken back" in pod.stdout

    assert fresh.packages() == packages
    assert fresh.files() <= files | {"/etc/hosts"}  # the container tools' base packages write it once
