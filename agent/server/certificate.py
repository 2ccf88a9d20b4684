"""The server's certificate: the one that was given, else one of our own making.

In: settings, the node's names and the time. Out: the PEM files to load. Our own is self-signed, as a kubelet's is, kept
with its key in one file (0600) below the root folder, and made anew when the node's names change or its year is nearly
over. Blocks; called in a thread.
"""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from agent.config import Settings
from agent.errors import ConfigError

if TYPE_CHECKING:  # 8 MB of memory, needed once a year
    from cryptography.x509 import GeneralName

LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(hours=1)
"""A caller's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
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
    file = settings.root_dir / "pki" / "server.pem"
    files = CertificateFiles(file, file)
    names = sorted({settings.node_name.lower(), *(a for a in addresses if a)})
    if not _is_good(files, names, unix_s):
        _write_private(file, _self_signed(settings.node_name, names, unix_s))
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


def _self_signed(node_name: str, names: list[str], unix_s: float) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    start = datetime.fromtimestamp(int(unix_s), UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    # X.520 ends a common name at 64 characters; clients read the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{node_name[:50]}@{int(unix_s)}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,  # it is its own issuer
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    facts = {
        "names": names,
        "from": (start - BACKDATED).timestamp(),
        "renew": (start + LIFE - RENEW_BEFORE).timestamp(),
    }
    return b"# %b\n%b%b" % (
        json.dumps(facts).encode(),
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _alternative(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_private(file: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
