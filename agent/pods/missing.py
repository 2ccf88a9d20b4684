"""ConfigMaps and Secrets that a pod refers to and that do not exist, as virtual-kubelet's users are told of them.

In: the pod and the objects that were not found. Out: one event each. Pure. An object that only optional references name
is missed by nobody, and said all the same; pull secrets are not spoken of: the image may need none.
"""

from __future__ import annotations

from collections.abc import Container as Collection
from collections.abc import Iterator

import msgspec

from agent.model.container import Container
from agent.model.objects import ObjectKey, ObjectKind
from agent.model.pod import Pod
from agent.model.volume import Volume

_KINDS = {"configmaps": "ConfigMap", "secrets": "Secret"}


class MissingObject(msgspec.Struct, frozen=True):
    key: ObjectKey
    optional: bool

    @property
    def reason(self) -> str:
        """OptionalSecretNotFound, MandatoryConfigMapNotFound, and so on."""
        return f"{'Optional' if self.optional else 'Mandatory'}{_KINDS[self.key.kind]}NotFound"

    @property
    def message(self) -> str:
        return f'{_KINDS[self.key.kind].lower()} "{self.key.name}" not found'


def missing_objects(pod: Pod, absent: Collection[ObjectKey]) -> tuple[MissingObject, ...]:
    """Each once, in the order of the spec."""
    optional: dict[ObjectKey, bool] = {}
    for kind, name, may_lack in _named(pod):
        key = ObjectKey(kind, pod.metadata.namespace, name)
        if key in absent:
            optional[key] = optional.get(key, True) and may_lack
    return tuple(MissingObject(key, may_lack) for key, may_lack in optional.items())


_Named = tuple[ObjectKind, str, bool]


def _named(pod: Pod) -> Iterator[_Named]:
    for container in pod.spec.all_containers:
        yield from _of_container(container)
    for volume in pod.spec.volumes:
        yield from _of_volume(volume)


def _of_container(container: Container) -> Iterator[_Named]:
    for source in container.envFrom:
        if source.configMapRef is not None:
            yield "configmaps", source.configMapRef.name, bool(source.configMapRef.optional)
        if source.secretRef is not None:
            yield "secrets", source.secretRef.name, bool(source.secretRef.optional)
    for variable in container.env:
        value = variable.valueFrom
        if value is not None and value.configMapKeyRef is not None:
            yield "configmaps", value.configMapKeyRef.name, bool(value.configMapKeyRef.optional)
        if value is not None and value.secretKeyRef is not None:
            yield "secrets", value.secretKeyRef.name, bool(value.secretKeyRef.optional)


def _of_volume(volume: Volume) -> Iterator[_Named]:
    if volume.configMap is not None:
        yield "configmaps", volume.configMap.name, bool(volume.configMap.optional)
    if volume.secret is not None:
        yield "secrets", volume.secret.secretName, bool(volume.secret.optional)
    for source in volume.projected.sources if volume.projected is not None else ():
        if source.configMap is not None:
            yield "configmaps", source.configMap.name, bool(source.configMap.optional)
        if source.secret is not None:
            yield "secrets", source.secret.name, bool(source.secret.optional)
