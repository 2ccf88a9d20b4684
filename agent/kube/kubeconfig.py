"""What a kubeconfig says, read by the official loader in a process of its own.

In: the path of a kubeconfig (or several, joined by `:`). Out: a `Reading`. The loader's package would cost the agent
20 MiB for as long as it lives, for something needed once a start and once a renewal; a process that ends gives them
back, and a plugin that hangs is ended with it. Who has the package loaded anyway reads without another process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from agent import apart
from agent.errors import ConfigError

LOAD_TIMEOUT_S = 30.0
WRONG = 2
"""Exit code of the loader's process: the kubeconfig is wrong, stdout says how."""

Fingerprint = tuple[tuple[str, int, int], ...]
"""Path, modification time and inode of each file that was read."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The current context, resolved."""

    server: str
    user: str
    seen: Fingerprint
    authorization: str
    ca: bytes | None
    certificate: bytes | None
    key: bytes | None
    verify: bool
    server_name: str | None
    proxy: str | None
    expires_at: float | None
    """When the token ends, in Unix seconds, where a renewal could give a newer one."""
    problem: str
    """Why there is no credential now (a plugin failed)."""
    remarks: tuple[str, ...]
    """For the log."""


async def read_kubeconfig(kubeconfig: str) -> Reading:
    """Raises ConfigError: one line that names the file."""
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            with _decoded_keys() as folder:
                return await _read(kubeconfig, folder)
    except TimeoutError as error:
        raise ConfigError(f"kubeconfig {kubeconfig}: its plugin did not answer in {LOAD_TIMEOUT_S:.0f} s") from error


async def _read(kubeconfig: str, folder: str) -> Reading:
    if "kubernetes" in sys.modules:
        from agent.kube import official_loader

        return await official_loader.read(kubeconfig, folder)
    return await _read_apart(kubeconfig, folder)


async def _read_apart(kubeconfig: str, folder: str) -> Reading:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *apart.command("agent.kube.loader_process", kubeconfig, folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            process_group=0,
        )
    )
    try:
        answer, _ = await (await asyncio.shield(starting)).communicate()
    finally:
        loader = await starting  # cancelled before it is handed over, asyncio would end it without its plugin
        if loader.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(loader.pid, signal.SIGKILL)
            await loader.wait()
    match loader.returncode:
        case 0:
            return msgspec.json.decode(answer, type=Reading)
        case code if code == WRONG:
            raise ConfigError(answer.decode())
        case code:
            raise ConfigError(f"kubeconfig {kubeconfig}: its loader ended with code {code}")


@contextmanager
def _decoded_keys() -> Iterator[str]:
    """A folder for the loader's decoded `-data` fields: in memory where there is a tmpfs, gone at the end.

    The loader's process removes it too: this one may be killed.
    """
    memory = "/dev/shm"  # noqa: S108 - the folder made in it is ours alone
    where = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix=f"edgelet-{os.getpid()}-", dir=where)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """How the files are now; an absent one counts too."""

    def look(path: str) -> tuple[str, int, int]:
        try:
            status = os.stat(path)
        except OSError:
            return path, 0, 0
        return path, status.st_mtime_ns, status.st_ino

    return tuple(look(path) for path in paths)
