"""The Node as this machine should have it: labels, taints, capacity, conditions, addresses, images.

In: the machine's facts, the settings, what the runtime and eviction say, the Node's conditions so far and
the time. Out: the parts of a v1.Node as JSON values, and which of its conditions turned. Pure.
Field names, condition types and reasons are the kubelet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

import msgspec

from agent import __version__
from agent.config import Settings, Taint
from agent.model import quantity
from agent.model.status import timestamp
from agent.node.eviction.signals import Signal
from agent.node.eviction.thresholds import kept_free
from agent.node.facts import MachineFacts
from agent.node.ports import NodeImage, RuntimeCondition, RuntimeHealth
from agent.node.pressure import Pressure
from agent.node.reserved import reserved

Json = dict[str, Any]

KUBELET_VERSION = f"v1.36.0+edgelet.{__version__}"
"""The Kubernetes release whose kubelet we behave like. Build metadata, so that comparisons see the release itself."""
IMAGES_LIMIT = 50
NAMES_PER_IMAGE_LIMIT = 5
RECORD = "RecordUnavailable"
"""A condition of our own: what the node must run can't be written to its disk."""
ATTACH_DETACH = "volumes.kubernetes.io/controller-managed-attach-detach"

_EVENTS = {
    ("Ready", "True"): "NodeReady",
    ("Ready", "False"): "NodeNotReady",
    ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
    ("MemoryPressure", "False"): "NodeHasSufficientMemory",
    ("DiskPressure", "True"): "NodeHasDiskPressure",
    ("DiskPressure", "False"): "NodeHasNoDiskPressure",
    ("PIDPressure", "True"): "NodeHasInsufficientPID",
    ("PIDPressure", "False"): "NodeHasSufficientPID",
    ("RecordUnavailable", "True"): "NodeRecordUnavailable",
    ("RecordUnavailable", "False"): "NodeRecordAvailable",
}


