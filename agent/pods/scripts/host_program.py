"""Translate a pod of host programs: a view of it that every other part takes as an ordinary pod, and its mounts.

In: the pod, and what the machine's root folder holds. Out: the pod with the host's network, processes and rights, and
its containers' CRI configurations with the host's folders. What such a pod cannot have is told by field path. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import msgspec
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.model import labels
from agent.model.container import Container, PodSecurityContext, SecurityContext
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.pods.scripts.kind import HOST_IMAGE, is_scripts
from agent.pods.support import Refusal

SHELL: Final = ("bash", "-c")
HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"
HOSTNAME: Final = "/etc/hostname"

_WHY: Final = "a host program has the rights that its user has on the host"
_CONFINEMENTS: Final = (
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "seccompProfile",
    "appArmorProfile",
    "seLinuxOptions",
)
"""Fields of a security context that would be without effect; the rest says who the program runs as."""


class HostFolder(msgspec.Struct, frozen=True):
    path: str
    propagates: bool
    """It lies on a shared mount: what is mounted or unmounted on the host later is seen in the container."""


class Account(msgspec.Struct, frozen=True):
    """What the host's user database says of a user."""

    group: int
    groups: tuple[int, ...]


class Host(msgspec.Struct, frozen=True):
    folders: tuple[HostFolder, ...]
    """To bind, each at its own path. Its parent comes before a folder."""
    files: tuple[str, ...] = ()
    """Those of /etc/hosts, /etc/hostname and /etc/resolv.conf that exist."""
    account: Account | None = None
    """Of the user that the container runs as, where it is not root."""


def refusals(pod: Pod) -> tuple[Refusal, ...]:
    """What the pod asks and a host program cannot have."""
    return tuple(_refusals(pod))


def host_view(pod: Pod) -> Pod:
    """The pod as the rest of the agent sees it."""
    spec = msgspec.structs.replace(
        pod.spec,
        hostNetwork=True,
        hostPID=True,
        hostIPC=True,
        shareProcessNamespace=False,
        containers=tuple(_view(container) for container in pod.spec.containers),
        initContainers=tuple(_view(container) for container in pod.spec.initContainers),
        # Who may debug a pod may not therefore run programs on the host.
        ephemeralContainers=(),
    )
    return msgspec.structs.replace(pod, spec=spec)


def host_record(record: PodRecord) -> PodRecord:
    """The record with the view in it, where the pod is one of host programs. The raw object stays as it came."""
    return replace(record, pod=host_view(record.pod)) if is_scripts(record.pod) else record


def user(pod: Pod, container: Container) -> int | None:
    """runAsUser: the container's, else the pod's."""
    own, of_pod = container.securityContext, pod.spec.securityContext
    if own is not None and own.runAsUser is not None:
        return own.runAsUser
    return of_pod.runAsUser if of_pod is not None else None


def with_host(config: api_pb2.ContainerConfig, pod: Pod, container: Container, host: Host) -> api_pb2.ContainerConfig:
    """An ordinary configuration of the pod's view, with the host's folders under the pod's own mounts."""
    made = api_pb2.ContainerConfig()
    made.CopyFrom(config)
    asked = {plain_path(mount.mountPath) for mount in container.volumeMounts}
    mounts = [m for m in config.mounts if plain_path(m.container_path) in asked or _keeps(m.container_path, pod)]
    taken = {plain_path(mount.container_path) for mount in mounts}
    del made.mounts[:]
    made.mounts.extend(_binds(pod, host, taken))
    made.mounts.extend(mounts)
    made.annotations[labels.HOST] = "true"
    if host.account is not None:
        security = made.linux.security_context
        if not security.HasField("run_as_group"):
            security.run_as_group.value = host.account.group
        security.supplemental_groups.extend(g for g in host.account.groups if g not in security.supplemental_groups)
    return made


