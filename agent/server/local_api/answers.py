"""The forms that the local API's own answers have: Status, JSON, watch events. Pure but for aiohttp's responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

JSON = "application/json"

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
    422: "Invalid",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}


def status_body(code: int, message: str, retry_after_s: int = 0) -> dict[str, Any]:
    """metav1.Status of a failure."""
    made: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, ""),
        "code": code,
    }
    if retry_after_s:
        made["details"] = {"retryAfterSeconds": retry_after_s}
    return made


def refused(code: int, message: str, *, retry_after_s: int = 0) -> web.Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(status_body(code, message, retry_after_s), code, headers)


def json_response(
    body: object, code: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> web.Response:
    return web.Response(
        status=code, body=msgspec.json.encode(body), headers={"Content-Type": media_type, **(headers or {})}
    )


def watch_line(kind: str, raw: bytes) -> bytes:
    """One event of a watch; `raw` is the object's JSON."""
    if b"\n" in raw:
        raw = msgspec.json.format(raw, indent=-1)  # a line is an event
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), raw)
