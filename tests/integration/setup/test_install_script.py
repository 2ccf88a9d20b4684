"""scripts/install-containerd.sh, run on file trees of its own (EDGELET_SETUP_ROOT): nothing of this machine is touched.

Every test runs the real script. Where it asks containerd what a configuration means, that is the real containerd;
only facts about the machine (version, architecture, user) are sometimes answered by a small program put first in PATH.
A whole run on a fresh machine, with packages and pods, is test_fresh_machine.py.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
SCRIPT = SCRIPTS / "install-containerd.sh"

CONFIG = "etc/containerd/config.toml"
NETWORK = "etc/cni/net.d/10-edgelet.conflist"
MADE = "var/lib/edgelet-setup/made"

ALL_CAPABILITIES = "000001ffffffffff"
NO_SYS_RESOURCE = "000001fffeffffff"

WORKING = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:1"
  restrict_oom_score_adj = true
"""

needs_containerd = pytest.mark.skipif(shutil.which("containerd") is None, reason="asks the real containerd")

Run = Callable[..., subprocess.CompletedProcess[str]]


class Machine:
    """A file tree that looks like a machine to the script, and programs that answer for it."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self.programs = programs
        self.write("etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        self.capabilities(ALL_CAPABILITIES)
        self.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
        for plugin in ("bridge", "host-local", "loopback", "portmap", "firewall"):
            self.write(f"usr/lib/cni/{plugin}", "").chmod(0o755)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def has(self, path: str) -> bool:
        return (self.root / path).exists()

    def capabilities(self, mask: str, bounding: str | None = None) -> None:
        self.write("proc/self/status", f"Name:\tx\nCapEff:\t{mask}\nCapBnd:\t{bounding or mask}\n")

    def answers(self, program: str, script: str) -> None:
        file = self.programs / program
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            [str(SCRIPT), *options],
            env={"PATH": path, "HOME": str(self.root / "root"), "EDGELET_SETUP_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def snapshot(self) -> dict[str, tuple[str, int]]:
        return {
            str(file.relative_to(self.root)): (file.read_text(), file.stat().st_mtime_ns)
            for file in sorted(self.root.rglob("*"))
            if file.is_file() and file.name != "lock"
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    programs = tmp_path / "programs"
    programs.mkdir()
    return Machine(tmp_path / "root", programs)


def in_bash(commands: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run commands with the script's own functions loaded, as on an amd64 machine."""
    names = ("common", "software", "config", "runtime", "images")
    parts = "\n".join(f". {SCRIPTS}/setup/{name}.sh" for name in names)
    facts = f"ROOT={cwd} STAGING='' DRY_RUN='' OFFLINE='' ARCH=amd64 INIT=systemd DEFAULT_CONFIG=/c SOCKET=/s"
    preamble = f"set -euo pipefail\n{facts}\n{parts}\n"
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    return subprocess.run(
        ["bash", "-c", preamble + commands], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


# --- options and refusals --------------------------------------------------------------------------------------------


def test_help_names_every_option(machine: Machine) -> None:
    result = machine.run("--help")
    assert result.returncode == 0
    for option in (
        "--dry-run",
        "--uninstall",
        "--demo-image",
        "--pod-cidr",
        "--offline",
        "--no-install",
        "--oci-runtime",
    ):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--dryrun",), "--dryrun"),
        (("--pod-cidr",), "--pod-cidr"),
        (("--pod-cidr", "10.88.0.0"), "10.88.0.0"),
        (("--pod-cidr", "10.88.0.0/30"), "10.88.0.0/30"),
        (("--oci-runtime",), "--oci-runtime"),
        (("--oci-runtime=youki",), "youki"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line_that_names_it(
    machine: Machine, options: tuple[str, ...], named: str
) -> None:
    result = machine.run(*options)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr
    assert not machine.has("var")


def test_without_root_it_refuses_and_says_how_to_run_it(machine: Machine) -> None:
    machine.answers("id", "echo 1000")
    environment = {"PATH": f"{machine.programs}:{os.environ['PATH']}"}
    result = subprocess.run([str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "sudo" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unsupported_distribution_is_refused_by_name(machine: Machine) -> None:
    machine.write("etc/os-release", "ID=arch\n")
    result = machine.run()
    assert result.returncode == 2
    assert "'arch'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not machine.has(CONFIG)


def test_an_unsupported_distribution_is_configured_when_its_software_is_the_owners_business(machine: Machine) -> None:
    machine.write("etc/os-release", "ID=arch\n")
    assert machine.run("--no-install").returncode == 0
    assert machine.has(CONFIG)


@pytest.mark.parametrize(
    "release",
    [
        "ID=ubuntu\nID_LIKE=debian\n",
        'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
        "ID=fedora\n",
        'ID="centos"\nID_LIKE="rhel fedora"\n',
    ],
)
def test_relatives_of_the_supported_distributions_are_known(machine: Machine, release: str) -> None:
    machine.write("etc/os-release", release)
    assert machine.run().returncode == 0


def test_an_unsupported_machine_type_is_refused_by_name(machine: Machine) -> None:
    machine.answers("uname", "echo riscv64")
    result = machine.run()
    assert result.returncode == 2
    assert "'riscv64'" in result.stderr


def test_two_runs_at_once_are_refused(machine: Machine) -> None:
    lock = machine.write("var/lib/edgelet-setup/lock", "")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = machine.run()
    assert result.returncode == 1
    assert "another run" in result.stderr
    assert not machine.has(CONFIG)


# --- what it learns about the machine ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effective", "bounding", "restricted"),
    [
        (ALL_CAPABILITIES, ALL_CAPABILITIES, False),
        (NO_SYS_RESOURCE, NO_SYS_RESOURCE, True),
        (ALL_CAPABILITIES, NO_SYS_RESOURCE, True),
    ],
)
def test_oom_scores_are_restricted_exactly_where_cap_sys_resource_is_missing(
    machine: Machine, effective: str, bounding: str, restricted: bool
) -> None:
    machine.capabilities(effective, bounding)
    assert machine.run().returncode == 0
    assert ("restrict_oom_score_adj = true" in machine.read(CONFIG)) is restricted


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("cgroup.controllers", "cgroup v2"),
        ("unified/cgroup.procs", "cgroup hybrid"),
        ("memory/tasks", "cgroup v1"),
    ],
)
def test_the_cgroup_generation_is_told(machine: Machine, file: str, named: str) -> None:
    shutil.rmtree(machine.root / "sys")
    machine.write(f"sys/fs/cgroup/{file}", "")
    assert named in machine.run("--dry-run").stdout


def test_systemd_brings_its_cgroup_driver_and_settings_for_the_next_boot(machine: Machine) -> None:
    machine.write("run/systemd/system/x", "")
    assert machine.run().returncode == 0
    assert "SystemdCgroup = true" in machine.read(CONFIG)
    assert "net.ipv4.ip_forward = 1" in machine.read("etc/sysctl.d/99-edgelet.conf")
    assert machine.read("etc/modules-load.d/edgelet.conf").split() == ["overlay", "br_netfilter"]


def test_without_systemd_runc_manages_cgroups_itself(machine: Machine) -> None:
    machine.run()
    assert "SystemdCgroup = false" in machine.read(CONFIG)
    assert not machine.has("etc/sysctl.d")


# --- what it writes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        ("1.6.20~ds1", ["version = 2", "sandbox_image =", 'bin_dir = "/usr/lib/cni"'], ["bin_dirs", "cri.v1.runtime"]),
        ("v2.0.5", ["version = 3", "pinned_images]", 'bin_dir = "/usr/lib/cni"'], ["bin_dirs", "grpc.v1.cri"]),
        ("v2.4.2", ["version = 3", "pinned_images]", 'bin_dirs = ["/usr/lib/cni"]'], ["grpc.v1.cri"]),
    ],
)
def test_each_containerd_generation_gets_its_own_form(
    machine: Machine, version: str, present: list[str], absent: list[str]
) -> None:
    machine.answers("containerd", f'echo "containerd github.com/containerd/containerd {version} abc"')
    assert machine.run().returncode == 0
    config = machine.read(CONFIG)
    assert '"registry.k8s.io/pause:3.10.2"' in config
    for text in present:
        assert text in config
    for text in absent:
        assert text not in config


