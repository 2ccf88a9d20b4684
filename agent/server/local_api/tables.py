"""Objects as rows of a Table, so that `kubectl get` prints the columns that it prints of an API server.

In: objects and the time. Out: meta.k8s.io/v1 Tables. Columns and words are those of Kubernetes' own printers (v1.36).
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.model.status import unix_seconds
from agent.server.local_api.pod_row import POD_COLUMNS, pod_cells

Json = dict[str, Any]
Column = tuple[str, str, int]
"""Name, type, priority; more than 0: only with -o wide."""
NONE = "<none>"
UNKNOWN = "<unknown>"

_NAME: Column = ("Name", "string", 0)
_AGE: Column = ("Age", "string", 0)


def table(kind: str, objects: Iterable[Json], unix_s: float, *, with_objects: str, columns: bool = True) -> Json:
    """`with_objects`: what each row carries: None, Metadata or Object. A table in a watch has its columns once."""
    definitions, cells = _PRINTERS.get(kind, ((_NAME, _AGE), _plain))
    ago = _ago(unix_s)
    made: Json = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    made["columnDefinitions"] = (
        [
            {
                "name": name,
                "type": form,
                "format": "name" if name == "Name" else "",
                "description": name,
                "priority": priority,
            }
            for name, form, priority in definitions
        ]
        if columns
        else []
    )
    rows = made["rows"] = []
    for found in objects:
        row: Json = {"cells": cells(found, ago)}
        if with_objects == "Object":
            row["object"] = found
        elif with_objects != "None":
            row["object"] = partial(found)
        rows.append(row)
    return made


def partial(found: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": found["metadata"]}


def human_duration(seconds: float) -> str:
    """As Kubernetes writes an age: the two largest units where the first is small."""
    if seconds < -1:
        return "<invalid>"
    total = max(int(seconds), 0)
    if total < 120:
        return f"{total}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        return _pair(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _pair(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def _ago(unix_s: float) -> Callable[[object], str]:
    def ago(time: object) -> str:
        try:
            return human_duration(unix_s - unix_seconds(str(time)))
        except ValueError:
            return UNKNOWN

    return ago


Ago = Callable[[object], str]


def _created(found: Json, ago: Ago) -> str:
    return ago(found["metadata"].get("creationTimestamp"))


def _plain(found: Json, ago: Ago) -> list[object]:
    return [found["metadata"]["name"], _created(found, ago)]


def _pod(found: Json, ago: Ago) -> list[object]:
    return pod_cells(found, ago)


def _config_map(found: Json, ago: Ago) -> list[object]:
    count = len(found.get("data") or {}) + len(found.get("binaryData") or {})
    return [found["metadata"]["name"], count, _created(found, ago)]


def _secret(found: Json, ago: Ago) -> list[object]:
    return [found["metadata"]["name"], found.get("type", ""), len(found.get("data") or {}), _created(found, ago)]


def _service(found: Json, ago: Ago) -> list[object]:
    spec = found.get("spec") or {}
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or NONE]
    ports = ",".join(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    )
    external = ",".join(spec.get("externalIPs") or ()) or spec.get("externalName") or NONE
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items())) or NONE
    kind = spec.get("type") or "ClusterIP"
    return [found["metadata"]["name"], kind, addresses[0], external, ports or NONE, _created(found, ago), selector]


def _node(found: Json, ago: Ago) -> list[object]:
    meta, status = found["metadata"], found.get("status") or {}
    ready = next((c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if (found.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    info: Mapping[str, str] = status.get("nodeInfo") or {}
    kernel = info.get("kernelVersion") or UNKNOWN
    if info.get("architecture"):
        kernel += f" ({info['architecture']})"
    return [
        meta["name"],
        ",".join(words),
        ",".join(_roles(meta.get("labels") or {})) or NONE,
        _created(found, ago),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        kernel,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _roles(labels: Mapping[str, str]) -> list[str]:
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix)} | {
        labels.get("kubernetes.io/role", "")
    }
    return sorted(roles - {""})


def _address(status: Mapping[str, Any], kind: str) -> str:
    return next((a.get("address", "") for a in status.get("addresses") or () if a.get("type") == kind), NONE)


def _event(found: Json, ago: Ago) -> list[object]:
    about, source = found.get("involvedObject") or {}, found.get("source") or {}
    first = ago(found.get("firstTimestamp") or found.get("eventTime"))
    last = ago(found["lastTimestamp"]) if found.get("lastTimestamp") else first
    return [
        last,
        found.get("type", ""),
        found.get("reason", ""),
        "/".join(filter(None, (str(about.get("kind", "")).lower(), about.get("name", "")))),
        about.get("fieldPath", ""),
        ", ".join(filter(None, (source.get("component", ""), source.get("host", "")))),
        str(found.get("message", "")).strip(),
        first,
        found.get("count") or 1,
        found["metadata"]["name"],
    ]


_PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, Ago], list[object]]]] = {
    "Pod": (POD_COLUMNS, _pod),
    "ConfigMap": ((_NAME, ("Data", "string", 0), _AGE), _config_map),
    "Secret": ((_NAME, ("Type", "string", 0), ("Data", "string", 0), _AGE), _secret),
    "Service": (
        (
            _NAME,
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            _AGE,
            ("Selector", "string", 1),
        ),
        _service,
    ),
    "Node": (
        (
            _NAME,
            ("Status", "string", 0),
            ("Roles", "string", 0),
            _AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ),
        _node,
    ),
    "Event": (
        (
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "integer", 1),
            ("Name", "string", 1),
        ),
        _event,
    ),
}
