"""Build what the pod workers share, once the runtime answers. The containerd provider's composition, no behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from loguru import logger

from agent.config import Settings
from agent.cri.arrivals import Arrivals
from agent.cri.image_import import ImageImport
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.node.facts import hugepages
from agent.pods import cgroups
from agent.pods.admission.gate import Gate
from agent.pods.cgroup_limits import CgroupRules
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.cgroups import CgroupDriver
from agent.pods.downward import NodeContext
from agent.pods.garbage.kept import KeptPods
from agent.pods.hooks import Hooks
from agent.pods.image_access import Verification
from agent.pods.image_rewrites import Rewrites
from agent.pods.injected_api import InjectedApi
from agent.pods.knowledge import Retention
from agent.pods.last_words import last_words
from agent.pods.logfiles import LogFiles
from agent.pods.machine import Machine
from agent.pods.network.networking import PodNetworking
from agent.pods.observe import Observer
from agent.pods.ports import Attachments, CredentialSources, Drivers, Logins, Wake
from agent.pods.probes.attempt import Attempts
from agent.pods.probes.http import HttpGetter
from agent.pods.probes.prober import Prober
from agent.pods.pull_records import PullRecords
from agent.pods.pulls import PullGate
from agent.pods.scripts.allowed import ScriptRules
from agent.pods.scripts.empty_image import EmptyImage
from agent.pods.scripts.mountpoints import Mountpoints
from agent.pods.scripts.scripts import Scripts
from agent.pods.silence import Silence
from agent.pods.translate.resources import hugetlb_size
from agent.pods.turns import StartTurns
from agent.pods.user_namespaces import UserNamespaces
from agent.pods.volumes.csi import CsiVolumes
from agent.pods.volumes.mounts import Mounts
from agent.pods.volumes.pod_volumes import PodVolumes
from agent.providers.contract import ProviderContext
from agent.providers.runtime_health import cgroup_driver
from agent.providers.translate_facts import translate_context

REGISTRY_FOLDERS = "registries/folders"
"""Key of the record: the folders that files of ours for containerd may be in."""
Csi = tuple[Drivers, Attachments]
"""What CSI volumes are brought by."""


class WorkerParts:
    """Parts of the machine that own tasks or connections: open as long as the provider runs."""

    def __init__(
        self, runtime: RuntimeClient, context: ProviderContext, wake: Wake, is_here: Callable[[str], bool]
    ) -> None:
        """`is_here`: the pod of this UID is not gone yet."""
        self._runtime = runtime
        self._events = context.events
        self._wake = wake
        settings = context.settings
        self.networking = PodNetworking(
            runtime,
            context.policing,
            context.events,
            context.store,
            settings.node_name,
            is_here,
            settings.fixed_ip_retention,
            context.clock.wall,
        )
        self._stack = AsyncExitStack()
        self.prober: Prober
        self.hooks: Hooks

    async def __aenter__(self) -> Self:
        http = await self._stack.enter_async_context(HttpGetter())
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.prober = Prober(tasks, Attempts(self._runtime, http), self._events, self._wake)
        self.hooks = Hooks(self._runtime, http, self._events)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.prober.close()
        return await self._stack.__aexit__(kind, error, trace)


def credential_sources(settings: Settings) -> tuple[CredentialSources | None, Logins | None]:
    """Programs that give credentials, and the node's own logins. Raises ConfigError."""
    return _credential_plugins(settings), _registry_logins(settings)


def _registry_logins(settings: Settings) -> Logins | None:
    if not settings.registries and settings.registry_auth_file is None:
        return None
    from agent.pods.registry_credentials import RegistryCredentials
    from agent.providers.containerd_registries import check_files

    check_files(settings.registries)
    return RegistryCredentials(settings.registries, settings.registry_auth_file)


def _credential_plugins(settings: Settings) -> CredentialSources | None:
    """What `--image-credential-provider-config` asks for. Raises ConfigError."""
    config, programs = settings.image_credential_provider_config, settings.image_credential_provider_bin_dir
    if config is None or programs is None:
        return None
    # Few nodes have any: the others need not hold the code.
    from agent.pods.credential_config import read_providers
    from agent.pods.credential_plugins import CredentialPlugins

    return CredentialPlugins(read_providers(config, programs))