@needs_containerd
@pytest.mark.parametrize("version", ["1.6.20", "v2.4.2"])
def test_crun_makes_the_containers_when_asked_for_and_runc_stays_for_who_names_it(
    machine: Machine, version: str
) -> None:
    machine.answers("containerd", f'echo "containerd github.com/containerd/containerd {version} abc"')
    assert machine.run("--oci-runtime", "crun").returncode == 0
    (machine.programs / "containerd").unlink()
    command = ["containerd", "--config", str(machine.root / CONFIG), "config", "dump"]
    if version.startswith("v2"):
        written = tomllib.loads(machine.read(CONFIG))["plugins"]["io.containerd.cri.v1.runtime"]
    else:
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        written = tomllib.loads(dump)["plugins"]["io.containerd.grpc.v1.cri"]
    runtimes = written["containerd"]["runtimes"]
    assert written["containerd"]["default_runtime_name"] == "crun"
    assert runtimes["crun"]["runtime_type"] == runtimes["runc"]["runtime_type"] == "io.containerd.runc.v2"
    assert runtimes["crun"]["options"]["BinaryName"] == "crun"


def test_crun_is_refused_where_both_cgroup_generations_have_controllers(machine: Machine) -> None:
    shutil.rmtree(machine.root / "sys")
    machine.write("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n")
    refused = machine.run("--oci-runtime=crun")
    assert refused.returncode == 2
    assert "hybrid" in refused.stderr
    assert not machine.has(CONFIG)
    assert machine.run().returncode == 0
    machine.write("sys/fs/cgroup/unified/cgroup.controllers", "")
    assert machine.run("--oci-runtime=crun").returncode == 0


