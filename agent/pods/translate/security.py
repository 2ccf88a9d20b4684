"""Security contexts: what the pod and the container ask, merged, as CRI messages.

In: pod, container, the user that the image names. Out: the sandbox's and the container's security context. A
container's field wins over the pod's. Refused with the kubelet's reason where the image would break `runAsNonRoot`.
Source: the Kubernetes page "Configure a Security Context", CRI LinuxContainerSecurityContext.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.container import (
    AppArmorProfile,
    Container,
    PodSecurityContext,
    SeccompProfile,
    SecurityContext,
    SELinuxOptions,
)
from agent.model.pod import Pod
from agent.pods.translate.context import USER_NAMESPACE_IDS, TranslateContext

_T = TypeVar("_T")

CREATE_CONFIG = "CreateContainerConfigError"
_MAX_UID = 2**31 - 1
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"

_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class ImageUser(msgspec.Struct, frozen=True):
    """Who the image runs as (CRI Image.uid and Image.username); neither: root."""

    uid: int | None = None
    username: str = ""


def id_mappings(context: TranslateContext) -> list[api_pb2.IDMapping]:
    """Of the pod's user namespace, for users and groups alike; none: the pod has the host's users."""
    if context.first_user_id is None:
        return []
    return [api_pb2.IDMapping(host_id=context.first_user_id, container_id=0, length=USER_NAMESPACE_IDS)]


def namespaces(pod: Pod, context: TranslateContext, target_id: str = "") -> api_pb2.NamespaceOption:
    """`target_id` is the container whose processes are to be seen, where each container has processes of its own."""
    spec = pod.spec
    if spec.hostPID:
        pid = api_pb2.NODE
    elif spec.shareProcessNamespace:
        pid = api_pb2.POD
    elif target_id:
        pid = api_pb2.TARGET
    else:
        pid = api_pb2.CONTAINER
    return api_pb2.NamespaceOption(
        network=api_pb2.NODE if spec.hostNetwork else api_pb2.POD,
        ipc=api_pb2.NODE if spec.hostIPC else api_pb2.POD,
        pid=pid,
        target_id=target_id if pid == api_pb2.TARGET else "",
        userns_options=api_pb2.UserNamespace(
            mode=api_pb2.POD if (ids := id_mappings(context)) else api_pb2.NODE, uids=ids, gids=ids
        ),
    )


def sandbox_security(pod: Pod, context: TranslateContext) -> api_pb2.LinuxSandboxSecurityContext:
    asked = pod.spec.securityContext or PodSecurityContext()
    return api_pb2.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod, context),
        selinux_options=_selinux(asked.seLinuxOptions),
        run_as_user=_int64(asked.runAsUser),
        run_as_group=_int64(asked.runAsGroup),
        supplemental_groups=_supplemental_groups(asked),
        supplemental_groups_policy=_groups_policy(asked),
        privileged=any(_is_privileged(c) for c in pod.spec.all_containers),
        seccomp=_sandbox_seccomp(pod, context),
    )


def _sandbox_seccomp(pod: Pod, context: TranslateContext) -> api_pb2.SecurityProfile:
    """Of the pause process, which needs nothing that the runtime's default profile forbids, whatever the pod asks."""
    if not context.sandbox_seccomp or pod.spec.shareProcessNamespace:
        # The pod's processes could make it do something.
        return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
    return api_pb2.SecurityProfile(
        profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=context.sandbox_seccomp
    )


def container_security(
    pod: Pod, container: Container, user: ImageUser, context: TranslateContext, target_id: str = ""
) -> api_pb2.LinuxContainerSecurityContext:
    """Raises Permanent("CreateContainerConfigError") where a profile is incomplete."""
    of_pod = pod.spec.securityContext or PodSecurityContext()
    own = container.securityContext or SecurityContext()
    run_as_user = _first(own.runAsUser, of_pod.runAsUser)
    from_image = run_as_user is None
    apparmor, apparmor_legacy = _apparmor(pod, container)
    unmasked = own.procMount == "Unmasked"
    return api_pb2.LinuxContainerSecurityContext(
        capabilities=_capabilities(own),
        privileged=bool(own.privileged),
        namespace_options=namespaces(pod, context, target_id),
        selinux_options=_selinux(own.seLinuxOptions or of_pod.seLinuxOptions),
        run_as_user=_int64(_image_uid(user) if from_image else run_as_user),
        run_as_username=user.username if from_image and user.uid is None else "",
        run_as_group=_int64(_first(own.runAsGroup, of_pod.runAsGroup)),
        readonly_rootfs=bool(own.readOnlyRootFilesystem),
        supplemental_groups=_supplemental_groups(of_pod),
        supplemental_groups_policy=_groups_policy(of_pod),
        no_new_privs=own.allowPrivilegeEscalation is False,
        masked_paths=() if unmasked else (*_MASKED_PATHS, *context.masked_paths),
        readonly_paths=() if unmasked else _READONLY_PATHS,
        seccomp=_seccomp(own.seccompProfile or of_pod.seccompProfile, context),
        apparmor=apparmor,
        apparmor_profile=apparmor_legacy,
    )