class Observed(msgspec.Struct, frozen=True):
    """What changes while the agent runs."""

    facts: MachineFacts
    health: RuntimeHealth
    pressure: Pressure
    images: tuple[NodeImage, ...] | None = None
    """None: not known yet, and left as the Node has them."""
    record_trouble: str = ""
    """Why the record can't be written; empty while it can."""
    going_down: str = ""
    """Not empty: the machine is about to, or was told to, and its pods end."""
    leaving: str = ""
    """Why the agent is about to stop; empty while it is not."""
    volumes_in_use: tuple[str, ...] | None = None
    """None: not known yet, and left as the Node has it."""
    allocatable: Mapping[str, str] | None = None
    """None: what the settings leave of the machine."""
    devices: Mapping[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Of device plugins, by resource: how many there are, and how many of them are healthy."""


def node(observed: Observed, settings: Settings, conditions_before: list[Json], now_s: float) -> Json:
    """The whole v1.Node, as it is registered."""
    spec: Json = {"taints": wanted} if (wanted := taints(settings)) else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.node_name,
            "labels": labels(observed.facts, settings),
            "annotations": {ATTACH_DETACH: "true"},
        },
        "spec": spec,
        "status": status(observed, settings, conditions_before, now_s),
    }


def labels(facts: MachineFacts, settings: Settings) -> dict[str, str]:
    own = {
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
    }
    if settings.provider != "containerd":
        own["type"] = "virtual-kubelet"
    return own | settings.node_labels


def status(observed: Observed, settings: Settings, conditions_before: list[Json], now_s: float) -> Json:
    facts = observed.facts
    own = allocatable(facts, settings) if observed.allocatable is None else observed.allocatable
    built: Json = {
        "capacity": capacity(facts, settings) | {name: str(all_) for name, (all_, _) in observed.devices.items()},
        "allocatable": {**own, **{name: str(good) for name, (_, good) in observed.devices.items()}},
        "conditions": conditions(observed, conditions_before, now_s),
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in node_ips(facts, settings)),
            {"type": "Hostname", "address": settings.node_name},
        ],
        "nodeInfo": _node_info(observed),
    }
    if observed.images is not None:
        built["images"] = _images(observed.images)
    if observed.volumes_in_use is not None:
        built["volumesInUse"] = list(observed.volumes_in_use)
    if settings.port:
        built["daemonEndpoints"] = {"kubeletEndpoint": {"Port": settings.port}}
    if observed.health.handlers:
        built["runtimeHandlers"] = [
            {
                "name": handler.name,
                "features": {
                    "recursiveReadOnlyMounts": handler.recursive_read_only_mounts,
                    "userNamespaces": handler.user_namespaces,
                },
            }
            for handler in observed.health.handlers
        ]
    if observed.health.supplemental_groups_policy is not None:
        built["features"] = {"supplementalGroupsPolicy": observed.health.supplemental_groups_policy}
    if observed.health.declared_features:
        built["declaredFeatures"] = list(observed.health.declared_features)
    return built


def node_ips(facts: MachineFacts, settings: Settings) -> tuple[str, ...]:
    """The Node's addresses, primary first; one of the default route's unless told otherwise."""
    return tuple(settings.node_ip.split(",")) if settings.node_ip else facts.addresses[:1]


def capacity(facts: MachineFacts, settings: Settings) -> dict[str, str]:
    return {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{facts.ephemeral_storage_bytes // 1024}Ki",
        "pods": str(settings.max_pods),
        **{f"hugepages-{size}": str(reserved) for size, reserved in facts.hugepages_bytes.items()},
    }


def allocatable(facts: MachineFacts, settings: Settings) -> dict[str, str]:
    """Capacity without what is reserved and must stay free, and without huge pages, which only their users can have."""
    memory = facts.memory_bytes - kept_free(settings, Signal.MEMORY, facts.memory_bytes)
    memory -= sum(facts.hugepages_bytes.values())
    memory -= ceil(reserved(settings, "memory"))
    disk = facts.ephemeral_storage_bytes - kept_free(settings, Signal.NODE_FS, facts.ephemeral_storage_bytes)
    disk -= ceil(reserved(settings, "ephemeral-storage"))
    return capacity(facts, settings) | {
        "cpu": quantity.canonical(max(facts.cpus - reserved(settings, "cpu"), Fraction(0)), binary=False),
        "memory": f"{max(memory, 0) // 1024}Ki",
        "ephemeral-storage": str(max(disk, 0)),
    }


def conditions(observed: Observed, before: list[Json], now_s: float) -> list[Json]:
    """The four of a kubelet, and word of the record once it had trouble; Ready stands last.

    A condition keeps its transition time while its status stays.
    """
    pressed = observed.pressure
    return [
        _condition(
            "MemoryPressure",
            pressed.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            if pressed.memory
            else ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            before,
            now_s,
        ),
        _condition(
            "DiskPressure",
            pressed.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure")
            if pressed.disk
            else ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            before,
            now_s,
        ),
        _condition(
            "PIDPressure",
            pressed.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            if pressed.pids
            else ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            before,
            now_s,
        ),
        *_record(observed.record_trouble, before, now_s),
        _ready(observed, before, now_s),
    ]


def _record(trouble: str, before: list[Json], now_s: float) -> list[Json]:
    """A Node whose record never had trouble does not carry the condition."""
    if trouble:
        why = "RecordNotWritable", f"{trouble}; pods go on, what changes is kept in memory until it can be written"
    elif _find(before, RECORD):
        why = "RecordWritable", "the record has everything"
    else:
        return []
    return [_condition(RECORD, bool(trouble), why, before, now_s)]


def turned(before: list[Json], after: list[Json]) -> tuple[tuple[str, str], ...]:
    """(reason, message) of the event for every condition that is new or has another status now."""
    return tuple(
        (_EVENTS[key], f"{condition['reason']}: {condition['message']}")
        for condition in after
        if (key := (condition["type"], condition["status"])) in _EVENTS
        and _find(before, condition["type"]).get("status") != condition["status"]
    )


def changed(wanted: Json, sent: Json | None) -> bool:
    """A status to report at once: it differs from the last one sent by more than heartbeats."""
    return sent is None or without_heartbeats(wanted) != without_heartbeats(sent)


def disturbed(wanted: Json, known: Json) -> bool:
    """Somebody else changed what is ours: a controller that lost sight of this node, or an admin."""
    for condition in wanted["conditions"]:
        found = _find(known.get("conditions") or [], condition["type"])
        if any(found.get(name) != condition[name] for name in ("status", "reason", "message")):
            return True
    for part in ("capacity", "allocatable"):
        found = known.get(part) or {}
        if any(name not in found or not _equal(amount, found[name]) for name, amount in wanted[part].items()):
            return True
    return list(wanted["addresses"]) != (known.get("addresses") or [])


def without_heartbeats(built: Json) -> Json:
    bare = [
        {name: value for name, value in condition.items() if name != "lastHeartbeatTime"}
        for condition in built["conditions"]
    ]
    return built | {"conditions": bare}


def status_patch(wanted: Json, known: Json) -> Json:
    """The strategic merge that turns the known status into the wanted one and leaves what is others' alone.

    What is so already is not sent: of a status that is only due nothing is left but the heartbeats.
    """
    patch: Json = {part: value for part, value in wanted.items() if known.get(part) != value}
    if "addresses" in patch:
        # Addresses merge by type, which two of one type would break: they are replaced as a whole.
        patch["addresses"] = [*wanted["addresses"], {"$patch": "replace"}]
    for part in ("capacity", "allocatable"):
        found = known.get(part) or {}
        news = {name: amount for name, amount in wanted[part].items() if found.get(name) != amount}
        patch[part] = news | dict.fromkeys(_stale(found, wanted[part]))
        if not patch[part]:
            del patch[part]
    before = known.get("conditions") or []
    patch["conditions"] = [
        {name: value for name, value in condition.items() if name == "type" or old.get(name) != value}
        for condition in wanted["conditions"]
        for old in (_find(before, condition["type"]),)
    ]
    return {"status": patch}


def patched(known: Json, wanted: Json) -> Json:
    """The status as it is once the API server has taken that patch; what it made of it otherwise its watch tells."""
    amounts = {}
    for part in ("capacity", "allocatable"):
        found = known.get(part) or {}
        stale = _stale(found, wanted[part])
        amounts[part] = {name: amount for name, amount in found.items() if name not in stale} | wanted[part]
    kinds = {condition["type"] for condition in wanted["conditions"]}
    others = [condition for condition in known.get("conditions") or [] if condition["type"] not in kinds]
    return {**known, **wanted, **amounts, "conditions": [*others, *wanted["conditions"]]}


def _stale(found: Json, wanted: Json) -> list[str]:
    """Sizes of huge pages that the machine had once."""
    return [name for name in found if name.startswith("hugepages-") and name not in wanted]


def _ready(observed: Observed, before: list[Json], now_s: float) -> Json:
    health = observed.health
    problems = [f"container runtime is down: {health.down}"] if health.down else []
    if not health.down:
        problems = [
            *_problem("container runtime not ready: RuntimeReady", health.runtime),
            *_problem("container runtime network not ready: NetworkReady", health.network),
        ]
    problems += [observed.going_down] if observed.going_down else []
    if problems:
        message = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        return _condition("Ready", False, ("KubeletNotReady", message), before, now_s)
    if observed.leaving:
        # Ready stays true: with False, every Service would drop this node's pods, which run on, at each upgrade of the
        # agent. When it does not come back, the missing lease says so within a minute.
        return _condition("Ready", True, ("AgentStopped", observed.leaving), before, now_s)
    return _condition("Ready", True, ("KubeletReady", "the node agent is ready to run pods"), before, now_s)


def _problem(what: str, condition: RuntimeCondition) -> list[str]:
    if condition.ready:
        return []
    return [f"{what}=false reason:{condition.reason} message:{condition.message}"]


def _condition(kind: str, holds: bool, why: tuple[str, str], before: list[Json], now_s: float) -> Json:
    now = timestamp(now_s)
    word = "True" if holds else "False"
    old = _find(before, kind)
    since = old.get("lastTransitionTime") if old.get("status") == word else None
    return {
        "type": kind,
        "status": word,
        "reason": why[0],
        "message": why[1],
        "lastHeartbeatTime": now,
        "lastTransitionTime": since or now,
    }


def _find(among: list[Json], kind: str) -> Mapping[str, Any]:
    return next((condition for condition in among if condition.get("type") == kind), {})


def _node_info(observed: Observed) -> Json:
    facts, health = observed.facts, observed.health
    info: Json = {
        "machineID": facts.machine_id,
        "systemUUID": facts.system_uuid,
        "bootID": facts.boot_id,
        "kernelVersion": facts.kernel_version,
        "osImage": facts.os_image,
        # The API server wants name://version.
        "containerRuntimeVersion": f"{health.name or 'unknown'}://{health.version or 'unknown'}",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": facts.architecture,
    }
    if facts.swap_bytes:
        info["swap"] = {"capacity": facts.swap_bytes}
    return info


def _images(images: tuple[NodeImage, ...]) -> list[Json]:
    """The largest ones: they matter most to where a pod starts fastest."""
    named = [image for image in images if image.names]
    largest = sorted(named, key=lambda image: (-image.size_bytes, image.names))[:IMAGES_LIMIT]
    return [{"names": list(image.names[:NAMES_PER_IMAGE_LIMIT]), "sizeBytes": image.size_bytes} for image in largest]


def taints(settings: Settings) -> list[Json]:
    """Those that the Node is registered with; on a Node that exists they are whatever its admins made of them."""
    wanted = list(settings.register_with_taints)
    if settings.provider_taint and not settings.disable_taint:
        wanted.append(settings.provider_taint)
    return [_taint(taint) for taint in wanted]


def _taint(taint: Taint) -> Json:
    bare = {"key": taint.key, "effect": taint.effect}
    return bare | {"value": taint.value} if taint.value else bare


def _equal(one: str, other: str) -> bool:
    """The API server writes quantities in its own form: 1024Mi comes back as 1Gi."""
    return one == other or quantity.parse(one) == quantity.parse(other)
