"""A manifest's bytes to static pods, as a kubelet makes them.

In: YAML (any number of documents) or JSON with v1 Pods, PodLists or Lists, the file's path or the URL, the node's name
and the time. Out: records with the kubelet's names for static pods, its annotations, and a UID that is a hash of the
source and the pod: the same manifest is the same pod after a restart, a changed one is another pod. Pure; all faults
at once in one line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from agent.errors import Permanent
from agent.model import labels
from agent.model.pod import pod_from_dict
from agent.model.record import Origin, PodRecord
from agent.model.status import timestamp
from agent.pods.support import Refusal, unsupported
from agent.pods.validation import api_references, faults
from agent.pods.validation_rules import invalid, is_subdomain

INVALID = "InvalidManifest"
LONGEST_BYTES = 10 * 1024 * 1024

_TOLERATION = {"operator": "Exists", "effect": "NoExecute"}
"""Of pods from files: no taint takes away what is there for the node itself."""

_KEPT_METADATA = ("name", "namespace", "labels", "annotations")
"""All else is the API server's to write; it comes with manifests that were copied from a cluster."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates stay text, `8080:80` is no number to the base of 60, `0o644` is octal."""


_INT = "tag:yaml.org,2002:int"
_OTHERS = {_INT, "tag:yaml.org,2002:timestamp"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in _OTHERS]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT,
    re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)


class ManifestSource(msgspec.Struct, frozen=True):
    """Where a manifest is from: a file of this machine, or a URL."""

    where: Path | str

    @property
    def origin(self) -> Origin:
        return Origin.FILE if isinstance(self.where, Path) else Origin.HTTP

    def identity(self, node_name: str) -> bytes:
        """What of the source goes into its pods' UIDs: of a URL each node has the same."""
        if isinstance(self.where, Path):
            return b"\nhost:%b\nfile:%b" % (node_name.encode(), str(self.where).encode(errors="surrogateescape"))
        return b"\nurl:%b" % self.where.encode()


def static_pods(content: bytes, source: ManifestSource, node_name: str, unix_s: float) -> tuple[PodRecord, ...]:
    """The manifest's pods, none where it holds nothing but comments. Raises Permanent: one line with every fault."""
    raws = tuple(_raw_pods(content))
    records: list[PodRecord] = []
    found: list[str] = []
    for number, raw in enumerate(raws, start=1):
        where = f"pod {number}: " if len(raws) > 1 else ""
        try:
            records.append(_static_pod(raw, source, node_name, unix_s))
        except Permanent as error:
            found.append(where + str(error))
    names = [record.pod.full_name for record in records]
    found += [f'metadata.name: Duplicate value: "{n}"' for n in sorted(set(names)) if names.count(n) > 1]
    if found:
        raise Permanent(INVALID, "; ".join(found))
    return tuple(records)


def _raw_pods(content: bytes) -> Iterator[dict[str, Any]]:
    for document in _documents(content):
        if not isinstance(document, dict):
            raise Permanent(INVALID, "a document is not an object")
        kind, version = document.get("kind", ""), document.get("apiVersion", "")
        if version != "v1":
            raise Permanent(INVALID, f'apiVersion: Unsupported value: "{version}": must be "v1"')
        match kind:
            case "Pod":
                yield document
            case "PodList" | "List":
                items = document.get("items", [])
                if not isinstance(items, list):
                    raise Permanent(INVALID, "items: Invalid value: must be a list")
                for index, item in enumerate(items):
                    if not isinstance(item, dict) or item.get("kind", "Pod") != "Pod":
                        raise Permanent(INVALID, f"items[{index}]: Unsupported value: must be a Pod")
                    yield item
            case _:
                raise Permanent(INVALID, f'kind: Unsupported value: "{kind}": must be "Pod", "PodList" or "List"')


def _documents(content: bytes) -> list[Any]:
    if len(content) > LONGEST_BYTES:
        raise Permanent(INVALID, f"longer than {LONGEST_BYTES} bytes")
    if not content.strip(b" \t\r\n\0"):
        # Not a wish for no pod: an editor or a power cut has emptied it. Who wants none comments it out or removes it.
        raise Permanent(INVALID, "the manifest is empty")
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            try:
                return [_without_nulls(msgspec.json.decode(text))]
            except msgspec.DecodeError:
                pass  # YAML's flow style looks alike
        return [_without_nulls(d) for d in yaml.load_all(text, _Loader) if d is not None]  # a SafeLoader
    except UnicodeDecodeError as error:
        raise Permanent(INVALID, "not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise Permanent(INVALID, f"{line}not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Permanent(INVALID, f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Permanent(INVALID, "nested too deeply") from error


def _without_nulls(value: Any) -> Any:
    """A null asks for nothing, in Kubernetes."""
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
        case _:
            return value


def _static_pod(raw: dict[str, Any], source: ManifestSource, node_name: str, unix_s: float) -> PodRecord:
    raw = _cleaned(raw)
    if refusals := _refusals(raw, node_name):
        raise Permanent(INVALID, "; ".join(map(str, refusals)))
    content = msgspec.json.encode(raw, order="deterministic")
    uid = hashlib.md5(content + source.identity(node_name), usedforsecurity=False).hexdigest()
    meta, spec = raw["metadata"], raw["spec"]
    annotations = {
        **meta.get("annotations", {}),
        labels.CONFIG_HASH: uid,
        labels.CONFIG_SOURCE: str(source.origin),
        labels.CONFIG_SEEN: timestamp(unix_s),
    }
    if source.origin is Origin.FILE:
        # Not of a URL: it may have a password in it, and annotations are for everybody's eyes.
        annotations[labels.MANIFEST] = str(source.where)
        if _TOLERATION not in spec.get("tolerations", ()):
            spec = {**spec, "tolerations": [*spec.get("tolerations", ()), _TOLERATION]}
    annotations.pop(labels.CONFIG_MIRROR, None)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **meta,
            "name": _name(meta["name"], node_name),
            "namespace": meta.get("namespace") or "default",
            "uid": uid,
            "creationTimestamp": timestamp(unix_s),
            "annotations": annotations,
        },
        "spec": {**spec, "nodeName": node_name},
    }
    return PodRecord.decode(msgspec.json.encode(pod), source.origin)


def _cleaned(raw: dict[str, Any]) -> dict[str, Any]:
    """What a user decides, with the one default that the typed view cannot give: a bare volume is an emptyDir."""
    kept: dict[str, Any] = {key: raw[key] for key in ("metadata", "spec") if key in raw}
    match raw.get("metadata"):
        case dict(meta):
            kept["metadata"] = {key: meta[key] for key in _KEPT_METADATA if key in meta}
    match raw.get("spec"):
        case {"volumes": list(volumes), **rest}:
            bare = [isinstance(volume, dict) and volume.keys() == {"name"} for volume in volumes]
            full = [{**v, "emptyDir": {}} if is_bare else v for v, is_bare in zip(volumes, bare, strict=True)]
            kept["spec"] = {**rest, "volumes": full}
    return kept


def _refusals(raw: dict[str, Any], node_name: str) -> tuple[Refusal, ...]:
    if found := faults(raw):
        return found
    pod = pod_from_dict(raw)
    name = _name(pod.metadata.name, node_name)
    if not is_subdomain(name):
        return (invalid("metadata.name", name, "with the node's name must have at most 253 characters"),)
    return (*api_references(pod), *unsupported(raw))


def _name(name: str, node_name: str) -> str:
    return f"{name}-{node_name.lower()}"
