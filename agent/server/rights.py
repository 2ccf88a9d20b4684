"""Which right of a Node a request to its API needs: nodes/SUBRESOURCE with a verb, as the kubelet maps them.

In: the method, and the route that was found for it. Out: the rights of which one is enough, the narrowest first. The
route decides and not the path as it was written: no spelling of a path can reach one handler by another's right. What
has no route of its own needs nodes/proxy, and is then not found. Pure.
"""

from __future__ import annotations

import msgspec

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PROXY = "proxy"
_SUBRESOURCES = {
    "pods": ("pods", _PROXY),
    "runningpods": ("pods", _PROXY),
    "healthz": ("healthz", _PROXY),
    "configz": ("configz", _PROXY),
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "checkpoint": ("checkpoint",),
}
"""By the first part of the path. Those that are not here (exec, attach, run, portForward, containerLogs): proxy."""


class Right(msgspec.Struct, frozen=True):
    verb: str
    """Empty for a method that is no verb of the API's: only who may do everything may do that."""
    subresources: tuple[str, ...]
    """Of `nodes`, each tried in turn."""


def needed(method: str, route: str) -> Right:
    """`route` is the pattern of a route (`/exec/{namespace}/…`), or any path that has none."""
    first = route.removeprefix("/").partition("/")[0]
    return Right(_VERBS.get(method, ""), _SUBRESOURCES.get(first, (_PROXY,)))
