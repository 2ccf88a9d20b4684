"""Show a local volume or another machine's file system in a pod's folder, by the machine's own mount command.

mount(8) knows the helpers (mount.nfs) and the spelling of options that mount(2) does not. What is mounted already stays
as it is. Blocks; called in a thread.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from agent.pods.volumes.empty_dir import make_private
from agent.pods.volumes.mounts import Mounts
from agent.pods.volumes.ownership import own
from agent.pods.volumes.steps import MountRemote, ShowLocal

COMMAND_TIMEOUT_S: Final = 110.0
"""A server that does not answer holds up its pod, whose end waits for the command."""

Commands = Callable[[Sequence[str]], "tuple[int, str]"]
"""Runs a command to its end; its exit code, and what it said on both outputs. Raises OSError."""


def run_command(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise TimeoutError(f"{command[0]} did not end within {COMMAND_TIMEOUT_S:.0f} s") from late
    return done.returncode, done.stdout.decode(errors="replace").strip()


def show_local(step: ShowLocal, mounts: Mounts, run: Commands) -> None:
    """Raises ValueError for a path that can't be a local volume, OSError with mount's words."""
    if ".." in step.source.parts:
        raise ValueError(f"invalid path: {step.source} must not contain '..'")
    if step.path in mounts.at_or_below(step.path):
        return
    try:
        mode = step.source.stat().st_mode
    except FileNotFoundError:
        raise OSError(f'path "{step.source}" does not exist') from None
    if not (stat.S_ISDIR(mode) or stat.S_ISBLK(mode)):
        raise ValueError("only directory and block device are supported")
    make_private(step.path)
    try:
        if stat.S_ISBLK(mode):
            _mount_device(step, run)
        else:
            mount(run, None, str(step.source), step.path, ("bind", *step.options))
        if step.read_only:
            # By the mount, not the file system: another pod may use the same device and write.
            _remount(step, run)
        if step.ownership is not None:
            own(step.path, step.ownership)
    except OSError:
        _take_back(step.path, mounts)
        raise


def mount_remote(step: MountRemote, mounts: Mounts, run: Commands) -> None:
    """Raises OSError with mount's words."""
    if step.path in mounts.at_or_below(step.path):
        return
    make_private(step.path)
    try:
        mount(run, step.kind, step.source, step.path, step.options)
    except OSError:
        _take_back(step.path, mounts)
        raise


def mount(run: Commands, kind: str | None, source: str, target: Path, options: Sequence[str]) -> None:
    """mount(8) with these options. Raises OSError with the kubelet's words."""
    arguments = [
        *(("-t", kind) if kind is not None else ()),
        *(("-o", ",".join(options)) if options else ()),
        source,
        str(target),
    ]
    code, said = run(["mount", *arguments])
    if code != 0:
        raise OSError(
            f"mount failed: exit status {code}\nMounting command: mount\n"
            f"Mounting arguments: {' '.join(arguments)}\nOutput: {said}\n"
        )


def _remount(step: ShowLocal, run: Commands) -> None:
    mount(run, None, str(step.source), step.path, ("bind", "remount", *step.options, "ro"))


def _mount_device(step: ShowLocal, run: Commands) -> None:
    """The kernel shows one device's file system at as many places as wanted, so each pod has a mount of its own."""
    device = str(step.source)
    code, found = run(["blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device])
    if code == 2:
        if step.read_only:
            raise OSError(f"cannot mount unformatted disk {device} as we are manipulating it in read-only mode")
        force = {"ext3": ("-F", "-m0"), "ext4": ("-F", "-m0"), "xfs": ("-f",)}.get(step.fs_type, ())
        code, said = run([f"mkfs.{step.fs_type}", *force, device])
        if code != 0:
            raise OSError(f'format of disk "{device}" failed: type:("{step.fs_type}") errcode:({code}) output:({said})')
    elif code != 0 or "PTTYPE=" in found:
        why = "it has a partition table" if code == 0 else found
        raise OSError(f"failed to get disk format of disk {device}: {why}")
    mount(run, step.fs_type, device, step.path, (*step.options, "defaults"))


def _take_back(path: Path, mounts: Mounts) -> None:
    """The next try begins anew: a volume that is half made must not look ready."""
    for point in mounts.at_or_below(path):
        mounts.unmount(point, lazy=True)
    os.rmdir(path)
