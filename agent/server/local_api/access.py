"""What lets a program of this machine in: a token, a certificate of our own, and a kubeconfig with both in it.

In: the root folder and the listening address. Out: files of mode 0600 below the root folder, made where they are
missing. Blocks; called in a thread.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import secrets
from pathlib import Path
from typing import ClassVar

from agent.config import Settings
from agent.discreet import Discreet
from agent.durable_files import write_private
from agent.server.certificate import CertificateFiles, own_certificate

TOKEN = "local-api.token"  # noqa: S105 - a file's name
KUBECONFIG = "local-api.kubeconfig"
CA = "local-api.crt"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
CLUSTER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
"""By which programs in pods call an API server."""


class LocalAccess(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"token", "ca"})
    files: CertificateFiles
    token: str
    ca: bytes

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())


def local_access(settings: Settings, address: str, port: int, unix_s: float) -> LocalAccess:
    """Raises OSError."""
    root = settings.root_dir
    names = {settings.node_name.lower(), "localhost", "127.0.0.1", "::1", *CLUSTER_NAMES}
    names |= {address} if address not in ("0.0.0.0", "::") else set()
    files = own_certificate(root / "pki" / "local-api.pem", settings.node_name, sorted(names), unix_s)
    token = _token(root / TOKEN)
    # The one before stays trusted: the server shows a new one only once everybody has had time to learn of it.
    ca = _trusted(_certificate(files.certificate.read_bytes()), root / CA)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    _keep(root / KUBECONFIG, _kubeconfig(url, ca, token))
    _keep(root / CA, ca)
    return LocalAccess(files, token, ca)


def _token(file: Path) -> str:
    try:
        os.chmod(file, 0o600)
        if len(found := file.read_text().strip()) >= 32:
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(32)
    write_private(file, f"{made}\n".encode())
    return made


def _trusted(current: bytes, file: Path) -> bytes:
    try:
        known = file.read_bytes()
    except FileNotFoundError:
        return current
    before = [found for found in _PEM.findall(known) if found != current]
    return known if known.startswith(current) else current + b"".join(before[:1])


def _certificate(pem: bytes) -> bytes:
    found = _PEM.search(pem)
    if found is None:
        raise OSError("the certificate that was just made cannot be read")
    return found[0]


def _kubeconfig(url: str, ca: bytes, token: str) -> bytes:
    """YAML takes JSON as it is."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "edge",
                "cluster": {"server": url, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": "local", "user": {"token": token}}],
        "contexts": [{"name": "edge", "context": {"cluster": "edge", "user": "local"}}],
        "current-context": "edge",
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _keep(file: Path, content: bytes) -> None:
    try:
        if file.read_bytes() == content and file.stat().st_mode & 0o077 == 0:
            return
    except FileNotFoundError:
        pass
    write_private(file, content)