@needs_containerd
def test_the_machines_containerd_understands_what_is_written(machine: Machine) -> None:
    machine.capabilities(NO_SYS_RESOURCE)
    machine.run()
    config = machine.root / CONFIG
    dump = subprocess.run(
        ["containerd", "--config", str(config), "config", "dump"], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"restrict_oom_score_adj = true", dump)
    assert re.search(r"sandbox(_image)? = ['\"]registry.k8s.io/pause:3.10.2['\"]", dump)
    assert "/usr/lib/cni" in dump


def test_the_network_is_a_bridge_with_host_ports(machine: Machine) -> None:
    machine.run("--pod-cidr", "10.99.0.0/16")
    network = json.loads(machine.read(NETWORK))
    bridge = network["plugins"][0]
    assert [plugin["type"] for plugin in network["plugins"]] == ["bridge", "portmap", "firewall", "edgelet-bandwidth"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.99.0.0/16"}]]
    assert network["plugins"][1]["capabilities"] == {"portMappings": True}
    assert network["plugins"][3]["capabilities"] == {"bandwidth": True}
    assert bridge["ipam"]["type"] == "edgelet-ipam"
    for plugin in ("edgelet-ipam", "edgelet-bandwidth"):
        placed = machine.root / "usr/lib/cni" / plugin
        assert placed.read_text() == (SCRIPTS / "cni" / plugin).read_text()
        assert os.access(placed, os.X_OK)


def test_crictl_is_pointed_at_the_socket(machine: Machine) -> None:
    machine.run()
    assert machine.read("etc/crictl.yaml").splitlines()[:2] == [
        "runtime-endpoint: unix:///run/containerd/containerd.sock",
        "image-endpoint: unix:///run/containerd/containerd.sock",
    ]


def test_a_dry_run_shows_every_file_and_changes_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    result = machine.run("--dry-run")
    assert result.returncode == 0
    assert machine.snapshot() == before
    assert not machine.has("etc/containerd")
    for text in (f"/{CONFIG}", f"/{NETWORK}", "/etc/crictl.yaml", "| version = ", '"bridge": "edgelet0"'):
        assert text in result.stdout


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.run()
    before = machine.snapshot()
    result = machine.run()
    assert result.returncode == 0
    assert machine.snapshot() == before
    assert not [line for line in result.stdout.splitlines() if line.startswith("do ")]


def test_our_own_configuration_follows_the_machine(machine: Machine) -> None:
    machine.run()
    machine.capabilities(NO_SYS_RESOURCE)
    machine.run()
    assert "restrict_oom_score_adj = true" in machine.read(CONFIG)
    assert [file.name for file in (machine.root / CONFIG).parent.iterdir()] == ["config.toml"]


# --- what others wrote -----------------------------------------------------------------------------------------------


@needs_containerd
def test_a_working_configuration_is_left_alone(machine: Machine) -> None:
    machine.capabilities(NO_SYS_RESOURCE)
    machine.write(CONFIG, WORKING)
    result = machine.run()
    assert result.returncode == 0
    assert machine.read(CONFIG) == WORKING
    assert [file.name for file in (machine.root / CONFIG).parent.iterdir()] == ["config.toml"]
    assert f"left alone: /{CONFIG}" in result.stdout


@needs_containerd
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('disabled_plugins = ["cri"]\n', "CRI plugin is disabled"),
        ('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n', "CRI plugin is disabled"),
        ("version = 2\n", "CAP_SYS_RESOURCE"),
        ("version = [\n", "does not accept it"),
    ],
    ids=["docker's", "disabled by its full name", "no OOM restriction", "malformed"],
)
def test_a_configuration_that_cannot_run_pods_is_replaced_and_kept_as_a_dated_copy(
    machine: Machine, text: str, reason: str
) -> None:
    machine.capabilities(NO_SYS_RESOURCE)
    machine.write(CONFIG, text)
    result = machine.run()
    assert result.returncode == 0
    assert reason in result.stdout
    [copy] = (machine.root / CONFIG).parent.glob("config.toml.bak-*")
    assert copy.read_text() == text
    assert str(copy.name) in result.stdout
    assert "restrict_oom_score_adj = true" in machine.read(CONFIG)
    assert "disabled_plugins" not in machine.read(CONFIG)


