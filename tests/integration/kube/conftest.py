"""A Node of these tests' own on the real control plane, its node identity and an administrator's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agent.errors import Conflict
from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from hack.control_plane import ControlPlane

NODE = "kube-client-test"


@dataclass
class Cluster:
    admin: Api
    node: Api
    namespace: str

    async def create(self, resource: str, body: dict[str, Any]) -> dict[str, Any]:
        made = await self.admin.post(f"/api/v1/namespaces/{self.namespace}/{resource}", json.dumps(body).encode())
        return dict(json.loads(made))

    async def merge(self, resource: str, name: str, body: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/{resource}/{name}"
        await self.admin.patch(path, json.dumps(body).encode(), "application/merge-patch+json")

    async def read(self, resource: str, name: str) -> dict[str, Any]:
        return dict(json.loads(await self.admin.get(f"/api/v1/namespaces/{self.namespace}/{resource}/{name}")))

    async def pod(self, name: str, volumes: Sequence[dict[str, Any]] = (), **container: Any) -> dict[str, Any]:
        """A pod that is bound to the node from its first moment; more of its container by keyword."""
        container = {"name": "main", "image": "none", **container}
        return await self.create(
            "pods",
            {
                "metadata": {"name": name, "labels": {"app": "test"}},
                "spec": {"nodeName": NODE, "volumes": list(volumes), "containers": [container]},
            },
        )


@pytest.fixture
async def cluster(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Cluster]:
    admin = Api(await Credentials.load(control_plane.admin_kubeconfig))
    node = Api(await Credentials.load(control_plane.node_kubeconfig(NODE)))
    with contextlib.suppress(Conflict):
        await admin.post("/api/v1/nodes", json.dumps({"metadata": {"name": NODE}}).encode())
    yield Cluster(admin, node, namespace)
    await admin.delete(f"/api/v1/nodes/{NODE}")
    await admin.close()
    await node.close()
