"""The runtime handler that a pod's RuntimeClass names.

In: a pod. Out: the handler for the runtime's request, "" for the default one. The class is read as everything else is
that a pod refers to: recorded, so that a node without network starts such a pod too.
"""

from __future__ import annotations

import msgspec

from agent.errors import NotFound, Permanent
from agent.model.objects import ObjectKey, RuntimeClass
from agent.model.pod import Pod
from agent.pods.ports import Objects

_decoder = msgspec.json.Decoder(RuntimeClass)


def runtime_class_key(pod: Pod) -> ObjectKey | None:
    name = pod.spec.runtimeClassName
    return ObjectKey("runtimeclasses", "", name) if name else None


async def runtime_handler(pod: Pod, objects: Objects) -> str:
    """Raises NotFound or Permanent where the class does not exist or can't be read, or Retryable."""
    key = runtime_class_key(pod)
    if key is None:
        return ""
    try:
        return _decoder.decode(await objects.get(key)).handler
    except NotFound as error:
        raise NotFound(f'runtimeclass.node.k8s.io "{key.name}" not found') from error
    except msgspec.DecodeError as error:
        raise Permanent("InvalidReference", f"RuntimeClass {key.name} can't be read: {error}") from error
