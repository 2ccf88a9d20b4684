"""What all API views share: the struct they are made of, metadata, and quantities as they are written."""

from __future__ import annotations

import msgspec

Quantity = str | int | float
"""A resource quantity as written: "100m", "1Gi", 2. `agent.model.quantity` parses it."""


class K8sStruct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of all API views: immutable, keyword-only, defaults left out when encoded."""


class OwnerReference(K8sStruct, frozen=True):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    blockOwnerDeletion: bool | None = None


class ObjectMeta(K8sStruct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    deletionGracePeriodSeconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