def check_non_root(pod: Pod, container: Container, user: ImageUser) -> None:
    """Hold `runAsNonRoot`: Permanent("CreateContainerConfigError") where the container would, or might, run as root."""
    of_pod = pod.spec.securityContext or PodSecurityContext()
    own = container.securityContext or SecurityContext()
    if not _first(own.runAsNonRoot, of_pod.runAsNonRoot):
        return
    meta = pod.metadata
    where = f'(pod: "{meta.name}_{meta.namespace}({meta.uid})", container: {container.name})'
    run_as_user = _first(own.runAsUser, of_pod.runAsUser)
    if run_as_user is not None:
        if run_as_user == 0:
            raise Permanent(CREATE_CONFIG, f"container's runAsUser breaks non-root policy {where}")
        return
    uid = _image_uid(user)
    if uid is None:
        raise Permanent(
            CREATE_CONFIG,
            f"container has runAsNonRoot and image has non-numeric user ({user.username}), "
            f"cannot verify user is non-root {where}",
        )
    if uid == 0:
        raise Permanent(CREATE_CONFIG, f"container has runAsNonRoot and image will run as root {where}")
    if not 0 < uid <= _MAX_UID:
        raise Permanent(
            CREATE_CONFIG,
            f"container has runAsNonRoot and image has an invalid user id ({uid}). (Must be 1-({_MAX_UID})): "
            f"must be between 0 and {_MAX_UID}, inclusive {where}",
        )


def _image_uid(user: ImageUser) -> int | None:
    """An image that names nobody runs as root."""
    return 0 if user.uid is None and not user.username else user.uid


def _is_privileged(container: Container) -> bool:
    return container.securityContext is not None and bool(container.securityContext.privileged)


def _supplemental_groups(asked: PodSecurityContext) -> tuple[int, ...]:
    of_volumes = () if asked.fsGroup is None else (asked.fsGroup,)
    return (*of_volumes, *asked.supplementalGroups)


def _groups_policy(asked: PodSecurityContext) -> api_pb2.SupplementalGroupsPolicy:
    match asked.supplementalGroupsPolicy:
        case None | "Merge":
            return api_pb2.Merge
        case "Strict":
            return api_pb2.Strict
        case unknown:
            raise Permanent(CREATE_CONFIG, f"unsupported supplementalGroupsPolicy: {unknown}")


def _capabilities(own: SecurityContext) -> api_pb2.Capability | None:
    if own.capabilities is None:
        return None
    return api_pb2.Capability(add_capabilities=own.capabilities.add, drop_capabilities=own.capabilities.drop)


def _selinux(options: SELinuxOptions | None) -> api_pb2.SELinuxOption | None:
    if options is None:
        return None
    return api_pb2.SELinuxOption(user=options.user, role=options.role, type=options.type, level=options.level)


def _seccomp(profile: SeccompProfile | None, context: TranslateContext) -> api_pb2.SecurityProfile:
    """Where nobody asked: Unconfined, the API's default, or what the node's owner prefers to it."""
    match profile.type if profile else "RuntimeDefault" if context.seccomp_default else "Unconfined":
        case "RuntimeDefault":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
        case "Localhost":
            if profile is None or not profile.localhostProfile:
                raise Permanent(CREATE_CONFIG, "localhostProfile must be set if seccompProfile type is Localhost.")
            return api_pb2.SecurityProfile(
                profile_type=api_pb2.SecurityProfile.Localhost,
                localhost_ref=f"{context.seccomp_root}/{profile.localhostProfile}",
            )
        case "Unconfined":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Unconfined)
        case unknown:
            raise Permanent(CREATE_CONFIG, f"unknown seccomp profile type: {unknown}")


def _apparmor(pod: Pod, container: Container) -> tuple[api_pb2.SecurityProfile | None, str]:
    """The profile, and the same in the older runtimes' form; neither where nobody asked: the runtime decides."""
    own = container.securityContext.appArmorProfile if container.securityContext else None
    of_pod = pod.spec.securityContext.appArmorProfile if pod.spec.securityContext else None
    profile = own or _apparmor_annotation(pod, container) or of_pod
    if profile is None:
        return None, ""
    match profile.type:
        case "RuntimeDefault":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault), "runtime/default"
        case "Unconfined":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Unconfined), "unconfined"
        case "Localhost" if profile.localhostProfile:
            name = profile.localhostProfile
            localhost = api_pb2.SecurityProfile.Localhost
            return api_pb2.SecurityProfile(profile_type=localhost, localhost_ref=name), f"localhost/{name}"
        case "Localhost":
            raise Permanent(CREATE_CONFIG, "missing localhost apparmor profile name")
        case unknown:
            raise Permanent(CREATE_CONFIG, f"unknown apparmor profile type: {unknown}")


def _apparmor_annotation(pod: Pod, container: Container) -> AppArmorProfile | None:
    """How a profile was asked before it had a field; API servers before 1.30 know only this."""
    match (pod.metadata.annotations or {}).get(_APPARMOR_ANNOTATION + container.name, "").partition("/"):
        case ("", _, _):
            return None
        case ("runtime", _, "default"):
            return AppArmorProfile(type="RuntimeDefault")
        case ("unconfined", _, _):
            return AppArmorProfile(type="Unconfined")
        case ("localhost", _, name):
            return AppArmorProfile(type="Localhost", localhostProfile=name)
        case (kind, _, rest):
            return AppArmorProfile(type=f"{kind}/{rest}")


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


def _int64(value: int | None) -> api_pb2.Int64Value | None:
    return None if value is None else api_pb2.Int64Value(value=value)
