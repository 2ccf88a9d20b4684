"""Issued certificates on disk, laid out as a kubelet does it: NAME-DATE.pem, and a link NAME-current.pem.

In: a certificate and its key. Out: the link. One file has both, readable by root alone, and the link is replaced
in one step: who opens it has the old pair or the new one, also after a power cut. Blocks; called in a thread.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.config import Settings
from agent.durable_files import sync_folder, write_private

CLIENT = "kubelet-client"
SERVING = "kubelet-server"
KEPT = 2
"""The newest files of a name that stay."""


class KeyAndRequest(msgspec.Struct, frozen=True):
    """PEM."""

    key: bytes
    request: bytes

    def __repr__(self) -> str:
        return "KeyAndRequest()"  # a key is for no log


class Issued(msgspec.Struct, frozen=True):
    """PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued()"


def folder_of(settings: Settings) -> Path:
    return (settings.cert_dir or settings.root_dir / "pki").absolute()


class IssuedPair:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    @property
    def current(self) -> Path:
        return self._folder / f"{self._name}-current.pem"

    def put(self, issued: Issued, unix_s: float, remark: str = "") -> None:
        """Make it the current one. Raises ValueError where the two don't belong together, OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp = datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d-%H-%M-%S.%f")
        file = self._folder / f"{self._name}-{stamp}.pem"
        head = f"# {remark}\n".encode() if remark else b""
        write_private(file, head + issued.certificate.rstrip() + b"\n" + issued.key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
        except ssl.SSLError as error:
            file.unlink()
            raise ValueError("the certificate is not for the key that it was asked for") from error
        link = self._folder / f".{self._name}-current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(file.name)
        link.replace(self.current)
        sync_folder(self._folder)
        self._forget_old(file)

    def _forget_old(self, newest: Path) -> None:
        # By age, not by name: a clock may have been years ahead when one was made.
        files = [file for file in self._folder.glob(f"{self._name}-[0-9]*.pem") if file != newest]
        files.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files[KEPT - 1 :]:
            file.unlink(missing_ok=True)
