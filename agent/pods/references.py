"""What a pod refers to by name, and what became of it.

In: a pod. Out: the keys of every ConfigMap, Secret and claim it names (`references`), and, once asked for, their
contents, what they lead to (a claim's volume, the Secrets of that), its bound tokens and the services of its namespace
in one frozen value (`fetch`). An absent object is a value here, not an error: whether it was optional is known only to
the env variable or the volume that names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

import msgspec

from agent.errors import Forbidden, NotFound, Permanent, Retryable
from agent.model.container import Container
from agent.model.objects import (
    CLUSTER_WIDE,
    ClusterTrustBundle,
    ClusterTrustBundleList,
    ConfigMap,
    ObjectKind,
    Secret,
    Service,
)
from agent.model.persistent import PersistentVolume, PersistentVolumeClaim
from agent.model.pod import Pod
from agent.model.storage import CSIDriver
from agent.model.volume import ServiceAccountTokenProjection, Volume
from agent.pods.ports import ObjectKey, Objects, Token, Tokens
from agent.pods.runtime_class import runtime_class_key
from agent.pods.trust_bundles import trust_keys


class Missing(Enum):
    """The type of `MISSING`: a one-member enum, so that `is MISSING` narrows."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The API server said that there is no such object."""

Held = (
    ConfigMap
    | Secret
    | PersistentVolumeClaim
    | PersistentVolume
    | ClusterTrustBundle
    | ClusterTrustBundleList
    | CSIDriver
)

TokenKey = tuple[str, str]
"""Volume name and the token's path in it."""


class Referenced(msgspec.Struct, frozen=True):
    """Everything that a pod names, as it was at one moment."""

    objects: Mapping[ObjectKey, Held | Missing] = msgspec.field(default_factory=dict)
    tokens: Mapping[TokenKey, Token | Missing] = msgspec.field(default_factory=dict)
    services: tuple[Service, ...] = ()

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """The ConfigMap, None where it does not exist."""
        found = self.objects.get(ObjectKey("configmaps", namespace, name), MISSING)
        return found if isinstance(found, ConfigMap) else None

    def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret, None where it does not exist."""
        found = self.objects.get(ObjectKey("secrets", namespace, name), MISSING)
        return found if isinstance(found, Secret) else None

    def claim(self, namespace: str, name: str) -> PersistentVolumeClaim | None:
        """The claim, None where it does not exist."""
        found = self.objects.get(ObjectKey("persistentvolumeclaims", namespace, name), MISSING)
        return found if isinstance(found, PersistentVolumeClaim) else None

    def persistent_volume(self, name: str) -> PersistentVolume | None:
        """The volume that a claim of the pod names, None where it does not exist."""
        found = self.objects.get(ObjectKey("persistentvolumes", "", name), MISSING)
        return found if isinstance(found, PersistentVolume) else None

    def csi_driver(self, name: str) -> CSIDriver | None:
        """The CSIDriver of a volume of the pod; None: there is none, and its defaults hold."""
        found = self.objects.get(ObjectKey("csidrivers", "", name), MISSING)
        return found if isinstance(found, CSIDriver) else None


def references(pod: Pod) -> tuple[ObjectKey, ...]:
    """Everything that the pod itself names, each once, in the order of the spec."""
    namespace = pod.metadata.namespace
    named = [*_must_exist(pod), *_pull_secrets(pod)]
    keys = [_key(kind, namespace, name) for kind, name in named if name]
    if (runtime_class := runtime_class_key(pod)) is not None:
        keys.append(runtime_class)
    return tuple(dict.fromkeys((*keys, *trust_keys(pod))))


def token_requests(pod: Pod) -> Mapping[TokenKey, ServiceAccountTokenProjection]:
    """The service-account tokens that the pod's projected volumes hold."""
    return {
        (volume.name, source.serviceAccountToken.path): source.serviceAccountToken
        for volume in pod.spec.volumes
        if volume.projected is not None
        for source in volume.projected.sources
        if source.serviceAccountToken is not None
    }


