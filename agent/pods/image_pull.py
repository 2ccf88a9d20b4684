"""Have a container's image on the machine: the pull policies, credentials, backoff and events.

In: pod and container. Out: the image as the runtime has it. Raises Permanent whose reason is the waiting reason that
users know, one of `pull_faults.IMAGE_REASONS`. A registry that never answers is `silence`'s to notice; that a pull of
which something came makes no progress is the runtime's (containerd's `image_pull_progress_timeout`).
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.errors import NotFound, Permanent, Retryable
from agent.model.container import Container
from agent.model.objects import ObjectReference, Secret
from agent.pods.backoff import raised, ready_at
from agent.pods.credentials import Credential, SecretSource, of_secrets
from agent.pods.go_duration import go_duration
from agent.pods.images import parse_image, with_default_tag
from agent.pods.machine import Machine
from agent.pods.pod_state import PodState
from agent.pods.ports import ObjectKey
from agent.pods.pull_faults import is_away, pull_fault, summary
from agent.pods.scripts.kind import is_scripts
from agent.pods.start_times import START_TIMES
from agent.pods.translate.container import Image
from agent.pods.translate.security import ImageUser


class _Wanted(msgspec.Struct, frozen=True):
    """`name` is what is pulled; `held` is the name that `present`, what is here of it, was found under."""

    name: api_pb2.ImageSpec
    held: api_pb2.ImageSpec
    present: api_pb2.Image | None


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
    wanted = await _find(machine, state, container, about)
    policy, present = container.pull_policy, wanted.present
    if present is not None and policy != "Always":
        if await _must_pull(machine, state, wanted.held.image, present):
            wanted = replace(wanted, present=None)  # it is here, and not for this pod: nobody learns of it
        else:
            message = f'Container image "{container.image}" already present on machine and can be accessed by the pod'
            machine.events.record(about, "Normal", "Pulled", message)
            return _image(present)
    if policy == "Never":
        message = f'Container image "{container.image}" is not present with pull policy of Never'
        machine.events.record(about, "Warning", "ErrImageNeverPull", message)
        raise Permanent("ErrImageNeverPull", message)
    try:
        return _image(await _pull(machine, state, container, wanted, about, sandbox_config))
    except Permanent as error:
        why = state.pull_failures.get(wanted.name.image, "")
        present = wanted.present
        if present is None or not is_away(why) or not await _does_offline(machine, state, wanted):
            raise
        message = (
            f'The registry of image "{container.image}" can\'t be reached, using the image on the machine: {error}'
        )
        machine.events.record(about, "Warning", "OfflineImage", message)
        return _image(present)


async def _find(machine: Machine, state: PodState, container: Container, about: ObjectReference) -> _Wanted:
    """Raises Permanent."""
    annotations = state.pod.metadata.annotations or {}
    try:
        name = api_pb2.ImageSpec(image=machine.rewrites.name(container.image), annotations=annotations)
        written = api_pb2.ImageSpec(image=with_default_tag(container.image), annotations=annotations)
    except Permanent as error:
        machine.events.record(about, "Warning", "InspectFailed", str(error))
        raise
    try:
        present = await machine.images.image_status(name)
        if present is None and written != name:
            # It came in a bundle, or before it was to come from elsewhere: it is what the user asks for all the same.
            present = await machine.images.image_status(written)
            return _Wanted(name, written, present)
    except Permanent as error:
        message = f'Failed to inspect image "{container.image}": {error}'
        machine.events.record(about, "Warning", "InspectFailed", message)
        raise Permanent("ImageInspectError", message) from error
    return _Wanted(name, name, present)


async def _must_pull(machine: Machine, state: PodState, held: str, present: api_pb2.Image) -> bool:
    """Whether the image here is not for this pod before its registry said so."""
    return await machine.access.must_pull(held, present.id, lambda: _sources(machine, state, held))


async def _does_offline(machine: Machine, state: PodState, wanted: _Wanted) -> bool:
    """Whether the image on the machine will do while its registry is away: it is here, and for this pod."""
    if wanted.present is None or not machine.offline_images:
        return False
    return not await _must_pull(machine, state, wanted.held.image, wanted.present)


async def _pull(
    machine: Machine,
    state: PodState,
    container: Container,
    wanted: _Wanted,
    about: ObjectReference,
    sandbox_config: api_pb2.PodSandboxConfig,
) -> api_pb2.Image:
    name, present = wanted.name, wanted.present
    now = machine.monotonic()
    backoff = state.image_backoffs.get(name.image)
    if backoff is not None and now < ready_at(backoff, backoff.updated_at):
        message = f'Back-off pulling image "{container.image}"'
        machine.events.record(about, "Normal", "BackOff", message)
        last = state.pull_failures.get(name.image)
        raise Permanent("ImagePullBackOff", f"{message}: {last}" if last else message)
    machine.events.record(about, "Normal", "Pulling", f'Pulling image "{container.image}"')
    registry = parse_image(name.image).domain
    try:
        async with (
            machine.pulls.turn(lambda: machine.silence.check(registry)) as place,
            machine.access.pulling(name.image, present.id if present is not None else ""),
        ):
            began = machine.monotonic()
            used = await machine.silence.watch(
                registry,
                _pull_with_any_credential(machine, state, name, sandbox_config),
                place,
                lambda: _does_offline(machine, state, wanted),
            )
            pulled = await machine.images.image_status(name)
            if pulled is None:
                raise Permanent("", f'image "{container.image}" was pulled and is not there')
            took = machine.monotonic() - began
            START_TIMES.pulled(state.pod.uid, took)
            await machine.access.pulled(name.image, pulled.id, used)
    except (NotFound, Permanent, Retryable) as error:
        failed_at = machine.monotonic()
        state.image_backoffs[name.image] = raised(backoff, failed_at, failed_at)
        machine.events.record(about, "Warning", "Failed", f'Failed to pull image "{container.image}": {error}')
        fault = pull_fault(container.image, str(error))
        state.pull_failures[name.image] = f"{fault.reason}: {fault}"
        raise fault from error
    state.image_backoffs.pop(name.image, None)
    state.pull_failures.pop(name.image, None)
    waited = go_duration(machine.monotonic() - now)
    machine.events.record(
        about,
        "Normal",
        "Pulled",
        f'Successfully pulled image "{container.image}" in {go_duration(took)} ({waited} including waiting).'
        f" Image size: {pulled.size} bytes.",
    )
    return pulled


async def _pull_with_any_credential(
    machine: Machine, state: PodState, name: api_pb2.ImageSpec, sandbox_config: api_pb2.PodSandboxConfig
) -> Credential | None:
    """Each credential that fits, the most specific first; anonymously where none does. The one that was let in.

    Raises what all tries said.
    """
    candidates: tuple[Credential | None, ...] = await _credentials(machine, state, name.image) or (None,)
    said: list[str] = []
    for candidate in candidates:
        try:
            await machine.images.pull_image(name, candidate.auth if candidate else None, sandbox_config)
            return candidate
        except (NotFound, Permanent) as error:
            said.append(str(error))
    raise Permanent("", summary(said))


async def _credentials(machine: Machine, state: PodState, image: str) -> tuple[Credential, ...]:
    """The pod's own first, then the node's."""
    return await node_credentials(machine, image, of_secrets(image, _pull_secrets(state)))


async def node_credentials(machine: Machine, image: str, found: tuple[Credential, ...] = ()) -> tuple[Credential, ...]:
    """After those that were `found` what the node's plugins say, then the node's own, but for those to mirrors."""
    if machine.plugins is not None:
        found = (*found, *await machine.plugins.credentials(image))
    return found if machine.logins is None else await machine.logins.joined(image, found)


async def _sources(machine: Machine, state: PodState, image: str) -> list[SecretSource]:
    return [found.source for found in await _credentials(machine, state, image) if found.source is not None]


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