@needs_containerd
def test_the_example_that_came_with_a_package_we_installed_makes_way(machine: Machine) -> None:
    machine.write(CONFIG, "version = 2\n")
    machine.write(MADE, "package\tcontainerd:amd64\t\n")
    machine.run()
    assert "sandbox_image" in machine.read(CONFIG) or "pinned_images" in machine.read(CONFIG)
    assert list((machine.root / CONFIG).parent.glob("config.toml.bak-*"))


@needs_containerd
def test_our_configuration_changed_by_hand_stays_and_ours_lies_beside_it(machine: Machine) -> None:
    machine.run()
    changed = machine.read(CONFIG) + "# mine\n"
    machine.write(CONFIG, changed)
    result = machine.run()
    assert result.returncode == 0
    assert machine.read(CONFIG) == changed
    assert machine.read(f"{CONFIG}.edgelet-new") + "# mine\n" == changed
    assert "config.toml.edgelet-new" in result.stdout


def test_another_pod_network_is_left_alone(machine: Machine) -> None:
    machine.write("etc/cni/net.d/05-flannel.conflist", "{}")
    result = machine.run()
    assert "left alone: /etc/cni/net.d/05-flannel.conflist" in result.stdout
    assert not machine.has(NETWORK)


def test_another_crictl_configuration_is_left_alone_and_its_socket_told(machine: Machine) -> None:
    machine.write("etc/crictl.yaml", "runtime-endpoint: unix:///run/crio/crio.sock\n")
    result = machine.run()
    assert machine.read("etc/crictl.yaml") == "runtime-endpoint: unix:///run/crio/crio.sock\n"
    assert "names another socket" in result.stdout


@needs_containerd
def test_the_socket_of_an_existing_configuration_is_used(machine: Machine) -> None:
    machine.write(CONFIG, WORKING + '[grpc]\n  address = "/run/mine/containerd.sock"\n')
    machine.run()
    assert "unix:///run/mine/containerd.sock" in machine.read("etc/crictl.yaml")


# --- taking it back --------------------------------------------------------------------------------------------------


def test_uninstall_leaves_the_tree_as_it_was(machine: Machine) -> None:
    (machine.root / "etc/containerd").mkdir(parents=True)
    before = machine.snapshot()
    machine.run()
    result = machine.run("--uninstall")
    assert result.returncode == 0, result.stderr
    assert machine.snapshot() == before
    assert machine.has("etc/containerd")  # it was there before
    assert not machine.has("etc/cni")  # it was not
    assert not machine.has("var/lib/edgelet-setup")