def mountpoints(config: api_pb2.ContainerConfig, host: Host) -> tuple[str, ...]:
    """Paths inside the host's folders that the runtime would make for this container: the mounts of the pod's own
    volumes, and the working folder. Whoever starts it makes those that are missing, and takes them away afterwards.
    """
    bound = {folder.path for folder in host.folders} | set(host.files)
    paths = {plain_path(mount.container_path): mount.host_path for mount in config.mounts}
    own = {path for path, source in paths.items() if path not in bound or source != path}
    # What lies in another volume of the pod is made there by the runtime, as for every container.
    wanted = [path for path in sorted(own - bound) if _inside(path, bound) and not _inside(path, own)]
    folder = plain_path(config.working_dir)
    if _inside(folder, bound) and not any(_within(folder, path) for path in own):
        wanted.append(folder)
    return tuple(dict.fromkeys(wanted))


def _refusals(pod: Pod) -> Iterator[Refusal]:
    if pod.spec.runtimeClassName:
        yield Refusal("spec.runtimeClassName", "a host program runs with the runtime's default handler")
    if pod.spec.hostUsers is False:
        yield Refusal("spec.hostUsers", _WHY)
    of_pod = pod.spec.securityContext or PodSecurityContext()
    for name in ("seccompProfile", "appArmorProfile", "seLinuxOptions"):
        if getattr(of_pod, name) is not None:
            yield Refusal(f"spec.securityContext.{name}", _WHY)
    for part, containers in (("initContainers", pod.spec.initContainers), ("containers", pod.spec.containers)):
        for index, container in enumerate(containers):
            path = f"spec.{part}[{index}]"
            if not container.command and not container.args:
                yield Refusal(path, "a host program needs command or args")
            own = container.securityContext or SecurityContext()
            for name in _CONFINEMENTS:
                asked = getattr(own, name)
                if asked is not None and (name, asked) != ("privileged", True):
                    yield Refusal(f"{path}.securityContext.{name}", _WHY)
            for number, mount in enumerate(container.volumeMounts):
                if plain_path(mount.mountPath) == "/":
                    yield Refusal(f"{path}.volumeMounts[{number}].mountPath", "a host program's root is the host's")


def _view(container: Container) -> Container:
    security = container.securityContext or SecurityContext()
    return msgspec.structs.replace(
        container,
        image=HOST_IMAGE,
        imagePullPolicy="Never",
        command=container.command or SHELL,
        terminationMessagePath="",
        securityContext=msgspec.structs.replace(security, privileged=True, procMount="Unmasked"),
    )


def _keeps(path: str, pod: Pod) -> bool:
    """The one file that the agent writes for every container stays only where the pod adds something to it."""
    return path == HOSTS and bool(pod.spec.hostAliases)


def _binds(pod: Pod, host: Host, taken: set[str]) -> Iterator[api_pb2.Mount]:
    for folder in host.folders:
        if folder.path not in taken and not _inside(folder.path, taken):
            propagation = api_pb2.PROPAGATION_HOST_TO_CONTAINER if folder.propagates else api_pb2.PROPAGATION_PRIVATE
            yield api_pb2.Mount(container_path=folder.path, host_path=folder.path, propagation=propagation)
    # The runtime mounts files of its own at these paths unless it is told others.
    own_resolver = pod.spec.dnsConfig is not None or pod.spec.dnsPolicy in ("None", "ClusterFirstWithHostNet")
    for file in host.files:
        if file in taken or "/etc" in taken or (file == RESOLV_CONF and own_resolver):
            continue
        yield api_pb2.Mount(container_path=file, host_path=file)


def plain_path(path: str) -> str:
    """Without what does not count: /a//b/./c/ is /a/b/c."""
    parts: list[str] = []
    for part in PurePosixPath("/", path).parts[1:]:
        if part == "..":
            del parts[-1:]
        else:
            parts.append(part)
    return "/" + "/".join(parts)


def _inside(path: str, folders: set[str]) -> bool:
    return any(_within(path, folder) and path != folder for folder in folders)


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
