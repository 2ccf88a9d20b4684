"""Have a container's image on the machine: the pull policies, credentials, backoff and events.

In: pod and container. Out: the image as the runtime has it. Raises Permanent whose reason is the waiting reason that
users know: ErrImagePull, ImagePullBackOff, ErrImageNeverPull, ImageInspectError, InvalidImageName.
"""

from __future__ import annotations

from agent.cri._generated import api_pb2
from agent.errors import NotFound, Permanent, Retryable
from agent.model.container import Container
from agent.model.objects import ObjectReference, Secret
from agent.pods.backoff import raised, ready_at
from agent.pods.images import credentials, with_default_tag
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState
from agent.pods.ports import ObjectKey
from agent.pods.scripts.kind import is_scripts
from agent.pods.translate.container import Image
from agent.pods.translate.security import ImageUser


async def ensure_image(
    machine: Machine,
    state: PodState,
    container: Container,
    about: ObjectReference,
    sandbox_config: api_pb2.PodSandboxConfig,
) -> Image:
    """The image, pulled where the policy asks for it. Raises Permanent, Retryable while the runtime is away."""
    if is_scripts(state.pod):
        return _image(await machine.scripts.image.ensure())
    try:
        name = api_pb2.ImageSpec(image=with_default_tag(container.image))
    except Permanent as error:
        machine.events.record(about, "Warning", "InspectFailed", str(error))
        raise
    policy = container.pull_policy
    try:
        present = await machine.images.image_status(name)
    except Permanent as error:
        message = f'Failed to inspect image "{container.image}": {error}'
        machine.events.record(about, "Warning", "InspectFailed", message)
        raise Permanent("ImageInspectError", message) from error
    if policy == "Never" and present is None:
        message = f'Container image "{container.image}" is not present with pull policy of Never'
        machine.events.record(about, "Warning", "ErrImageNeverPull", message)
        raise Permanent("ErrImageNeverPull", message)
    if present is not None and policy != "Always":
        message = f'Container image "{container.image}" already present on machine'
        machine.events.record(about, "Normal", "Pulled", message)
        return _image(present)
    await _pull(machine, state, container, name, about, sandbox_config)
    pulled = await machine.images.image_status(name)
    if pulled is None:
        raise Permanent("ErrImagePull", f'image "{container.image}" was pulled and is not there')
    return _image(pulled)


async def _pull(
    machine: Machine,
    state: PodState,
    container: Container,
    name: api_pb2.ImageSpec,
    about: ObjectReference,
    sandbox_config: api_pb2.PodSandboxConfig,
) -> None:
    now = machine.monotonic()
    backoff = state.image_backoffs.get(name.image)
    if backoff is not None and now < ready_at(backoff, backoff.updated_at):
        message = f'Back-off pulling image "{container.image}"'
        machine.events.record(about, "Normal", "BackOff", message)
        raise Permanent("ImagePullBackOff", message)
    machine.events.record(about, "Normal", "Pulling", f'Pulling image "{container.image}"')
    try:
        await _pull_with_any_credential(machine, state, name, sandbox_config)
    except (NotFound, Permanent, Retryable) as error:
        failed_at = machine.monotonic()
        state.image_backoffs[name.image] = raised(backoff, failed_at, failed_at)
        message = f'Failed to pull image "{container.image}": {error}'
        machine.events.record(about, "Warning", "Failed", message)
        raise Permanent("ErrImagePull", str(error)) from error
    state.image_backoffs.pop(name.image, None)
    took = machine.monotonic() - now
    machine.events.record(about, "Normal", "Pulled", f'Successfully pulled image "{container.image}" in {took:.3g}s')


async def _pull_with_any_credential(
    machine: Machine, state: PodState, name: api_pb2.ImageSpec, sandbox_config: api_pb2.PodSandboxConfig
) -> None:
    """Each credential that fits, the most specific first; anonymously where none does. Raises the last refusal."""
    candidates: tuple[api_pb2.AuthConfig | None, ...] = credentials(name.image, _pull_secrets(state)) or (None,)
    async with machine.pulls:
        for index, auth in enumerate(candidates):
            try:
                await machine.images.pull_image(name, auth, sandbox_config)
                return
            except (NotFound, Permanent):
                if index == len(candidates) - 1:
                    raise


def _pull_secrets(state: PodState) -> list[Secret]:
    namespace = state.pod.metadata.namespace
    named = (
        state.referenced.objects.get(ObjectKey("secrets", namespace, ref.name))
        for ref in state.pod.spec.imagePullSecrets
    )
    return [secret for secret in named if isinstance(secret, Secret)]


def _image(found: api_pb2.Image) -> Image:
    uid = found.uid.value if found.HasField("uid") else None
    return Image(found.id, ImageUser(uid, found.username))
