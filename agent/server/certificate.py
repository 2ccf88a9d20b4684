"""The server's certificate: the one that was given, else one that the cluster signed, else one of our own making.

In: settings, the node's names and the time. Out: the PEM files to load. Our own is self-signed, as a kubelet's is, kept
with its key in one file (0600) below the root folder, and made anew when the node's names change or its year is nearly
over. Blocks; called in a thread.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from loguru import logger

from agent import apart
from agent.config import Settings
from agent.durable_files import write_private
from agent.errors import ConfigError
from agent.kube.pki import SERVING, IssuedPair, folder_of


class CertificateFiles(msgspec.Struct, frozen=True):
    certificate: Path
    key: Path

    def version(self) -> tuple[int, int]:
        """Changes when the files do. Raises OSError."""
        return self.certificate.stat().st_mtime_ns, self.key.stat().st_mtime_ns


def server_certificate(settings: Settings, addresses: Sequence[str], unix_s: float) -> CertificateFiles:
    """The files to load, checked to fit each other; our own is made where it is missing, stale or damaged.

    Raises ConfigError naming the flag, or OSError where our own cannot be written.
    """
    certificate, key = settings.tls_cert_file, settings.tls_private_key_file
    if certificate is not None and key is not None:
        files = CertificateFiles(certificate, key)
        try:
            _load(files)
        except (OSError, ValueError) as error:
            flags = f"--tls-cert-file {certificate}, --tls-private-key-file {key}"
            raise ConfigError(f"{flags}: {_plain(error)}") from error
        return files
    if certificate is not None or key is not None:
        missing = "--tls-cert-file" if certificate is None else "--tls-private-key-file"
        raise ConfigError(f"{missing}: must be given too: certificate and key go together")
    if settings.rotate_server_certificates and (issued := _issued(settings)) is not None:
        return issued
    names = sorted({settings.node_name.lower(), *(a for a in addresses if a)})
    return own_certificate(settings.root_dir / "pki" / "server.pem", settings.node_name, names, unix_s)


def own_certificate(file: Path, node_name: str, names: list[str], unix_s: float) -> CertificateFiles:
    """A self-signed one with its key in `file`, for these names. Raises OSError where it cannot be written."""
    files = CertificateFiles(file, file)
    if not _is_good(files, names, unix_s):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, _made(node_name, names, unix_s))
    return files


def _issued(settings: Settings) -> CertificateFiles | None:
    """The one that the cluster signed. One that has ended stays: our own convinces nobody either."""
    current = IssuedPair(folder_of(settings), SERVING).current
    files = CertificateFiles(current, current)
    try:
        _load(files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("{} is not used: {}", current, _plain(error))
        return None
    return files


def _is_good(files: CertificateFiles, names: list[str], unix_s: float) -> bool:
    """The first line of our own file tells what it was made for, so that no X.509 parser need be in memory."""
    try:
        with files.certificate.open() as file:
            facts = json.loads(file.readline().removeprefix("# "))
        _load(files)
        return bool(facts["names"] == names and facts["from"] <= unix_s < facts["renew"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("{} is made anew: {}", files.certificate, _plain(error))
        return False


def _load(files: CertificateFiles) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password=_no_password)


def _no_password() -> str:
    """Never ask on the terminal of an agent."""
    raise ValueError("the key is encrypted; give one without a password")


def _plain(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a PEM certificate with its key ({error.reason or error})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _made(node_name: str, names: list[str], unix_s: float) -> bytes:
    if "cryptography" in sys.modules:
        from agent.server.self_signed import self_signed

        return self_signed(node_name, names, unix_s)
    command = apart.command("agent.server.self_signed", node_name, str(unix_s), *names)
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
