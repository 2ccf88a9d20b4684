"""What the local API has: its resources, and discovery documents of them as clients ask for them.

In: whether Secrets are shown. Out: the table of resources, and the bodies of /api, /apis, /api/v1 (plain and
aggregated), /version and the two OpenAPI paths. Pure.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import msgspec

from agent import __version__

Json = dict[str, Any]
READ = ("get", "list", "watch")
VERSION = "v1.36.0"
"""The release whose objects these are; clients decide by it what they may ask."""


class Resource(msgspec.Struct, frozen=True):
    plural: str
    kind: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    fields: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Field labels that a selector may name beside metadata.name and metadata.namespace, with their path."""

    @property
    def singular(self) -> str:
        return self.kind.lower()


def _paths(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(name.split(".")) for name in names}


_RESOURCES = (
    Resource("configmaps", "ConfigMap", ("cm",)),
    Resource(
        "events",
        "Event",
        ("ev",),
        fields={
            **_paths(*(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion"))),
            **_paths("involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "type"),
            "reportingComponent": ("reportingComponent",),
            "source": ("source", "component"),
        },
    ),
    Resource("nodes", "Node", ("no",), namespaced=False, fields=_paths("spec.unschedulable")),
    Resource("persistentvolumeclaims", "PersistentVolumeClaim", ("pvc",)),
    Resource("persistentvolumes", "PersistentVolume", ("pv",), namespaced=False),
    Resource(
        "pods",
        "Pod",
        ("po",),
        fields=_paths(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ),
    ),
    Resource("secrets", "Secret", fields=_paths("type")),
    Resource("services", "Service", ("svc",), fields=_paths("spec.clusterIP", "spec.type")),
)

STREAMS = ("log", "exec", "attach", "portforward")
_STREAM_KINDS = {
    "log": "Pod",
    "exec": "PodExecOptions",
    "attach": "PodAttachOptions",
    "portforward": "PodPortForwardOptions",
}


def resources(*, secrets: bool) -> dict[str, Resource]:
    """By plural name."""
    return {resource.plural: resource for resource in _RESOURCES if secrets or resource.plural != "secrets"}


def document(path: str, accept: str, shown: Mapping[str, Resource]) -> Json | None:
    """The discovery document at a path, None where there is none."""
    aggregated = "as=APIGroupDiscoveryList" in accept
    match path:
        case "/version":
            major, minor = VERSION.removeprefix("v").split(".")[:2]
            return {
                "major": major,
                "minor": minor,
                "gitVersion": f"{VERSION}+edgelet-{__version__}",
                "gitCommit": "",
                "gitTreeState": "",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "",
                "compiler": "",
                "platform": f"linux/{platform.machine()}",
            }
        case "/api" if aggregated:
            return _aggregated([{"metadata": {"name": None}, "versions": [_version(shown)]}], accept)
        case "/apis" if aggregated:
            return _aggregated([], accept)
        case "/api":
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
        case "/api/v1":
            return {"kind": "APIResourceList", "groupVersion": "v1", "resources": list(_plain(shown))}
        case "/openapi/v3":
            return {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}}
        case "/openapi/v3/api/v1":
            return {"openapi": "3.0.0", "info": _info(), "paths": {}, "components": {"schemas": _schemas(shown)}}
        case "/openapi/v2":
            return {"swagger": "2.0", "info": _info(), "paths": {}, "definitions": _schemas(shown)}
    return None


def media_type(path: str, accept: str) -> str:
    """An aggregated document says what it is in its type, or a client takes it for the plain one."""
    if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accept:
        return f"application/json;g=apidiscovery.k8s.io;v={_discovery_version(accept)};as=APIGroupDiscoveryList"
    return "application/json"


def _aggregated(groups: list[Json], accept: str) -> Json:
    version = _discovery_version(accept)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": groups,
    }


def _discovery_version(accept: str) -> str:
    wanted = [part for part in accept.split(",") if "as=APIGroupDiscoveryList" in part]
    return "v2" if any("v=v2;" in f"{part.replace(' ', '')};" for part in wanted) else "v2beta1"


def _version(shown: Mapping[str, Resource]) -> Json:
    return {"version": "v1", "freshness": "Current", "resources": [_discovered(one) for one in shown.values()]}


def _discovered(resource: Resource) -> Json:
    found: Json = {
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "v1", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(READ),
    }
    if resource.short:
        found["shortNames"] = list(resource.short)
    if resource.plural == "pods":
        found["categories"] = ["all"]
        found["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": "", "version": "v1", "kind": _STREAM_KINDS[name]},
                "verbs": ["get"] if name == "log" else ["create", "get"],
            }
            for name in STREAMS
        ]
    return found


def _plain(shown: Mapping[str, Resource]) -> list[Json]:
    listed: list[Json] = []
    for one in shown.values():
        entry: Json = {
            "name": one.plural,
            "singularName": one.singular,
            "namespaced": one.namespaced,
            "kind": one.kind,
            "verbs": list(READ),
        }
        if one.short:
            entry["shortNames"] = list(one.short)
        if one.plural == "pods":
            entry["categories"] = ["all"]
        listed.append(entry)
        if one.plural == "pods":
            listed += [
                {
                    "name": f"pods/{name}",
                    "singularName": "",
                    "namespaced": True,
                    "kind": _STREAM_KINDS[name],
                    "verbs": ["get"] if name == "log" else ["create", "get"],
                }
                for name in STREAMS
            ]
    return listed


def _info() -> Json:
    return {"title": "edgelet local API", "version": VERSION}


def _schemas(shown: Mapping[str, Resource]) -> Json:
    """Names and kinds only: objects are the API server's, and it alone judges them."""
    return {
        f"io.k8s.api.core.v1.{one.kind}": {
            "type": "object",
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": one.kind}],
        }
        for one in shown.values()
    }
