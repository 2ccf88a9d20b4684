"""The gate of the node's API: every request is known and allowed before it has a handler, or is refused here.

In: a request with its route. Out: None for one that may pass, else the refusal: 401 where it is not known who asks, 403
where they may not, in the same words whatever was asked for, so that nobody learns what there is. Certificates of
system:masters need no API server; everybody else is known and allowed by its word.
"""

from __future__ import annotations

from aiohttp import web
from loguru import logger

from agent.server.clients import Client, client_of, token_of
from agent.server.reviews import Reviews, Undecided
from agent.server.rights import Right, needed


class Gate:
    def __init__(self, reviews: Reviews, *, takes_tokens: bool, allows_all: bool) -> None:
        """`allows_all`: whoever is known may do everything (the kubelet's AlwaysAllow)."""
        self._reviews = reviews
        self._takes_tokens = takes_tokens
        self._allows_all = allows_all

    async def refusal(self, request: web.Request) -> web.Response | None:
        try:
            client = await self._client(request)
        except Undecided as why:
            return _refused(401, f"Unauthorized: {why}")
        if client is None:
            return _refused(401, "Unauthorized")
        if self._allows_all or client.is_administrator:
            return None
        resource = request.match_info.route.resource
        right = needed(request.method, request.path if resource is None else resource.canonical)
        try:
            if await self._reviews.may(client, right):
                return None
        except Undecided as why:
            return _refused(403, f"{_forbidden(client, right)}: {why}")
        return _refused(403, _forbidden(client, right))

    async def _client(self, request: web.Request) -> Client | None:
        """Raises Undecided."""
        client = client_of(request.get_extra_info("peercert"))
        if client is not None or not self._takes_tokens:
            return client
        offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
        token = token_of(request.headers.get("Authorization", ""), (word.strip() for word in offered.split(",")))
        return await self._reviews.client(token) if token else None


def _forbidden(client: Client, right: Right) -> str:
    subresources = " ".join(right.subresources)
    return f"Forbidden (user={client.user}, verb={right.verb}, resource=nodes, subresource(s)=[{subresources}])"


def _refused(status: int, text: str) -> web.Response:
    logger.debug("kubelet API: {}", text)
    return web.Response(status=status, text=text)
