"""Label and field selectors, read and applied as an API server does.

In: a selector's text. Out: a test of an object. What can't be read, and a field that its resource does not offer,
raises Permanent("BadRequest"). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import Permanent
from agent.server.local_api.resources import Resource

Test = Callable[[Mapping[str, Any]], bool]
BAD_REQUEST = "BadRequest"

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<how>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARED = re.compile(rf"(?P<key>{_KEY})\s*(?P<how>==|=|!=|>|<)\s*(?P<value>{_VALUE})")
_PRESENT = re.compile(rf"(?P<absent>!?)\s*(?P<key>{_KEY})")


def by_labels(text: str) -> Test:
    """Raises Permanent."""
    tests = [_requirement(part.strip()) for part in _split(text)]
    return lambda found: all(test(_labels(found)) for test in tests)


def by_fields(text: str, resource: Resource) -> Test:
    """Raises Permanent."""
    tests = [_field(part.strip(), resource) for part in _split(text)]
    return lambda found: all(test(found) for test in tests)


def _split(text: str) -> list[str]:
    """At the commas outside of parentheses; empty for an empty selector."""
    if not text.strip():
        return []
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    return (found.get("metadata") or {}).get("labels") or {}


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.fullmatch(text):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if any(re.fullmatch(_VALUE, value) is None for value in values):
            raise _unreadable("label", text)
        if match["how"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _COMPARED.fullmatch(text):
        return _comparison(match["key"], match["how"], match["value"], text)
    if match := _PRESENT.fullmatch(text):
        key, absent = match["key"], bool(match["absent"])
        return lambda labels: (key in labels) is not absent
    raise _unreadable("label", text)


def _comparison(key: str, how: str, value: str, text: str) -> Callable[[Mapping[str, str]], bool]:
    match how:
        case "=" | "==":
            return lambda labels: labels.get(key) == value
        case "!=":
            return lambda labels: labels.get(key) != value
    if not value.isdigit():
        raise _unreadable("label", text)
    bound, sign = int(value), 1 if how == ">" else -1

    def beyond(labels: Mapping[str, str]) -> bool:
        own = labels.get(key, "")
        return own.lstrip("-").isdigit() and sign * int(own) > sign * bound

    return beyond


def _field(text: str, resource: Resource) -> Test:
    match = re.fullmatch(r"([^=!]+?)\s*(==|=|!=)\s*(.*)", text)
    if match is None:
        raise _unreadable("field", text)
    name, how, value = match.groups()
    path = resource.fields.get(name)
    if name in ("metadata.name", "metadata.namespace"):
        path = tuple(name.split("."))
    if path is None:
        raise Permanent(BAD_REQUEST, f'field label not supported: "{name}"')
    wanted = re.sub(r"\\([\\,=])", r"\1", value)
    return lambda found: (_at(found, path) == wanted) is (how != "!=")


def _at(found: Mapping[str, Any], path: tuple[str, ...]) -> str:
    value: Any = found
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or (value is None and path[-1] in ("unschedulable", "hostNetwork")):
        return str(bool(value)).lower()
    return "" if value is None else str(value)


def _unreadable(what: str, text: str) -> Permanent:
    return Permanent(BAD_REQUEST, f"unable to parse {what} selector: {text!r}")