async def apply_registries(context: ProviderContext, runtime: RuntimeClient, tasks: asyncio.TaskGroup) -> None:
    """Before the first pull, and as long as it takes. Nothing, where nothing is said of registries and nothing was."""
    try:
        if not context.settings.registries and await context.store.get(REGISTRY_FOLDERS) is None:
            return
    except Retryable as error:
        logger.warning("whether something was said of registries is not known: {}", error)
        return
    from agent.providers.containerd_registries import ContainerdRegistries

    registries = ContainerdRegistries(context.settings, context.store, runtime, context.events)
    await registries.first()
    tasks.create_task(registries.run(), name="registries")


async def _pull_records(context: ProviderContext, images: ImageClient) -> PullRecords:
    """Raises Retryable while the runtime does not answer."""
    settings = context.settings
    policy = Verification(settings.image_pull_credentials_verification_policy)
    records = PullRecords(context.store, policy, settings.preloaded_images_verification_allowlist)

    async def present() -> list[str]:
        return [image.id for image in await images.list_images()]

    await records.load(present)
    return records


async def build_machine(
    context: ProviderContext,
    runtime: RuntimeClient,
    images: ImageClient,
    log_files: LogFiles,
    parts: WorkerParts,
    gate: Gate,
    users: UserNamespaces,
    kept: KeptPods,
    plugins: CredentialSources | None = None,
    logins: Logins | None = None,
    csi: Csi | None = None,
) -> Machine:
    """Raises Retryable while the runtime does not answer."""
    settings = context.settings
    volumes = PodVolumes(
        settings.root_dir,
        csi=None if csi is None else _csi_volumes(context, csi),
        node=None if context.node is None else context.node.facts,
    )
    await volumes.recall()
    await parts.networking.load()
    return Machine(
        runtime=runtime,
        images=images,
        observer=Observer(runtime, settings.node_name, last_words),
        objects=context.objects,
        tokens=context.tokens,
        events=context.events,
        volumes=volumes,
        prober=parts.prober,
        hooks=parts.hooks,
        log_files=log_files,
        scripts=Scripts(
            rules=ScriptRules(settings.scripts_enabled, settings.scripts_namespaces, settings.scripts_service_accounts),
            image=EmptyImage(images, ImageImport(images.channel)),
            made=Mountpoints(settings.root_dir),
        ),
        gate=gate,
        devices=gate.devices,
        users=users,
        translate=await translate_context(context, runtime, log_files.pods),
        resolv_conf=settings.resolv_conf,
        node=NodeContext(
            settings.node_name,
            context.node_ips,
            allocatable=context.facts.allocatable,
            api=_injected_api(settings),
        ),
        cgroups=await _cgroups(context, runtime, gate),
        starts=StartTurns(settings.parallel_starts, context.rush),
        retention=Retention(settings.maximum_dead_containers_per_container, settings.minimum_container_ttl_duration),
        rewrites=Rewrites(settings.image_rewrites),
        policing=context.policing,
        offline_images=settings.offline_images == "present",
        pulls=PullGate(settings.max_parallel_image_pulls, settings.registry_qps, settings.registry_burst),
        silence=Silence(Arrivals(images.channel)),
        access=await _pull_records(context, images),
        logins=logins,
        plugins=plugins,
        networking=parts.networking,
        kept=kept,
        wall=context.clock.wall,
        since=context.clock.since,
    )


async def _cgroups(context: ProviderContext, runtime: RuntimeClient, gate: Gate) -> CgroupTree:
    """Raises Retryable."""
    settings = context.settings
    driver = CgroupDriver(settings.cgroup_driver) if settings.cgroup_driver else await cgroup_driver(runtime)
    rules = CgroupRules(
        cpu_quota=settings.cpu_cfs_quota,
        pod_pids=settings.pod_max_pids,
        protect_memory=settings.memory_qos and settings.memory_reservation_policy == "TieredReservation",
        hugepage_sizes=tuple(hugetlb_size(size) for size in hugepages()),
    )
    facts = context.facts
    tree = CgroupTree(driver, settings.cgroup_root, rules, facts.all_pods, facts.others, cgroups.CGROUP_FS)
    tree.protects(gate.requested_memory)
    return tree


def _injected_api(settings: Settings) -> InjectedApi | None:
    if not settings.inject_local_api or settings.local_api is None:
        return None
    return InjectedApi(*settings.local_api, settings.root_dir / "local-api.crt")


def _csi_volumes(context: ProviderContext, csi: Csi) -> Callable[[Path, Mounts], CsiVolumes]:
    drivers, attachments = csi

    def make(root: Path, mounts: Mounts) -> CsiVolumes:
        node = context.settings.node_name
        return CsiVolumes(root, node, drivers, attachments, context.objects, context.tokens, mounts)

    return make
