"""Make a server's certificate and key. Has a process of its own: `cryptography` costs 11 MiB, needed once a year."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(hours=1)
"""A caller's clock may be behind ours."""


def main(node_name: str, unix_s: str, *names: str) -> None:
    """Print it to stdout."""
    sys.stdout.buffer.write(self_signed(node_name, names, float(unix_s)))


def self_signed(node_name: str, names: Sequence[str], unix_s: float) -> bytes:
    """PEM: the certificate and its key, after a line that tells what they were made for."""
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
        "names": list(names),
        "from": (start - BACKDATED).timestamp(),
        "renew": (start + LIFE - RENEW_BEFORE).timestamp(),
    }
    return b"# %b\n%b%b" % (
        json.dumps(facts).encode(),
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
