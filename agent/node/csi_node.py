"""What the API server is told of the CSI drivers on this node: the CSINode object, and the Node's id and topology.

In: a driver that came, with what it calls this machine, or one that went. Out: requests, each a change of what was just
read, made again where somebody was faster. Provisioners, attachers and the scheduler read these objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from agent.errors import Conflict, NotFound, Permanent, Retryable
from agent.kube.answers import decode_object
from agent.kube.rest import Api
from agent.model.csi import DriverNode

CSI_NODES: Final = "/apis/storage.k8s.io/v1/csinodes"
NODES: Final = "/api/v1/nodes"
NODE_ID_ANNOTATION: Final = "csi.volume.kubernetes.io/nodeid"
ATTEMPTS: Final = 5

Json = dict[str, Any]


class CsiNode:
    """Of one Node. Calls must not overlap."""

    def __init__(self, api: Api, node_name: str, node_uid: Callable[[], str]) -> None:
        """`node_uid` gives the UID of the Node as it is now registered: it owns the CSINode."""
        self._api = api
        self._name = node_name
        self._uid = node_uid
        self._path = f"{CSI_NODES}/{node_name}"
        self._node = f"{NODES}/{node_name}"

    async def install(self, driver: str, node: DriverNode) -> None:
        """Raises Permanent for what the driver says wrongly, else as the API server answers."""
        if not node.node_id:
            raise Permanent("InvalidNodeID", f"CSI driver {driver} names no node id")
        await self._repeated(lambda: self._tell_node(driver, node))
        await self._repeated(lambda: self._add(driver, node))

    async def uninstall(self, driver: str) -> None:
        await self._repeated(lambda: self._drop(driver))
        await self._repeated(lambda: self._untell_node(driver))

    async def _repeated(self, change: Callable[[], Any]) -> None:
        for _ in range(ATTEMPTS):
            try:
                await change()
            except Conflict:
                continue
            return
        raise Retryable(f"{self._path}: somebody else changes it again and again")

    async def _tell_node(self, driver: str, node: DriverNode) -> None:
        found = await self._read(self._node)
        labels = found["metadata"].get("labels") or {}
        for key, value in node.topology.items():
            if labels.get(key, value) != value:
                raise Permanent(
                    "TopologyCollision",
                    f'detected topology value collision: driver reported "{key}":"{value}" but existing label is '
                    f'"{key}":"{labels[key]}"',
                )
        change: Json = {}
        ids = _ids(found)
        if ids.get(driver) != node.node_id:
            change["annotations"] = {NODE_ID_ANNOTATION: _text({**ids, driver: node.node_id})}
        if missing := {key: value for key, value in node.topology.items() if key not in labels}:
            change["labels"] = missing
        await self._patch_node(found, change)

    async def _untell_node(self, driver: str) -> None:
        """Labels stay: volumes that are bound to this machine name them."""
        try:
            found = await self._read(self._node)
        except NotFound:
            return
        ids = _ids(found)
        if ids.pop(driver, None) is not None:
            await self._patch_node(found, {"annotations": {NODE_ID_ANNOTATION: _text(ids) if ids else None}})

    async def _patch_node(self, found: Json, change: Json) -> None:
        if change:
            meta = {"resourceVersion": found["metadata"]["resourceVersion"], **change}
            await self._api.patch(self._node, msgspec.json.encode({"metadata": meta}))

    async def _add(self, driver: str, node: DriverNode) -> None:
        entry = _entry(driver, node)
        try:
            found = await self._read(self._path)
        except NotFound:
            await self._api.post(CSI_NODES, msgspec.json.encode(self._object([entry])))
            return
        owners = found["metadata"].get("ownerReferences") or []
        if not any(owner.get("kind") == "Node" and owner.get("uid") == self._uid() for owner in owners):
            # Of a Node that was deleted and made again: a controller is about to collect it.
            await self._api.delete(self._path)
            await self._api.post(CSI_NODES, msgspec.json.encode(self._object([entry])))
            return
        drivers = (found.get("spec") or {}).get("drivers") or []
        others = [one for one in drivers if one["name"] != driver]
        before = next((one for one in drivers if one["name"] == driver), None)
        if before is not None and _same(before, entry):
            return
        if before is not None:
            # An entry can't be changed, only taken away and made again.
            found = await self._replace(found, others)
        await self._replace(found, [*others, entry])

    async def _drop(self, driver: str) -> None:
        try:
            found = await self._read(self._path)
        except NotFound:
            return
        drivers = (found.get("spec") or {}).get("drivers") or []
        others = [one for one in drivers if one["name"] != driver]
        if len(others) < len(drivers):
            await self._replace(found, others)

    async def _replace(self, found: Json, drivers: list[Json]) -> Json:
        changed = {**found, "spec": {**(found.get("spec") or {}), "drivers": drivers}}
        return decode_object(await self._api.put(self._path, msgspec.json.encode(changed)), self._path)

    async def _read(self, path: str) -> Json:
        return decode_object(await self._api.get(path), path)

    def _object(self, drivers: list[Json]) -> Json:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._uid()}
        return {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": self._name, "ownerReferences": [owner]},
            "spec": {"drivers": drivers},
        }


def _entry(driver: str, node: DriverNode) -> Json:
    entry: Json = {"name": driver, "nodeID": node.node_id, "topologyKeys": sorted(node.topology)}
    if node.max_volumes > 0:
        entry["allocatable"] = {"count": min(node.max_volumes, 2**31 - 1)}
    return entry


def _same(one: Json, other: Json) -> bool:
    def bare(entry: Json) -> tuple[object, ...]:
        count = (entry.get("allocatable") or {}).get("count")
        return entry["nodeID"], sorted(entry.get("topologyKeys") or []), count

    return bare(one) == bare(other)


def _ids(node: Json) -> dict[str, str]:
    """Driver → what it calls this machine, as the annotation has it."""
    text = (node["metadata"].get("annotations") or {}).get(NODE_ID_ANNOTATION) or "{}"
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        return {}  # somebody broke it: made anew


def _text(ids: dict[str, str]) -> str:
    return msgspec.json.encode(dict(sorted(ids.items()))).decode()
