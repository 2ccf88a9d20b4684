"""The seccomp profile of pause processes: it forbids what runtimes' default profiles forbid, by name, and no more.

The default profile names some 400 calls that are allowed, and to make a filter of it costs 15 to 20 ms of processor
time for each pod, more than all else that the pause process ever does. The few dozen that are forbidden to a process
without capabilities cost next to nothing. What a kernel brings anew is allowed by this one: nothing of a pod's owner
runs under it.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec
from loguru import logger

from agent.durable_files import replace_file

FILE = "sandbox-seccomp.json"
"""In the root folder."""

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "armv7l": ("SCMP_ARCH_ARM",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}
"""By the kernel's name. A call of an architecture that is not named would be the end of the process."""
# fmt: off
_NAMES = (
    "acct", "add_key", "bpf", "clock_settime", "create_module", "delete_module", "finit_module", "fsconfig",
    "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mbind",
    "migrate_pages", "mount", "mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at",
    "open_tree", "perf_event_open", "pivot_root", "query_module", "quotactl", "quotactl_fd", "reboot",
    "request_key", "set_mempolicy", "setdomainname", "sethostname", "setns", "settimeofday", "stime", "swapoff",
    "swapon", "sysfs", "syslog", "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup",
    "vm86", "vm86old",
)
# fmt: on
_NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_EPERM, _ENOSYS = 1, 38
_AF_VSOCK = 40


def sandbox_profile(architectures: tuple[str, ...]) -> bytes:
    """In the form of the OCI runtime specification, JSON."""
    rules: list[dict[str, object]] = [_forbidden(_NAMES)]
    rules += [_forbidden(["clone"], 0, "SCMP_CMP_MASKED_EQ", flag, flag) for flag in _NAMESPACE_FLAGS]
    # Its flags are in memory, where no filter sees them; libc goes on with clone where it is not there.
    rules.append({**_forbidden(["clone3"]), "errnoRet": _ENOSYS})
    rules.append(_forbidden(["socket"], 0, "SCMP_CMP_EQ", _AF_VSOCK))
    return msgspec.json.encode({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules})


def write_profile(root: Path, architecture: str = "") -> str:
    """Its path; empty where it cannot be: the machine is of a kind that is not known here, or takes no file."""
    architectures = _ARCHITECTURES.get(architecture or platform.machine())
    if architectures is None:
        return ""
    file, wanted = root.absolute() / FILE, sandbox_profile(architectures)
    try:
        if not file.exists() or file.read_bytes() != wanted:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, wanted, 0o644)
    except OSError as error:
        logger.warning("pause processes have the runtime's seccomp profile, which takes longer: {}", error)
        return ""
    return str(file)


def keep_profile(file: str) -> None:
    """Without it no pod would start: have it again where somebody removed it."""
    if file and not Path(file).exists():
        write_profile(Path(file).parent)


def _forbidden(names: Sequence[str], index: int = -1, compare: str = "", *values: int) -> dict[str, object]:
    rule: dict[str, object] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
    if compare:
        rule["args"] = [{"index": index, "value": values[0], "valueTwo": values[-1], "op": compare}]
    return rule
