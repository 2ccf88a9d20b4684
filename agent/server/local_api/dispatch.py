"""Who asks, for what, and who answers it. Loaded with the first request: an edge that nobody asks pays nothing.

In: requests to the local API. Out: health for everybody; to who has this machine's token, what this node knows, to read
only; to others, the API server's answers by their own credential.
"""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web
from loguru import logger

from agent.clock import Clock
from agent.errors import Gone, NotFound, Permanent, Retryable
from agent.server.local_api import resources
from agent.server.local_api.access import LocalAccess
from agent.server.local_api.answers import json_response, refused
from agent.server.local_api.forward import RETRY_AFTER_S, Forwarder
from agent.server.local_api.pod_streams import PodStreams
from agent.server.local_api.view import LocalView, Target
from agent.server.takeover import Upgraded

_PATH = re.compile(
    r"/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?/?"
)
_CODES = {"NotAcceptable": 406, "Invalid": 422}


class Dispatch:
    """`forwarder` None: there is no API server to ask."""

    def __init__(
        self,
        view: LocalView,
        streams: PodStreams,
        forwarder: Forwarder | None,
        clock: Clock,
        *,
        secrets: bool,
    ) -> None:
        self._view = view
        self._streams = streams
        self._forwarder = forwarder
        self._clock = clock
        self._shown = resources.resources(secrets=secrets)

    async def answer(self, request: web.Request, access: LocalAccess) -> web.StreamResponse:
        try:
            response = await self._answer(request, access)
        except web.HTTPException:
            raise
        except NotFound as error:
            response = refused(404, str(error))
        except Gone as error:
            response = refused(410, str(error))
        except Permanent as error:
            response = refused(_CODES.get(error.reason, 400), str(error))
        except Retryable as error:
            response = refused(503, str(error), retry_after_s=RETRY_AFTER_S)
        except Exception as error:  # the boundary: a fault in one answer is no reason to stop the node
            if request.transport is None or request.transport.is_closing():
                logger.debug("{} {}: the client went away", request.method, request.path)
                return Upgraded()
            logger.error("local API: {} {}: {}: {}", request.method, request.path, type(error).__name__, error)
            if request.writer.output_size > 0:
                request.transport.abort()  # a second answer in the middle of the first would be mistaken for its end
                return Upgraded()
            response = refused(500, "internal error, see the node's log")
        if "Upgrade" in request.headers and not response.prepared:
            response.force_close()  # a client whose upgrade is refused uses the connection for nothing else
        return response

    async def _answer(self, request: web.Request, access: LocalAccess) -> web.StreamResponse:
        credential = _credential(request)
        if not credential:
            return refused(401, "Unauthorized: a bearer token is needed, this machine's or one of the cluster's")
        if access.is_token(credential):
            if not _is_from_here(request):
                return refused(401, "Unauthorized: this machine's token is good on this machine only")
            return await self._local(request)
        if self._forwarder is None:
            return refused(401, "Unauthorized: this node runs standalone and knows its own token only")
        return await self._forwarder.answer(request, credential)

    async def _local(self, request: web.Request) -> web.StreamResponse:
        accept = ",".join(request.headers.getall("Accept", []))
        target = self._target(request.path)
        if target is not None and target.stream:
            return await self._streams.answer(target, request)
        if request.method != "GET":
            return self._no_write(request)
        if (found := resources.document(request.path.rstrip("/"), accept, self._shown)) is not None:
            return json_response(found, media_type=resources.media_type(request.path.rstrip("/"), accept))
        if target is None:
            raise NotFound("this node's API has no such resource; a credential of the cluster's reaches all of them")
        return await self._view.answer(target, request)

    def _no_write(self, request: web.Request) -> web.Response:
        if self._forwarder is None:
            return refused(403, "this node runs standalone: its pods are changed by their manifests, not here")
        if not self._forwarder.reachable:
            why = f"{request.method} needs the API server, which does not answer; nothing was changed"
            return refused(503, why, retry_after_s=RETRY_AFTER_S)
        return refused(403, "this machine's token reads only: to change something, use a credential of the cluster's")

    def _target(self, path: str) -> Target | None:
        match = _PATH.fullmatch(path)
        resource = self._shown.get(match["plural"]) if match else None
        if match is None or resource is None:
            return None
        namespace, name, sub = (match[key] or "" for key in ("namespace", "name", "sub"))
        if (namespace and not resource.namespaced) or (name and resource.namespaced and not namespace):
            return None
        if sub and not (resource.plural == "pods" and sub in resources.STREAMS):
            return None
        return Target(resource, namespace, name, sub)


def _credential(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_from_here(request: web.Request) -> bool:
    """The token's file is readable on this machine only, so what comes from elsewhere with it was carried away."""
    peer, own = (request.get_extra_info(name) for name in ("peername", "sockname"))
    if not peer:
        return False
    return ipaddress.ip_address(peer[0]).is_loopback or (bool(own) and peer[0] == own[0])
