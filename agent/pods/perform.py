"""Perform the planner's actions for one pod: the one place where a pod's decisions become effects.

In: the actions of one plan, which do not depend on each other, and the pod as it was observed. Out: a changed machine,
and the pod's state saying what did not work. Raises Retryable where the runtime is away: the worker looks again later.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import assert_never

from loguru import logger

from agent.cri._generated import api_pb2
from agent.errors import Conflict, Forbidden, NotFound, Permanent, Retryable
from agent.model.action import (
    Action,
    CreateSandbox,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    SetUpVolumes,
    StartContainers,
    StopSandbox,
    TearDownVolumes,
)
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.model.storage import CSIDriver
from agent.pods.admission.claim import host_ports
from agent.pods.cgroups import pod_cgroup_parent
from agent.pods.ending import ContainerEnder
from agent.pods.garbage.traces import remove_traces, unless_gone
from agent.pods.interrupt import Interrupt
from agent.pods.knowledge import Failure
from agent.pods.machine import Machine
from agent.pods.missing import missing_objects
from agent.pods.on_disk import on_disk
from agent.pods.pod_state import PodState
from agent.pods.qos import qos_class
from agent.pods.references import MISSING, fetch, references, token_requests
from agent.pods.runtime_class import runtime_handler
from agent.pods.sandbox_profile import keep_profile
from agent.pods.start import ContainerStarter
from agent.pods.translate.sandbox import sandbox
from agent.pods.volumes.csi import REPUBLISH_S

TOKEN_LIFE_USED = 0.8
"""A token in a volume is replaced after this part of its life."""
CLAIM_RETRY_S = 5.0
"""No watch tells that a claim was bound: it is asked for this often at least."""


class Performer:
    def __init__(self, machine: Machine, state: PodState, root: Path, interrupt: Interrupt) -> None:
        self._machine = machine
        self._state = state
        self._interrupt = interrupt
        self._starter = ContainerStarter(machine, state, root, interrupt)
        self._ender = ContainerEnder(machine, state, root, interrupt)
        self._log = logger.bind(pod=state.pod.full_name)

    async def perform(self, actions: tuple[Action, ...], observed: ObservedPod) -> None:
        """All at the same time. Raises Retryable: one of them met a runtime that is away, the others are through."""
        self._ender.expect(a for a in actions if isinstance(a, KillContainer))
        if len(actions) == 1:
            await self._one(actions[0], observed)
            return
        results = await asyncio.gather(*(self._one(a, observed) for a in actions), return_exceptions=True)
        errors = [r for r in results if isinstance(r, BaseException)]
        for error in errors:
            if not isinstance(error, Retryable):
                raise error
        if errors:
            raise errors[0]

    async def _one(self, action: Action, observed: ObservedPod) -> None:
        match action:
            case CreateSandbox():
                await self._create_sandbox(action)
            case StopSandbox():
                await self._take_down(action.sandbox_id)
            case RemoveSandbox():
                await self._remove_sandbox(action.sandbox_id, observed)
            case SetUpVolumes():
                await self._set_up_volumes()
            case TearDownVolumes():
                await self._tear_down_volumes()
            case StartContainers():
                await self._start_containers(action, observed)
            case KillContainer():
                await self._ender.end(action, observed)
            case RemoveContainer():
                await self._remove_container(action, observed)
            case _:
                assert_never(action)

    async def refresh_volumes(self) -> None:
        """Write what changed in the pod's ConfigMaps, Secrets, tokens and labels into its volumes."""
        state, machine = self._state, self._machine
        state.refresh_at = None
        try:
            if not await self._fetched():
                return
            await machine.volumes.refresh(state.pod, state.referenced, machine.node)
        except (Retryable, Permanent) as error:
            self._event("Warning", "FailedMount", str(error))
            state.refresh_at = machine.monotonic() + state.next_retry("refresh")
            return
        state.retries.pop("refresh", None)
        self._date_refresh()

    async def remove_traces(self, observed: ObservedPod) -> None:
        """Of a pod that has ended: everything but its status and its cgroup. Raises Retryable."""
        await remove_traces(self._machine, self._state.pod, observed)

    async def remove_cgroup(self) -> None:
        """Once nothing of the pod runs any more. Raises Retryable."""
        machine, pod = self._machine, self._state.pod
        # The runtime takes folders away at the same time.
        with on_disk("cannot remove the cgroup"):
            await asyncio.to_thread(machine.cgroups.remove_pod, pod, machine.gate.burstable_milli_cpu(without=pod.uid))

    def sandbox_config(self, attempt: int) -> api_pb2.PodSandboxConfig:
        """The sandbox's configuration, the same for the same attempt. Raises Permanent."""
        return self._translated(attempt)[0]

    def _translated(self, attempt: int) -> tuple[api_pb2.PodSandboxConfig, list[tuple[str, str]]]:
        pod, machine = self._state.pod, self._machine
        parent = pod_cgroup_parent(pod.uid, qos_class(pod), machine.cgroups.driver, machine.cgroups.root)
        policies = machine.policing.of(pod)
        made = sandbox(pod, attempt, parent, self._state.seen_at, machine.translate_for(pod.uid), policies)
        return made.config, [(notice.reason, notice.message) for notice in made.notices]

    async def _create_sandbox(self, action: CreateSandbox) -> None:
        state, machine = self._state, self._machine
        try:
            if action.replaces is not None:
                self._event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
                if self._is_in_the_way():
                    await self._take_down(action.replaces)
            handler = await runtime_handler(state.pod, machine.objects)
            await machine.users.take(state.pod, handler)
            await machine.look_at_resolver()
            config, notices = self._translated(action.attempt)
            if action.attempt == 0:
                for reason, message in notices:
                    self._event("Warning", reason, message)
            with on_disk("cannot make the log folder or cgroup"):
                await asyncio.to_thread(self._make_place, machine.gate.burstable_milli_cpu())
            if machine.networking is not None:
                await machine.networking.prepare(state.pod)
            async with machine.starts.new:
                if state.stop is not None:
                    return
                state.last_sandbox_attempt = action.attempt
                with machine.observer.making(state.pod.uid) as listed:
                    listed.add_sandbox(await machine.runtime.run_pod_sandbox(config, handler), config)
        except (Permanent, Conflict, NotFound, Retryable) as error:
            wait = state.next_retry("sandbox")
            state.pod_failure = Failure("FailedCreatePodSandBox", str(error), machine.monotonic() + wait)
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            return
        state.pod_failure = None
        state.retries.pop("sandbox", None)

    async def _take_down(self, sandbox_id: str) -> None:
        with self._machine.observer.ending(sandbox_id):
            await unless_gone(self._machine.runtime.stop_pod_sandbox(sandbox_id))
        self._state.taken_down.add(sandbox_id)

    async def _remove_sandbox(self, sandbox_id: str, observed: ObservedPod) -> None:
        machine = self._machine
        containers = (c.id for c in (*observed.containers, *observed.abandoned) if c.sandbox_id == sandbox_id)
        machine.observer.doubt(self._state.pod.uid)
        with machine.observer.ending(sandbox_id, *containers):
            await unless_gone(machine.runtime.remove_pod_sandbox(sandbox_id))

    def _is_in_the_way(self) -> bool:
        """Whether the network of the pod's dead sandbox must go before the next one comes.

        It has the pod's address or ports of the host, or there was no room beside it. Else it goes when nothing starts,
        for that costs nearly as much as a start.
        """
        pod, machine = self._state.pod, self._machine
        keeps_address = machine.policing.of(pod).fixed_ip is not None
        return keeps_address or any(host_ports(pod)) or self._state.pod_failure is not None

    def _make_place(self, burstable_milli_cpu: int) -> None:
        """What must be there before the sandbox; blocks for moments."""
        keep_profile(self._machine.translate.sandbox_seccomp)
        self._machine.log_files.make_pod_folder(self._state.pod)
        self._machine.cgroups.make_pod(self._state.pod, burstable_milli_cpu)

    async def _set_up_volumes(self) -> None:
        state, machine = self._state, self._machine
        pod = state.pod
        # What references lead to is known from an earlier try, or after this one.
        machine.objects.retain(pod.uid, {*references(pod), *state.referenced.objects})
        state.volumes_mounted = True
        try:
            if not await self._fetched():
                return
            machine.objects.retain(pod.uid, {*references(pod), *state.referenced.objects})
            self._say_missing()
            paths = await machine.volumes.set_up(pod, state.referenced, machine.node)
            async with self._interrupt.scope():
                if state.stop is None:
                    await machine.volumes.bring(pod, state.referenced, machine.node)
            if state.stop is not None:
                return
            state.volume_paths = paths
        except (Retryable, Permanent, Forbidden) as error:
            wait = min(state.next_retry("volumes"), CLAIM_RETRY_S if _claims(pod) else math.inf)
            state.volume_failure = Failure("FailedMount", str(error), machine.monotonic() + wait)
            self._event("Warning", "FailedMount", str(error))
            return
        state.volume_failure = None
        state.retries.pop("volumes", None)
        self._date_refresh()

    async def _fetched(self) -> bool:
        """Have what the pod refers to; False where it is to end instead, and waits for no API server."""
        state, machine = self._state, self._machine
        async with self._interrupt.scope():
            if state.stop is None:
                state.referenced = await fetch(state.pod, machine.objects, machine.tokens)
        return state.stop is None

    def _say_missing(self) -> None:
        """Once: what a volume or a container cannot do without it says itself, again and again."""
        state = self._state
        absent = {key for key, found in state.referenced.objects.items() if found is MISSING}
        for one in missing_objects(state.pod, absent):
            if one.message not in state.missed:
                state.missed.add(one.message)
                self._event("Warning", one.reason, one.message)

    def _date_refresh(self) -> None:
        """When the first of the pod's tokens has used up most of its life, or a driver wants to be asked again."""
        wall, now = self._machine.wall(), self._machine.monotonic()
        asked = token_requests(self._state.pod)
        # No longer than was asked for: to a clock that is years behind every token seems to live for years.
        lives = [
            min(token.expires_at - wall, asked[key].expirationSeconds)
            for key, token in self._state.referenced.tokens.items()
            if token is not MISSING and key in asked
        ]
        waits = [max(30.0, min(lives) * TOKEN_LIFE_USED)] if lives else []
        if any(
            isinstance(held, CSIDriver) and held.spec.requiresRepublish
            for held in self._state.referenced.objects.values()
        ):
            waits.append(REPUBLISH_S)
        self._state.refresh_at = now + min(waits) if waits else None

    async def _tear_down_volumes(self) -> None:
        state = self._state
        try:
            await self._machine.scripts.release(state.pod.uid)
            await self._machine.volumes.tear_down(state.pod.uid)
        except Retryable as error:
            self._event("Warning", "FailedUnmount", str(error))
            raise
        state.volumes_mounted = False
        state.volume_paths = None

    async def _start_containers(self, action: StartContainers, observed: ObservedPod) -> None:
        into = observed.sandbox
        assert into is not None, "the planner starts containers only in a sandbox that is up"
        try:
            config = self.sandbox_config(into.attempt)
        except Permanent as error:
            for order in action.starts:
                self._starter.refuse(order, error)
            return
        for order in action.starts:
            await self._starter.start(order, observed, into, config)
            if self._state.stop is not None:
                return

    async def _remove_container(self, action: RemoveContainer, observed: ObservedPod) -> None:
        machine = self._machine
        machine.observer.doubt(self._state.pod.uid)
        with machine.observer.ending(action.container_id):
            await machine.runtime.remove_container(action.container_id)
        for dead in (*observed.containers, *observed.abandoned):
            if dead.id == action.container_id and not action.keep_log:
                files = machine.log_files
                with on_disk("cannot remove the log"):
                    await asyncio.to_thread(files.remove_run, self._state.pod, dead.name, dead.attempt, dead.id)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._machine.events.record(ObjectReference.of(self._state.pod), kind, reason, message)


def _claims(pod: Pod) -> bool:
    return any(volume.claim_name(pod.metadata.name) is not None for volume in pod.spec.volumes)
