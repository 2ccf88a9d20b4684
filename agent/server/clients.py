"""Who asks: a client certificate that TLS has verified against the cluster's CA, or a token, as Kubernetes reads them.

The pure half of authentication: the handshake is OpenSSL's work, and tokens are judged by the API server
(`agent.server.reviews`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

ADMINISTRATORS = "system:masters"
"""API servers let this group do everything, whatever their authorizer says."""
AUTHENTICATED = "system:authenticated"
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
"""A WebSocket client that cannot set headers names its token as a protocol, with this before it."""


class Client(msgspec.Struct, frozen=True):
    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    by_certificate: bool = False

    @property
    def is_administrator(self) -> bool:
        """Needs no review. A token's groups are the API server's word, and so is what they may do."""
        return self.by_certificate and ADMINISTRATORS in self.groups


def client_of(peer_certificate: Mapping[str, Any] | None) -> Client | None:
    """CN is the user, each O a group; None without a certificate or a user. In: what `getpeercert()` gives."""
    if not peer_certificate:
        return None
    attributes = [pair for names in peer_certificate.get("subject", ()) for pair in names]
    # Of several common names the API server takes the last one; two readings of one certificate would be two users.
    users = [value for key, value in attributes if key == "commonName"]
    if not users or not users[-1]:
        return None
    groups = (value for key, value in attributes if key == "organizationName")
    return Client(users[-1], authenticated(groups), by_certificate=True)


def authenticated(groups: Iterable[str]) -> tuple[str, ...]:
    """Everybody who is known is in one more group."""
    return tuple(dict.fromkeys((*groups, AUTHENTICATED)))


def token_of(authorization: str, protocols: Iterable[str]) -> str:
    """The bearer token of a request; empty: it has none. `protocols` are those that a WebSocket client offers."""
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for protocol in protocols:
        if protocol.startswith(BEARER_PROTOCOL):
            encoded = protocol.removeprefix(BEARER_PROTOCOL)
            try:
                padded = encoded + "=" * (-len(encoded) % 4)
                return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
