"""What the machine says of itself: size, identity, system and address.

In: /proc, /sys, /etc and the file system of the agent's folder. Out: one frozen value. Everything here blocks for
moments only, sends no packet, and answers on machines that lack a file: what is not known stays empty.
"""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec
import psutil

_GO_ARCH = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
_UNUSED = {4: "203.0.113.1", 6: "2001:db8::1"}
"""Documentation addresses: the route to them is the default one."""


class MachineFacts(msgspec.Struct, frozen=True):
    cpus: int
    memory_bytes: int
    ephemeral_storage_bytes: int
    """Size of the file system under the agent's folder."""
    pid_max: int
    hostname: str
    addresses: tuple[str, ...]
    """Of the default routes, IPv4 first; never empty."""
    architecture: str
    """As Go names it."""
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    hugepages_bytes: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Reserved huge pages by the suffix of their resource, as "2Mi"."""
    swap_bytes: int = 0
    threads_max: int = 0
    """0: not known."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes, by the eviction signal of what is left of them."""
        return {"memory.available": self.memory_bytes, "nodefs.available": self.ephemeral_storage_bytes}

    @property
    def most_pids(self) -> int:
        """Processes and threads that the kernel has room for."""
        return min(self.pid_max, self.threads_max or self.pid_max)


def read_facts(root_dir: Path, top: Path = Path("/")) -> MachineFacts:
    """Read the machine. `top` is the root of a machine's tree, for a test; CPU and memory are always this machine's."""
    machine_id = _word(top / "etc/machine-id")
    return MachineFacts(
        cpus=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        ephemeral_storage_bytes=file_system_bytes(root_dir),
        pid_max=int(_word(top / "proc/sys/kernel/pid_max") or 32768),
        hostname=socket.gethostname(),
        addresses=default_addresses(),
        architecture=go_architecture(platform.machine()),
        machine_id=machine_id,
        # Machines without SMBIOS have none; the kubelet then takes the machine's id too.
        system_uuid=_word(top / "sys/class/dmi/id/product_uuid") or _device_tree_uuid(top) or machine_id,
        boot_id=_word(top / "proc/sys/kernel/random/boot_id"),
        kernel_version=platform.release(),
        os_image=os_image(top),
        hugepages_bytes=hugepages(top),
        swap_bytes=psutil.swap_memory().total,
        threads_max=int(_word(top / "proc/sys/kernel/threads-max") or 0),
    )


def file_system_bytes(folder: Path) -> int:
    """Size of the file system that holds the folder, or that would if the folder existed."""
    return psutil.disk_usage(str(nearest_existing(folder))).total


def nearest_existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def go_architecture(machine: str) -> str:
    if re.match(r"armv?[5-7]|armv8l|arm$", machine):
        return "arm"
    return _GO_ARCH.get(machine, machine)


def os_image(top: Path = Path("/")) -> str:
    for file in (top / "etc/os-release", top / "usr/lib/os-release"):
        found = re.search(r"^PRETTY_NAME=(.*)$", _text(file), re.MULTILINE)
        if found:
            return found[1].strip().strip("\"'")
    return "Linux"


def hugepages(top: Path = Path("/")) -> dict[str, int]:
    """Bytes reserved for each page size that the kernel has."""
    found: dict[str, int] = {}
    for folder in sorted((top / "sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        size_kib = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        pages = int(_word(folder / "nr_hugepages") or 0)
        found[_page_size(size_kib)] = pages * size_kib * 1024
    return found


def default_addresses() -> tuple[str, ...]:
    """The addresses that packets to the world leave from; else any other than loopback; else loopback."""
    routed = [address for version in (4, 6) if (address := _source_address(version))]
    return tuple(routed) or _first_interface_address() or ("127.0.0.1",)


def _source_address(version: int) -> str:
    """Connecting a datagram socket asks the kernel for a route and sends nothing."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_UNUSED[version], 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return ""  # no route, or no such family in this kernel
    parsed = ip_address(address)
    return "" if parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified else address


def _first_interface_address() -> tuple[str, ...]:
    for _, addresses in sorted(psutil.net_if_addrs().items()):
        for address in addresses:
            if address.family != socket.AF_INET:
                continue
            parsed = ip_address(address.address)
            if not (parsed.is_loopback or parsed.is_link_local):
                return (address.address,)
    return ()


def _page_size(kib: int) -> str:
    for unit, size in (("Gi", 1024 * 1024), ("Mi", 1024)):
        if kib % size == 0:
            return f"{kib // size}{unit}"
    return f"{kib}Ki"


def _device_tree_uuid(top: Path) -> str:
    """Boards have no SMBIOS but often a serial number."""
    tree = top / "proc/device-tree"
    return (_word(tree / "vm,uuid") or _word(tree / "serial-number")).strip("\0")


def _word(file: Path) -> str:
    return _text(file).strip()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # missing, or not for this user (product_uuid is root's)
