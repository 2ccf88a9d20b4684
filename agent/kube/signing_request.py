"""Make a key and the request for its certificate. Has a process of its own: `cryptography` costs 11 MiB.

In: the node's name, and for a server the names and addresses under which it is called. Out: JSON on stdout: both, PEM.
The key leaves this machine in no other way than into its file.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.kube.pki import KeyAndRequest


def main(node_name: str, *names: str) -> None:
    """Print it."""
    sys.stdout.buffer.write(msgspec.json.encode(made(node_name, names)))


def made(node_name: str, names: Sequence[str]) -> KeyAndRequest:
    """As a node asks: O=system:nodes, CN=system:node:NAME. Without names it is a client's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        # X.520 ends a common name at 64 characters, Kubernetes' signer does not.
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}", _validate=False),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    request = builder.sign(key, hashes.SHA256())
    return KeyAndRequest(
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        request=request.public_bytes(serialization.Encoding.PEM),
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
