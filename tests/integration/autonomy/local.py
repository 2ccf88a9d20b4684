"""A node whose local API listens, and what asks it."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.agent.edge import Edge
from tests.integration.autonomy.relay import Relay


@dataclass(frozen=True)
class Local:
    """A node whose local API listens, and what asks it."""

    edge: Edge
    port: int
    relay: Relay

    @property
    def kubeconfig(self) -> Path:
        return self.edge.agent.root_dir / "local-api.kubeconfig"

    @property
    def ca(self) -> Path:
        return self.edge.agent.root_dir / "local-api.crt"

    def kubectl(self, *args: str, check: bool = True) -> str:
        return self.edge.plane.kubectl(*args, kubeconfig=self.kubeconfig, check=check)

    def request(self, path: str, token: str, method: str = "GET", body: Any = None) -> tuple[int, Any, dict[str, str]]:
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=method)
        request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal), dict(refusal.headers)


def service_account_token(local: Local, role: str = "admin") -> str:
    """Of an account that may do in the namespace what the role says."""
    edge = local.edge
    edge.kubectl("create", "serviceaccount", "robot")
    account = f"--serviceaccount={edge.namespace}:robot"
    edge.kubectl("create", "rolebinding", "robot", f"--clusterrole={role}", account)
    return edge.kubectl("create", "token", "robot").strip()
