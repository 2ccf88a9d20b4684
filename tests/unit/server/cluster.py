"""The API server's side of reviews: who has which token, and who may do what."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.errors import Forbidden, Retryable
from agent.server.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS


class Cluster:
    """Fits the server's `ApiServer`."""

    def __init__(self) -> None:
        self.reachable = True
        self.refuses = False
        self.tokens: dict[str, dict[str, Any]] = {}
        self.rights: set[tuple[str, str, str]] = set()
        """User, verb, subresource."""
        self.asked: list[dict[str, Any]] = []

    def add(self, token: str, user: str, *rights: tuple[str, str]) -> None:
        self.tokens[token] = {"username": user, "uid": f"uid-{user}", "groups": ["team"], "extra": {"from": ["here"]}}
        self.rights |= {(user, verb, subresource) for verb, subresource in rights}

    def count(self, kind: str) -> int:
        return sum(1 for asked in self.asked if asked["kind"] == kind)

    async def request(self, method: str, path: str, *, body: bytes, timeout_s: float) -> bytes:
        if not self.reachable:
            raise Retryable("POST to 10.0.0.1: secret detail")
        if self.refuses:
            raise Forbidden("Forbidden", "secret detail")
        assert method == "POST"
        review = msgspec.json.decode(body)
        self.asked.append(review)
        spec = review["spec"]
        if path == TOKEN_REVIEWS:
            user = self.tokens.get(spec["token"])
            review["status"] = {"authenticated": user is not None, **({"user": user} if user else {})}
        else:
            assert path == ACCESS_REVIEWS
            attributes = spec["resourceAttributes"]
            assert (attributes["resource"], attributes["name"]) == ("nodes", "n1")
            wanted = (spec["user"], attributes["verb"], attributes["subresource"])
            review["status"] = {"allowed": wanted in self.rights}
        return msgspec.json.encode(review)
