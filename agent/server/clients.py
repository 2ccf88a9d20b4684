"""Who asks, and may they: from the client certificate that TLS has verified against the cluster's CA.

Only the API server itself and cluster administrators are let in. The pure half of authentication: the handshake is
OpenSSL's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ADMINISTRATORS = "system:masters"
API_SERVERS = frozenset({"kube-apiserver-kubelet-client", "apiserver-kubelet-client"})
"""Common names under which API servers call kubelets (kubeadm's, and the certificate generators' that follow it)."""


@dataclass(frozen=True, slots=True)
class Client:
    """Kubernetes' reading of a certificate: CN is the user, each O a group."""

    user: str
    groups: frozenset[str]

    @property
    def is_allowed(self) -> bool:
        return ADMINISTRATORS in self.groups or self.user in API_SERVERS


def client_of(peer_certificate: Mapping[str, Any] | None) -> Client | None:
    """The client, None without a certificate. In: what `ssl.SSLSocket.getpeercert()` gives."""
    if not peer_certificate:
        return None
    attributes = [pair for names in peer_certificate.get("subject", ()) for pair in names]
    user = next((value for key, value in attributes if key == "commonName"), "")
    return Client(user, frozenset(value for key, value in attributes if key == "organizationName"))