@needs_containerd
def test_uninstall_puts_the_previous_configuration_back(machine: Machine) -> None:
    machine.write(CONFIG, 'disabled_plugins = ["cri"]\n')
    machine.run()
    machine.run("--uninstall")
    assert machine.read(CONFIG) == 'disabled_plugins = ["cri"]\n'
    assert [file.name for file in (machine.root / CONFIG).parent.iterdir()] == ["config.toml"]


@needs_containerd
def test_uninstall_takes_nothing_that_it_did_not_make(machine: Machine) -> None:
    machine.write(CONFIG, WORKING)
    machine.write("etc/cni/net.d/05-flannel.conflist", "{}")
    before = machine.snapshot()
    machine.run()
    machine.run("--uninstall")
    assert machine.snapshot() == before


def test_uninstall_keeps_a_file_that_was_changed_since_and_says_so(machine: Machine) -> None:
    machine.run()
    machine.write(NETWORK, "{}")
    result = machine.run("--uninstall")
    assert machine.read(NETWORK) == "{}"
    assert f"stays: /{NETWORK}" in result.stdout
    assert not machine.has(CONFIG)


def test_a_dry_run_of_uninstall_changes_nothing(machine: Machine) -> None:
    machine.run()
    before = machine.snapshot()
    result = machine.run("--uninstall", "--dry-run")
    assert result.returncode == 0
    assert machine.snapshot() == before
    assert f"would  remove /{CONFIG}" in result.stdout


def test_uninstall_on_an_untouched_machine_says_that_there_is_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    result = machine.run("--uninstall")
    assert result.returncode == 0
    assert "nothing to take back" in result.stdout
    assert machine.snapshot() == before


# --- upstream releases and images -------------------------------------------------------------------------------


def release_of_crictl(folder: Path) -> tuple[Path, str]:
    program = folder / "crictl"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    archive = folder / "crictl-v9-linux-amd64.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(program, "crictl")
    return archive, hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.skipif(shutil.which("curl") is None, reason="downloads with curl")
