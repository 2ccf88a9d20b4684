"""What is done to pods in the API server: the status and the question for one by PATCH, the final DELETE, and mirrors
of static pods by POST.

All but the POST name the pod by UID: a pod that was made again under the same name is never touched. A status patch is
a strategic merge, so labels, annotations and conditions of other controllers stay as they are.
"""

from __future__ import annotations

import msgspec

from agent.errors import Conflict, Forbidden, NotFound, Retryable
from agent.kube.answers import decode_object
from agent.kube.rest import METADATA, STRATEGIC_MERGE_PATCH, Api


class PodsApi:
    """Fits `agent.pods.publish.PodsApi`, `agent.pods.mirrors.MirrorsApi` and `agent.pods.absent.AsksForPods`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def patch_pod_status(self, namespace: str, name: str, body: bytes) -> None:
        """PATCH of pods/NAME/status; `body` holds the UID as `metadata.uid`.

        Raises NotFound, Conflict (another UID), Retryable, Forbidden, Permanent.
        """
        await self._api.patch(f"{_path(namespace, name)}/status", body, STRATEGIC_MERGE_PATCH, accept=METADATA)

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
        await self._api.delete(_path(namespace, name), msgspec.json.encode(options), accept=METADATA)

    async def find_pod(self, namespace: str, name: str, uid: str) -> bytes | None:
        """The pod of that UID as JSON; None where the API server says of this very pod that there is none.

        A status PATCH that changes nothing asks, for it is read by quorum and answered by 404: a GET of a pod that is
        gone is only forbidden to a node. Raises Retryable, Forbidden, Permanent where that was not answered.
        """
        path, body = _path(namespace, name), msgspec.json.encode({"metadata": {"uid": uid}})
        try:
            try:
                answer = await self._api.patch(f"{path}/status", body, STRATEGIC_MERGE_PATCH)
            except Forbidden:
                # Not a node's identity: it may be let read what it may not write.
                answer = await self._api.get(path)
        except Conflict:
            return None
        except NotFound as error:
            if (error.resource, error.name) != ("pods", name):
                raise Retryable(f"{path}: a 404 that is not about this pod: {error}") from error
            return None
        return answer if decode_object(answer, path)["metadata"]["uid"] == uid else None


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"
