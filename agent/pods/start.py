"""Create and start one container: image, environment, files, CRI calls, postStart hook, events.

In: an order of the planner and the sandbox it goes into. Out: a running container that is probed, or a Failure in the
pod's state, which the planner and the status read.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from loguru import logger
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.errors import Conflict, NotFound, Permanent, Retryable
from agent.model.action import ContainerStart
from agent.model.container import Container, EphemeralContainer
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedPod, ObservedSandbox
from agent.pods.addresses import pod_addresses
from agent.pods.backoff import raised, ready_at
from agent.pods.devices.given import given_devices
from agent.pods.downward import NodeContext
from agent.pods.env import build_env
from agent.pods.env_files import EnvFiles, read_env_files
from agent.pods.image_pull import ensure_image
from agent.pods.image_volumes import image_mounts
from agent.pods.interrupt import Interrupt
from agent.pods.knowledge import Failure, Health
from agent.pods.machine import Machine
from agent.pods.on_disk import on_disk
from agent.pods.pod_state import PodState
from agent.pods.probes.target import Target
from agent.pods.pull_faults import IMAGE_REASONS, PULL_REASONS
from agent.pods.references import Referenced, fetch, references
from agent.pods.resize import resized
from agent.pods.restart import end_before
from agent.pods.scripts.kind import is_scripts
from agent.pods.translate import container as translate
from agent.pods.translate.context import Notice
from agent.pods.translate.hostname import pod_hostname
from agent.pods.translate.hosts import hosts_file
from agent.pods.translate.identity import spec_hash
from agent.pods.volumes.layout import etc_hosts, termination_log

NODE_HOSTS = Path("/etc/hosts")
IMAGE_PULL_NOTICE_S = 2.0
"""ErrImagePull is shown this long before it becomes ImagePullBackOff."""


class ContainerStarter:
    """For one pod; `root` is the agent's root folder."""

    def __init__(self, machine: Machine, state: PodState, root: Path, interrupt: Interrupt) -> None:
        """`interrupt` ends what may take long, an image or a hook, and no call that makes or starts a container:

        the runtime goes on with a call that its client gave up, and who removes the container meets it half-started.
        """
        self._machine = machine
        self._state = state
        self._root = root
        self._interrupt = interrupt

    async def start(
        self, order: ContainerStart, observed: ObservedPod, sandbox: ObservedSandbox, config: api_pb2.PodSandboxConfig
    ) -> None:
        """Failures end up in the pod's state; of a pod that is to end meanwhile nothing is started any more.

        Raises Retryable only where the runtime is away.
        """
        container = self._state.container(order.name)
        assert container is not None, "the planner only starts what the spec names"
        about = self._reference(container)
        self._count_restart(order, observed)
        try:
            container_id = order.resume_id or await self._create(container, order.attempt, about, observed, config)
            if container_id is None:
                return
            await self._run(container, order.attempt, container_id, about, sandbox)
        except Permanent as error:
            self._failed(container, about, error.reason or "RunContainerError", str(error))
        except (Conflict, NotFound) as error:
            self._failed(container, about, "CreateContainerError", str(error))
        else:
            self._state.failures.pop(container.name, None)
            self._state.retries.pop(container.name, None)

    def refuse(self, order: ContainerStart, error: Permanent) -> None:
        """The container cannot be started in this sandbox: say so, and try it later."""
        container = self._state.container(order.name)
        assert container is not None, "the planner only starts what the spec names"
        self._failed(container, self._reference(container), error.reason or "CreateContainerConfigError", str(error))

    def _count_restart(self, order: ContainerStart, observed: ObservedPod) -> None:
        newest = observed.newest(order.name)
        ended_at = self._state.ended_at.get(newest.id) if newest else None
        if newest is None or ended_at is None or order.resume_id is not None or order.name in self._state.failures:
            return
        if newest.id in self._state.replaced:
            ended_at = end_before(observed, newest, self._state.ended_at)
        if ended_at is not None:
            container = self._state.container(order.name)
            same = container is not None and newest.spec_hash == spec_hash(container)
            before = self._state.backoffs.get(order.name) if same else None
            self._state.backoffs[order.name] = raised(before, ended_at, self._machine.monotonic())

    async def _create(
        self,
        container: Container,
        attempt: int,
        about: ObjectReference,
        observed: ObservedPod,
        config: api_pb2.PodSandboxConfig,
    ) -> str | None:
        """The new container's ID; None where the pod is to end instead."""
        machine, sandbox = self._machine, observed.sandbox
        assert sandbox is not None, "the planner starts containers only in a sandbox that is up"
        async with self._interrupt.scope() as scope:
            request = await self._prepare(container, attempt, about, sandbox, config, _target_id(container, observed))
        if scope.interrupted:
            return None
        async with machine.starts.begun:
            if self._state.stop is not None:
                return None
            try:
                with machine.observer.making(self._state.pod.uid) as listed:
                    container_id = await machine.runtime.create_container(sandbox.id, request, config)
                    listed.add_container(container_id, sandbox.id, request)
            except Permanent as error:
                raise Permanent(error.reason or "CreateContainerError", str(error)) from error
        self._state.sizes[container_id] = resized(container)
        machine.events.record(about, "Normal", "Created", f"Container created: {container.name}")
        return container_id

    async def _prepare(
        self,
        container: Container,
        attempt: int,
        about: ObjectReference,
        sandbox: ObservedSandbox,
        config: api_pb2.PodSandboxConfig,
        target_id: str,
    ) -> api_pb2.ContainerConfig:
        machine, state = self._machine, self._state
        if attempt > 0 or container.name in state.failures or isinstance(container, EphemeralContainer):
            # The first try uses what the volumes were set up with; a later one must see what changed since, and who
            # was added to the pod later what it refers to.
            machine.objects.retain(state.pod.uid, {*references(state.pod), *state.referenced.objects})
            state.referenced = await self._fetch()
        image = await ensure_image(machine, state, container, about, config)
        images = await image_mounts(machine, state, container, config)
        devices = await given_devices(machine, state.pod, container)
        node = self._node(sandbox)
        env_files = await self._env_files(container)
        env = build_env(state.pod, container, state.referenced, node, env_files)
        self._notice(env.notices, about)
        try:
            known = {**devices.env, **dict(env.env)}
            files = replace(await self._files(container, known, sandbox), images=images, devices=devices)
        except Retryable as error:
            raise Permanent("CreateContainerConfigError", str(error)) from error
        request = translate.container_config(
            state.pod, container, attempt, image, env.env, files, machine.translate_for(state.pod.uid), target_id
        )
        if is_scripts(state.pod):
            request = await machine.scripts.prepare(request, state.pod, container)
        return request

    async def _env_files(self, container: Container) -> EnvFiles:
        if not any(variable.valueFrom is not None and variable.valueFrom.fileKeyRef for variable in container.env):
            return {}
        return await asyncio.to_thread(read_env_files, container, self._state.volume_paths or {})

    async def _fetch(self) -> Referenced:
        try:
            return await fetch(self._state.pod, self._machine.objects, self._machine.tokens)
        except Retryable as error:
            raise Permanent("CreateContainerConfigError", str(error)) from error

    async def _run(
        self, container: Container, attempt: int, container_id: str, about: ObjectReference, sandbox: ObservedSandbox
    ) -> None:
        machine, state = self._machine, self._state
        async with machine.starts.begun:
            if state.stop is not None:
                return
            await machine.runtime.start_container(container_id)
        machine.events.record(about, "Normal", "Started", f"Container started: {container.name}")
        try:
            await asyncio.to_thread(machine.log_files.make_link, state.pod, container.name, attempt, container_id)
        except OSError as error:
            # The log is there; only who looks for it by its link misses it.
            logger.bind(pod=state.pod.full_name, container=container.name).warning("no link to the log: {}", error)
        pod_ip = self._pod_ip(sandbox)
        if container.lifecycle is not None and container.lifecycle.postStart is not None:
            state.post_starting[container_id] = Health(started=False, ready=False)
            try:
                async with self._interrupt.scope() as scope:
                    await machine.hooks.post_start(Target(state.pod, container, container_id, pod_ip))
                if scope.interrupted:
                    return
            except Permanent:
                # What the hook printed may be secret: the log has it, the event has not.
                failed = "FailedPostStartHook"
                state.post_starting[container_id] = Health(started=False, ready=False, failed=failed)
                return
            del state.post_starting[container_id]
        machine.prober.start(state.pod, container, container_id, pod_ip)

    async def _files(
        self, container: Container, env: dict[str, str], sandbox: ObservedSandbox
    ) -> translate.ContainerFiles:
        state = self._state
        volumes = state.volume_paths or {}
        sub_paths: dict[int, Path] = {}
        for index, mount in enumerate(container.volumeMounts):
            path = translate.sub_path(mount, env)
            if path and mount.name in volumes:
                sub_paths[index] = await self._machine.volumes.prepare_subpath(
                    state.pod, container.name, index, mount.name, volumes[mount.name], path
                )
        last_words = termination_log(self._root, state.pod.uid, container.name, secrets.token_hex(4))
        hosts = etc_hosts(self._root, state.pod.uid)
        with on_disk("cannot write the container's files"):
            await asyncio.to_thread(self._write_files, container, last_words, hosts, sandbox)
        return translate.ContainerFiles(
            volumes=volumes,
            sub_paths=sub_paths,
            hosts=hosts,
            termination_log=last_words if container.terminationMessagePath else None,
        )

    def _write_files(self, container: Container, last_words: Path, hosts: Path, sandbox: ObservedSandbox) -> None:
        self._machine.log_files.make_container_folder(self._state.pod, container.name)
        last_words.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        last_words.touch()
        # Whoever the container runs as must be able to write its last words.
        last_words.chmod(0o666)
        name = pod_hostname(self._state.pod, self._machine.translate.cluster_domain)
        node_hosts = NODE_HOSTS.read_text(errors="replace") if NODE_HOSTS.exists() else ""
        hosts.write_text(hosts_file(self._state.pod, name, sandbox.ips, node_hosts))
        hosts.chmod(0o644)

    def _node(self, sandbox: ObservedSandbox) -> NodeContext:
        own = self._machine.node
        return replace(own, pod_ips=pod_addresses(self._state.pod, sandbox.ips, own.host_ips))

    def _pod_ip(self, sandbox: ObservedSandbox) -> str:
        return next(iter(self._node(sandbox).pod_ips), "")

    def _failed(self, container: Container, about: ObjectReference, reason: str, message: str) -> None:
        machine, state = self._machine, self._state
        known = state.failures.get(container.name)
        now = machine.monotonic()
        match reason:
            case _ if reason in PULL_REASONS:
                retry_at = now + IMAGE_PULL_NOTICE_S
            case "ImagePullBackOff":
                retry_at = now + self._pull_wait(container, now)
            case _:
                retry_at = now + state.next_retry(container.name)
        state.failures[container.name] = Failure(reason, message, retry_at)
        if known is None or (known.reason, known.message) != (reason, message):
            machine.events.record(about, "Warning", "Failed", f"Error: {_event_text(reason, message)}")

    def _pull_wait(self, container: Container, now: float) -> float:
        """Of the image that waits: the container's own, or one that it mounts."""
        mounted = {mount.name for mount in container.volumeMounts}
        volumes = (v.image.reference for v in self._state.pod.spec.volumes if v.image and v.name in mounted)
        backoffs = (
            self._state.image_backoffs.get(self._machine.rewrites.name(name)) for name in (container.image, *volumes)
        )
        return max((ready_at(one, one.updated_at) - now for one in backoffs if one is not None), default=0.0)

    def _notice(self, notices: tuple[Notice, ...], about: ObjectReference) -> None:
        for notice in notices:
            self._machine.events.record(about, "Warning", notice.reason, notice.message)

    def _reference(self, container: Container) -> ObjectReference:
        part = self._state.pod.spec.part_of(container.name)
        return ObjectReference.of(self._state.pod, f"spec.{part}{{{container.name}}}")


def _target_id(container: Container, observed: ObservedPod) -> str:
    """Of the container whose processes this one is to see; empty where it names none. Raises Permanent."""
    if not isinstance(container, EphemeralContainer) or not container.targetContainerName:
        return ""
    target = observed.newest(container.targetContainerName)
    if target is None:
        wanted = container.targetContainerName
        raise Permanent("CreateContainerConfigError", f"unable to find target container {wanted}")
    return target.id


def _event_text(reason: str, message: str) -> str:
    """Image waits are named by their reason alone: the pull's own event told the details."""
    return reason if reason in IMAGE_REASONS else message
