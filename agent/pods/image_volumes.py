"""Image volumes of one container: have each image on the machine, and say how the runtime is to mount it.

In: the pod's state and the container that is about to start. Out: what to mount, by place in `volumeMounts`. The images
are pulled as a container's are, with the same policies, credentials, backoff and events. Raises Permanent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.container import Container
from agent.model.objects import ObjectReference
from agent.pods.image_pull import ensure_image
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState
from agent.pods.translate.container import ImageMount

FIRST_CONTAINERD = (2, 1)
"""An older one takes the request and mounts nothing."""


async def image_mounts(
    machine: Machine, state: PodState, container: Container, sandbox_config: api_pb2.PodSandboxConfig
) -> Mapping[int, ImageMount]:
    """Empty, without a call, for a container that mounts no image. Raises Permanent, Retryable."""
    sources = {volume.name: volume.image for volume in state.pod.spec.volumes if volume.image is not None}
    wanted = {index: mount.name for index, mount in enumerate(container.volumeMounts) if mount.name in sources}
    if not wanted:
        return {}
    version = await machine.runtime.version()
    if not mounts_images(version.runtime_name, version.runtime_version):
        raise Permanent(
            "CreateContainerConfigError",
            f'volume "{next(iter(wanted.values()))}": {version.runtime_name} {version.runtime_version} mounts no '
            "images, containerd 2.1 and later do",
        )
    found: dict[str, str] = {}
    for name in dict.fromkeys(wanted.values()):
        source = sources[name]
        # A policy that is not written is that of the reference's tag, as of a container.
        pulled = Container(name=name, image=source.reference, imagePullPolicy=source.pullPolicy)
        image = await ensure_image(machine, state, pulled, ObjectReference.of(state.pod), sandbox_config)
        found[name] = image.ref
    return {index: ImageMount(found[name], sources[name].reference) for index, name in wanted.items()}


def mounts_images(runtime: str, version: str) -> bool:
    """Other runtimes say themselves what they can't do."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    return runtime != "containerd" or numbers is None or (int(numbers[1]), int(numbers[2])) >= FIRST_CONTAINERD