def test_a_release_is_unpacked_when_its_checksum_is_the_pinned_one(tmp_path: Path) -> None:
    archive, digest = release_of_crictl(tmp_path)
    result = in_bash(
        f"RELEASE_URL[crictl]=file://{archive} RELEASE_SHA256[crictl-amd64]={digest}\n"
        'fetch_release crictl "$PWD/cache"; echo "$BUILT"',
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert os.access(Path(result.stdout.strip()) / "crictl", os.X_OK)


@pytest.mark.skipif(shutil.which("curl") is None, reason="downloads with curl")
def test_a_release_with_another_checksum_is_not_installed(tmp_path: Path) -> None:
    archive, digest = release_of_crictl(tmp_path)
    result = in_bash(f'RELEASE_URL[crictl]=file://{archive}\nfetch_release crictl "$PWD/cache"', tmp_path)
    assert result.returncode == 1
    assert f"SHA-256 is {digest}" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_an_unreachable_host_is_tried_once_for_all_parts(tmp_path: Path) -> None:
    result = in_bash(
        "for part in crictl cni; do RELEASE_URL[$part]=http://127.0.0.1:1/x/releases/$part.tgz; done\n"
        'download() { echo "tried $1"; false; }\n'
        'for part in crictl cni; do fetch_release $part "$PWD/cache" || echo "$part: $RELEASE_FAULT"; done',
        tmp_path,
    )
    assert result.stdout.splitlines() == [
        "tried http://127.0.0.1:1/x/releases/crictl.tgz",
        "crictl: http://127.0.0.1:1/x can't be reached",
        "cni: http://127.0.0.1:1/x can't be reached",
    ]


def test_without_package_download_or_go_the_error_names_all_three(tmp_path: Path) -> None:
    result = in_bash(
        "OFFLINE=yes\nhas_command() { false; }\ninstall_from_upstream crictl",
        tmp_path,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "install-containerd: error: can't get crictl: no package, no download (--offline), "
        "no Go build (no Go toolchain here)"
    ]


@pytest.mark.parametrize(
    ("family", "has", "names"),
    [
        ("apt", "true", ["containerd", "runc", "containernetworking-plugins", "cri-tools", "iptables"]),
        ("dnf", "true", ["containerd", "runc", "containernetworking-plugins", "cri-tools", "iptables-nft"]),
        ("dnf", '[ "$3" != containerd ]', ["runc", "containernetworking-plugins", "cri-tools", "iptables-nft"]),
    ],
)
def test_packages_have_each_familys_names_and_only_those_it_offers(
    tmp_path: Path, family: str, has: str, names: list[str]
) -> None:
    result = in_bash(
        f"PACKAGES={family}\ndnf() {{ {has}; }}\napt-cache() {{ echo Candidate: 1; }}\n"
        "for part in containerd runc cni crictl iptables; do package_of $part; done",
        tmp_path,
    )
    assert result.stdout.split() == names


def test_every_release_is_pinned_for_both_architectures(tmp_path: Path) -> None:
    result = in_bash(
        'for part in "${!RELEASE_URL[@]}"; do for arch in amd64 arm64; do '
        'echo "$part ${RELEASE_VERSION[$part]} ${RELEASE_SHA256[$part-$arch]}"; done; done',
        tmp_path,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 8
    assert all(re.fullmatch(r"[a-z]+ \d+\.\d+\.\d+ [0-9a-f]{64}", line) for line in lines)
    assert len({line.split()[2] for line in lines}) == 8


def test_a_packed_image_is_an_oci_archive_whose_digests_hold(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image/pause").write_text("program")
    result = in_bash("""pack_image "$PWD/image" registry.example/pause:3 '["/pause","-P"]' null""", tmp_path)
    assert result.returncode == 0, result.stderr
    with tarfile.open(tmp_path / "image.tar") as tar:
        blobs = {name: tar.extractfile(name).read() for name in tar.getnames() if tar.getmember(name).isfile()}  # type: ignore[union-attr]

    def blob(descriptor: dict[str, object]) -> bytes:
        algorithm, digest = str(descriptor["digest"]).split(":")
        data = blobs[f"blobs/{algorithm}/{digest}"]
        assert hashlib.sha256(data).hexdigest() == digest
        assert len(data) == descriptor["size"]
        return data

    [entry] = json.loads(blobs["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "registry.example/pause:3"
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    [layer] = manifest["layers"]
    blob(layer)
    assert config["config"]["Entrypoint"] == ["/pause", "-P"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


# --- under systemd --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "changed", "enabled", "orders"),
    [
        ("", "", False, ["enable --quiet containerd.service", "start containerd.service"]),
        ("", "", True, ["start containerd.service"]),
        ("1", "yes", True, ["restart containerd.service"]),
        ("1", "", True, []),
    ],
)
def test_systemd_is_asked_for_no_more_than_is_needed(
    tmp_path: Path, running: str, changed: str, enabled: bool, orders: list[str]
) -> None:
    calls = (
        f"""systemctl() {{ case $* in *is-enabled*) {"true" if enabled else "false"} ;; *) echo "+ $*" ;; esac; }}"""
    )
    result = in_bash(f"{calls}\nRUNNING_PID={running} CONFIG_CHANGED={changed}\nrun_by_systemd", tmp_path)
    assert result.returncode == 0, result.stderr
    assert [line[2:] for line in result.stdout.splitlines() if line.startswith("+ ")] == orders
    made = tmp_path / MADE
    assert made.exists() is ("enable --quiet containerd.service" in orders)  # only then is it ours to disable


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_scripts_are_clean_by_shellcheck() -> None:
    files = sorted(str(file) for file in (SCRIPTS / "setup").glob("*.sh"))
    result = subprocess.run(["shellcheck", "-x", str(SCRIPT), *files], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout


def test_the_service_unit_leaves_pods_running_when_it_stops() -> None:
    unit = (SCRIPTS / "edgelet.service").read_text()
    for line in textwrap.dedent(
        """\
        KillMode=process
        Restart=always
        RestartSec=2
        EnvironmentFile=-/etc/edgelet/env
        """
    ).splitlines():
        assert line in unit.splitlines()
