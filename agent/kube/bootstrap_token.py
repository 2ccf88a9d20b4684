"""A bootstrap token, and what it proves about a cluster: the signature of the ConfigMap kube-public/cluster-info.

In: `ID.SECRET` as `kubeadm token create` prints it, the kubeconfig of that ConfigMap and its detached JWS. Out: yes or
no. The secret is the HMAC's key, so a cluster that doesn't know the token can't have signed. Pure.
https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import ClassVar

from agent.discreet import Discreet

_FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")


class BootstrapToken(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"secret"})
    id: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> BootstrapToken:
        """Raises ValueError, without the secret in its words."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("a token is ID.SECRET: 6 and 16 characters of a-z and 0-9")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.id}.{self.secret}"

    def has_signed(self, content: str, detached: str) -> bool:
        """Whether `detached` (HEADER..SIGNATURE) is this token's HS256 signature of the content."""
        head, _, signature = detached.partition("..")
        try:
            header = json.loads(_decode(head))
            given = _decode(signature)
        except (ValueError, binascii.Error):
            return False
        if not isinstance(header, dict) or header.get("alg") != "HS256" or header.get("kid") != self.id:
            return False
        signed = f"{head}.{_encode(content.encode())}".encode()
        return hmac.compare_digest(given, hmac.digest(self.secret.encode(), signed, hashlib.sha256))


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
