"""log, exec, attach and port-forward of this node's pods, asked for as at an API server, served as by a kubelet.

In: a request for a pod's subresource. Out: what the node's own API answers to the API server for it.
"""

from __future__ import annotations

from aiohttp import web

from agent.errors import NotFound, Permanent
from agent.model.record import PodRecord
from agent.server.container_logs import container_log
from agent.server.local_api.selectors import BAD_REQUEST
from agent.server.local_api.view import Target
from agent.server.ports import Pods
from agent.server.streaming import StreamingRoutes

TUNNEL = "SPDY/3.1+portforward.k8s.io"


class PodStreams:
    def __init__(self, provider: Pods, idle_s: float) -> None:
        self._provider = provider
        self._routes = StreamingRoutes(provider, idle_s)

    async def answer(self, target: Target, request: web.Request) -> web.StreamResponse:
        """Raises NotFound, Permanent, Retryable."""
        try:
            record = await self._provider.get_pod(target.namespace, target.name)
        except NotFound as error:
            raise NotFound(f'pods "{target.name}" not found on this node') from error
        request.match_info.update(namespace=target.namespace, pod=target.name, uid=record.uid)
        if target.stream == "portforward":
            if TUNNEL in request.headers.get("Sec-WebSocket-Protocol", ""):
                raise Permanent(BAD_REQUEST, "SPDY in a WebSocket is not spoken here; plain SPDY is")
            return await self._routes.forward(request)
        container = request.query.get("container", "") or _only_container(record)
        if target.stream == "log":
            if request.method != "GET":
                raise Permanent(BAD_REQUEST, "a log can only be read")
            namespace, name = target.namespace, target.name
            return await container_log(request, self._provider, namespace, name, container)
        request.match_info["container"] = container
        return await (self._routes.exec if target.stream == "exec" else self._routes.attach)(request)


def _only_container(record: PodRecord) -> str:
    names = [container.name for container in record.pod.spec.containers]
    if len(names) == 1:
        return names[0]
    name, words = record.pod.metadata.name, " ".join(names)
    raise Permanent(BAD_REQUEST, f"a container name must be specified for pod {name}, choose one of: [{words}]")
