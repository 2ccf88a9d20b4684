"""The route of a container's checkpoint, as a kubelet has it: 501 where the provider makes none.

In: a pod and a container. Out: the path of the archive on this machine, in a list of one.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from agent.cri.faults import UNIMPLEMENTED
from agent.errors import NotFound, Permanent
from agent.providers.contract import MakesCheckpoints
from agent.server.log_query import BAD_REQUEST
from agent.server.ports import Pods

TIMEOUT_LIMIT_S = 24 * 3600


class CheckpointRoutes:
    def __init__(self, provider: Pods) -> None:
        self._provider = provider

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        yield web.post("/checkpoint/{namespace}/{pod}/{container}", self._checkpoint)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        namespace, pod, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        timeout_s = _timeout(request)
        try:
            record = await self._provider.get_pod(namespace, pod)
        except NotFound as error:
            raise NotFound("pod does not exist") from error
        if container not in (c.name for c in record.pod.spec.all_containers):
            raise NotFound(f"container {container} does not exist")
        if not isinstance(self._provider, MakesCheckpoints):
            return web.Response(status=501, text="checkpoints are not implemented by this node's provider")
        try:
            archive = await self._provider.checkpoint_container(namespace, pod, container, timeout_s)
        except Permanent as error:
            failed = f"checkpointing of {namespace}/{pod}/{container} failed ({error})"
            if error.reason == UNIMPLEMENTED:
                return web.Response(status=501, text=failed)
            raise Permanent(error.reason, failed) from error
        return web.json_response({"items": [archive]})


def _timeout(request: web.Request) -> int:
    """Whole seconds, 0 for the runtime's own limit. Raises Permanent."""
    said = request.query.getall("timeout", ["0"])[-1]
    if not (said.isascii() and said.isdigit()) or int(said[:9]) > TIMEOUT_LIMIT_S:
        raise Permanent(BAD_REQUEST, "cannot parse value of timeout parameter")
    return int(said)
