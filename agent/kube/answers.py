"""Which answers are the API server's word, and which are somebody else's or half of one.

In: HTTP statuses, headers and bodies. Out: nothing, an object, or one of our errors. A proxy's page, a login portal's
redirect and JSON that was cut in the middle are Retryable, whatever their status: only a whole Status object of the API
server's own says that something does not exist. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agent.errors import Conflict, EdgeletError, Forbidden, Gone, NotFound, Permanent, Retryable

RETRY_AFTER_MAXIMUM_S = 30
"""Who asks for more may not be an API server at all, and the node must go on soon after it is one again."""
MAGIC = b"k8s\0"
"""What an answer in protobuf begins with; it is only in that form where it was asked for so."""
_NO_SUCH_PATH = b"404 page not found"
"""What an API server says, in plain text, of a group or version that it does not serve."""


class _Cause(msgspec.Struct):
    field: str = ""


class _Details(msgspec.Struct):
    name: str = ""
    kind: str = ""
    retryAfterSeconds: int = 0
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct):
    """metav1.Status, what the API server answers when it refuses."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


class _Envelope(msgspec.Struct):
    kind: str
    apiVersion: str


_status_decoder = msgspec.json.Decoder(_Status)
_envelopes = msgspec.json.Decoder(_Envelope)


def error_of(status: int, answer: bytes, headers: Mapping[str, str], what: str) -> EdgeletError:
    """The one place where an HTTP status becomes an error of ours."""
    said = _said(answer)
    message = said.message or f"{what}: HTTP {status}"
    match status:
        case 401 | 403:
            return Forbidden(said.reason or "Forbidden", message)
        case 408 | 429:
            return Retryable(message, _retry_after(headers, said))
        case _ if status >= 500:
            return Retryable(message, _retry_after(headers, said))
        case 404 if answer.startswith(_NO_SUCH_PATH):
            return NotFound(message)
        case _ if status < 400 or said.kind != "Status":
            return Retryable(f"{what}: HTTP {status}, not by an API server: {message}")
        case 404:
            about = said.details or _Details()
            return NotFound(message, about.kind, about.name)
        case 409:
            return Conflict(message)
        case 422 if said.details and any(cause.field == "metadata.uid" for cause in said.details.causes):
            # A patch's precondition: releases differ in whether they call it a conflict or an immutable field.
            return Conflict(message)
        case 410:
            return Gone(message)
        case _:
            return Permanent(said.reason or f"HTTP{status}", message)


def _said(answer: bytes) -> _Status:
    try:
        if not answer.startswith(MAGIC):
            return _status_decoder.decode(answer)
        from agent.kube import packed

        found = packed.refusal(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        # A proxy in between, or plain text: its first line is better than nothing.
        return _Status(message=answer[:200].decode(errors="replace").strip().split("\n")[0])
    about = found.details
    causes = tuple(_Cause(cause.field) for cause in about.causes)
    details = _Details(about.name, about.kind, about.retryAfterSeconds, causes)
    return _Status("Status", found.message, found.reason, found.code, details)


def is_word(status: int) -> bool:
    """Whether anybody acts on an answer with this status; of the others none says anything of an object."""
    return status < 500 and status not in (401, 403, 408, 429)


def check(method: str, path: str, answer: bytes) -> None:
    """Raises Retryable where the body of a 2xx is not the whole of an API object."""
    if not path.startswith(("/api/", "/apis/")):
        return
    what = f"{method} {path}: not by an API server"
    try:
        kind = _kind(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Retryable(f"{what}: {error}") from error
    if kind == "Status" and method != "DELETE":
        raise Retryable(f"{what}: a Status in place of the object")


def _kind(answer: bytes) -> str:
    if answer.startswith(MAGIC):
        from agent.kube import packed

        return packed.kind_of(answer)
    if not answer.isascii():
        answer.decode()
    return _envelopes.decode(answer).kind


def decode_object(answer: bytes, what: str) -> dict[str, Any]:
    """An object with at least a name and a UID. Raises Retryable."""
    try:
        found = msgspec.json.decode(answer)
        if found["metadata"]["uid"] and found["metadata"]["name"]:
            return dict(found)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise Retryable(f"{what}: the answer is no object: {type(error).__name__} {error}") from error
    raise Retryable(f"{what}: the answer is no object: it has no name or UID")


def _retry_after(headers: Mapping[str, str], said: _Status) -> float | None:
    value = headers.get("Retry-After", "")
    asked_s = int(value) if value.isdecimal() else said.details.retryAfterSeconds if said.details else 0
    return float(min(asked_s, RETRY_AFTER_MAXIMUM_S)) if asked_s > 0 else None
