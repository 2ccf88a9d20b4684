"""What is done to pods in the API server: the status by PATCH, the final DELETE, and mirrors of static pods by POST.

Status and DELETE name the pod by UID: a pod that was made again under the same name is never touched. A status patch is
a strategic merge, so labels, annotations and conditions of other controllers stay as they are.
"""

from __future__ import annotations

import msgspec

from agent.kube.rest import STRATEGIC_MERGE_PATCH, Api


class PodsApi:
    """Fits `agent.pods.publish.PodsApi` and `agent.pods.mirrors.MirrorsApi`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def patch_pod_status(self, namespace: str, name: str, body: bytes) -> None:
        """PATCH of pods/NAME/status; `body` holds the UID as `metadata.uid`.

        Raises NotFound, Conflict (another UID), Retryable, Forbidden, Permanent.
        """
        await self._api.patch(f"{_path(namespace, name)}/status", body, STRATEGIC_MERGE_PATCH)

    async def create_pod(self, namespace: str, body: bytes) -> bytes:
        """POST of a v1.Pod; the pod as it was made. Raises as `patch_pod_status`, Conflict where the name is taken."""
        return await self._api.post(f"/api/v1/namespaces/{namespace}/pods", body)

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """DELETE with grace 0 and the UID as precondition. Raises as `patch_pod_status`."""
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": uid},
        }
        await self._api.delete(_path(namespace, name), msgspec.json.encode(options))


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"