async def fetch(pod: Pod, objects: Objects, tokens: Tokens | None) -> Referenced:
    """Fetch everything at once (no tokens where `tokens` is None). What does not exist becomes MISSING.

    A pull secret that can't be had for any reason is MISSING too: the image may be public or here already, and the
    kubelet starts such a pod as well. Raises Retryable, Forbidden, or Permanent for an object that can't be read.
    """
    namespace = pod.metadata.namespace
    needed = {_key(kind, namespace, name) for kind, name in _must_exist(pod)}
    optional = {ObjectKey(kind, namespace, name) for kind, name in _pull_secrets(pod)} - needed

    async def one_object(key: ObjectKey) -> Held | Missing:
        try:
            return _decode(key, await objects.get(key))
        except NotFound:
            return MISSING
        except (Retryable, Forbidden):
            if key in optional:
                return MISSING
            raise

    async def all_objects() -> Mapping[ObjectKey, Held | Missing]:
        found: dict[ObjectKey, Held | Missing] = {}
        # Who makes the sandbox asks for the runtime class, and says what is wrong with it.
        ahead = tuple(key for key in references(pod) if key.kind != "runtimeclasses")
        while ahead:
            async with asyncio.TaskGroup() as group:
                asked = {key: group.create_task(one_object(key)) for key in ahead}
            got = {key: task.result() for key, task in asked.items()}
            found.update(got)
            ahead = tuple(dict.fromkeys(key for held in got.values() for key in _leads_to(held) if key not in found))
        return found

    async def one_token(source: Tokens, wanted: ServiceAccountTokenProjection) -> Token | Missing:
        try:
            return await source.token(pod, wanted.audience, wanted.expirationSeconds)
        except NotFound:
            return MISSING

    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        async with asyncio.TaskGroup() as group:
            services = group.create_task(objects.services(namespace))
            found = group.create_task(all_objects())
            issued = (
                {key: group.create_task(one_token(tokens, wanted)) for key, wanted in token_requests(pod).items()}
                if tokens is not None
                else {}
            )
    except BaseExceptionGroup as failures:
        # A group that fails while it is waited for leaves its own cancellation counted (until Python 3.13), and by that
        # the next timeout of the caller would end the caller (Python 3.11.2, which is Debian 12's).
        if task.cancelling() > cancelled:
            task.uncancel()
        ours, bugs = failures.split((Retryable, Permanent))
        if ours is None or bugs is not None:
            raise
        # The caller branches on one error, and the first is as good a reason as any to wait.
        raise _first(ours) from failures
    return Referenced(
        objects=found.result(),
        tokens={key: task.result() for key, task in issued.items()},
        services=services.result(),
    )


def _leads_to(held: Held | Missing) -> Iterator[ObjectKey]:
    """What must be read next: known only from what was read."""
    if isinstance(held, PersistentVolumeClaim) and held.spec.volumeName:
        yield ObjectKey("persistentvolumes", "", held.spec.volumeName)
    elif isinstance(held, PersistentVolume) and (csi := held.spec.csi) is not None:
        yield ObjectKey("csidrivers", "", csi.driver)
        for secret in (csi.nodeStageSecretRef, csi.nodePublishSecretRef):
            if secret is not None:
                yield ObjectKey("secrets", secret.namespace, secret.name)


def _key(kind: ObjectKind, namespace: str, name: str) -> ObjectKey:
    return ObjectKey(kind, "" if kind in CLUSTER_WIDE else namespace, name)


_Named = tuple[ObjectKind, str]


def _must_exist(pod: Pod) -> Iterator[_Named]:
    for container in pod.spec.all_containers:
        yield from _of_container(container)
    for volume in pod.spec.volumes:
        yield from _of_volume(volume)
        if (claim := volume.claim_name(pod.metadata.name)) is not None:
            yield "persistentvolumeclaims", claim


def _of_container(container: Container) -> Iterator[_Named]:
    for source in container.envFrom:
        if source.configMapRef is not None:
            yield "configmaps", source.configMapRef.name
        if source.secretRef is not None:
            yield "secrets", source.secretRef.name
    for variable in container.env:
        if variable.valueFrom is None:
            continue
        if variable.valueFrom.configMapKeyRef is not None:
            yield "configmaps", variable.valueFrom.configMapKeyRef.name
        if variable.valueFrom.secretKeyRef is not None:
            yield "secrets", variable.valueFrom.secretKeyRef.name


def _of_volume(volume: Volume) -> Iterator[_Named]:
    if volume.configMap is not None:
        yield "configmaps", volume.configMap.name
    if volume.secret is not None:
        yield "secrets", volume.secret.secretName
    if volume.csi is not None:
        yield "csidrivers", volume.csi.driver
        if volume.csi.nodePublishSecretRef is not None:
            yield "secrets", volume.csi.nodePublishSecretRef.name
    for source in volume.projected.sources if volume.projected is not None else ():
        if source.configMap is not None:
            yield "configmaps", source.configMap.name
        if source.secret is not None:
            yield "secrets", source.secret.name


def _pull_secrets(pod: Pod) -> Iterator[_Named]:
    for reference in pod.spec.imagePullSecrets:
        yield "secrets", reference.name


_decoders: Final[Mapping[ObjectKind, msgspec.json.Decoder[Held]]] = {
    "configmaps": msgspec.json.Decoder(ConfigMap),
    "secrets": msgspec.json.Decoder(Secret),
    "persistentvolumeclaims": msgspec.json.Decoder(PersistentVolumeClaim),
    "persistentvolumes": msgspec.json.Decoder(PersistentVolume),
    "clustertrustbundles": msgspec.json.Decoder(ClusterTrustBundle),
    "csidrivers": msgspec.json.Decoder(CSIDriver),
}
_trust_bundles: Final[msgspec.json.Decoder[Held]] = msgspec.json.Decoder(ClusterTrustBundleList)


def _decode(key: ObjectKey, raw: bytes) -> Held:
    try:
        return (_trust_bundles if key.fields else _decoders[key.kind]).decode(raw)
    except msgspec.DecodeError as error:
        raise Permanent("InvalidReference", f"{key.kind} {key.namespace}/{key.name} can't be read: {error}") from error


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
