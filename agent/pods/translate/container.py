"""A container to its CRI configuration: image, process, environment, mounts, log, resources and security.

In: pod and container, the attempt, what was prepared for it (image, environment, files on the node) and the node's
facts. Out: a ContainerConfig. What the pod asks and cannot have is a Permanent("CreateContainerConfigError").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

import msgspec

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.container import Container
from agent.model.devices import DeviceSettings
from agent.model.pod import Pod
from agent.model.volume import Volume, VolumeMount
from agent.pods.expansion import expand, references
from agent.pods.translate import identity
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.resources import container_resources
from agent.pods.translate.security import CREATE_CONFIG, ImageUser, check_non_root, container_security, id_mappings

HOSTS_PATH = "/etc/hosts"

_PROPAGATION = {
    None: api_pb2.PROPAGATION_PRIVATE,
    "None": api_pb2.PROPAGATION_PRIVATE,
    "HostToContainer": api_pb2.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": api_pb2.PROPAGATION_BIDIRECTIONAL,
}


class Image(msgspec.Struct, frozen=True):
    """The image as the runtime has it: its reference (an id) and the user it names."""

    ref: str
    user: ImageUser = msgspec.field(default_factory=ImageUser)


class ImageMount(msgspec.Struct, frozen=True):
    """An image that the runtime mounts as a volume."""

    ref: str
    reference: str
    """As the pod names it."""


class ContainerFiles(msgspec.Struct, frozen=True):
    """Paths on the node that were prepared for the container. They exist."""

    volumes: Mapping[str, PurePath] = msgspec.field(default_factory=dict)
    """Volume name to folder or file."""
    sub_paths: Mapping[int, PurePath] = msgspec.field(default_factory=dict)
    """Place in volumeMounts to the path that its subPath came to, opened safely."""
    images: Mapping[int, ImageMount] = msgspec.field(default_factory=dict)
    """Place in volumeMounts to the image that is mounted there."""
    hosts: PurePath | None = None
    """The managed /etc/hosts; None: leave the image's."""
    termination_log: PurePath | None = None
    """The file at terminationMessagePath; None: the container has none."""
    devices: DeviceSettings = msgspec.field(default_factory=DeviceSettings)
    """What device plugins gave it."""


def container_config(
    pod: Pod,
    container: Container,
    attempt: int,
    image: Image,
    env: Sequence[tuple[str, str]],
    files: ContainerFiles,
    context: TranslateContext,
    target_id: str = "",
) -> api_pb2.ContainerConfig:
    """`target_id` is the container whose processes an ephemeral container sees.

    Raises Permanent("CreateContainerConfigError").
    """
    check_non_root(pod, container, image.user)
    devices = files.devices
    # What the pod itself says of a variable comes later and counts.
    env = (*devices.env.items(), *env)
    known = dict(env)
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=container.name, attempt=attempt),
        image=api_pb2.ImageSpec(image=image.ref, user_specified_image=container.image),
        command=[_utf8(expand(word, known)) for word in container.command],
        args=[_utf8(expand(word, known)) for word in container.args],
        working_dir=container.workingDir,
        envs=[api_pb2.KeyValue(key=name, value=_bytes(value)) for name, value in env],
        mounts=_mapped(_mounts(pod, container, known, files, context), context),
        labels=identity.container_labels(pod, container, context.node_name),
        annotations={**devices.annotations, **identity.container_annotations(pod, container, attempt)},
        devices=[
            api_pb2.Device(container_path=one.container_path, host_path=one.host_path, permissions=one.permissions)
            for one in devices.nodes
        ],
        CDI_devices=[api_pb2.CDIDevice(name=name) for name in devices.cdi],
        log_path=identity.container_log_path(container.name, attempt),
        stdin=container.stdin,
        stdin_once=container.stdinOnce,
        tty=container.tty,
        linux=api_pb2.LinuxContainerConfig(
            resources=container_resources(pod, container, context),
            security_context=container_security(pod, container, image.user, context, target_id),
        ),
        stop_signal=_stop_signal(container),
    )


def _mapped(mounts: Iterator[api_pb2.Mount], context: TranslateContext) -> Iterator[api_pb2.Mount]:
    """In a user namespace files keep the owners that they have on the host: the runtime maps each mount's IDs."""
    ids = id_mappings(context)
    for mount in mounts:
        mount.uidMappings.extend(ids)
        mount.gidMappings.extend(ids)
        yield mount


def sub_path(mount: VolumeMount, env: Mapping[str, str]) -> str:
    """The mount's path inside its volume, subPathExpr expanded; empty: the whole volume.

    Raises Permanent("CreateContainerConfigError") where a variable has no value or the path would leave the volume.
    """
    path = mount.subPath
    if mount.subPathExpr:
        missing = sorted(name for name in references(mount.subPathExpr) if not env.get(name))
        if missing:
            raise Permanent(CREATE_CONFIG, f"missing value for {', '.join(missing)}")
        path = expand(mount.subPathExpr, env)
    if path.startswith("/"):
        raise Permanent(CREATE_CONFIG, f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise Permanent(CREATE_CONFIG, f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def _mounts(
    pod: Pod, container: Container, env: Mapping[str, str], files: ContainerFiles, context: TranslateContext
) -> Iterator[api_pb2.Mount]:
    for given in files.devices.mounts:
        yield api_pb2.Mount(container_path=given.container_path, host_path=given.host_path, readonly=given.read_only)
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    for index, mount in enumerate(container.volumeMounts):
        if mount.name not in volumes:
            raise Permanent(CREATE_CONFIG, _no_volume(mount, container))
        if mount.mountPropagation not in _PROPAGATION:
            raise Permanent(CREATE_CONFIG, f'invalid MountPropagation mode: "{mount.mountPropagation}"')
        volume = volumes[mount.name]
        made = api_pb2.Mount(
            container_path=_absolute(mount.mountPath),
            readonly=mount.readOnly or volume.is_read_only or _is_projected(volume),
            recursive_read_only=_recursive_read_only(mount, context),
            propagation=_PROPAGATION[mount.mountPropagation],
            selinux_relabel=context.selinux and volume.hostPath is None and volume.nfs is None,
        )
        if (image := files.images.get(index)) is not None:
            made.image.CopyFrom(api_pb2.ImageSpec(image=image.ref, user_specified_image=image.reference))
            made.image_sub_path = sub_path(mount, env)
        else:
            made.host_path = str(_host_path(index, mount, container, files))
        yield made
    if files.hosts is not None and all(mount.mountPath != HOSTS_PATH for mount in container.volumeMounts):
        yield api_pb2.Mount(container_path=HOSTS_PATH, host_path=str(files.hosts), selinux_relabel=context.selinux)
    if files.termination_log is not None and container.terminationMessagePath:
        yield api_pb2.Mount(
            container_path=_absolute(container.terminationMessagePath),
            host_path=str(files.termination_log),
            selinux_relabel=context.selinux,
        )


def _host_path(index: int, mount: VolumeMount, container: Container, files: ContainerFiles) -> PurePath:
    if mount.name not in files.volumes:
        raise Permanent(CREATE_CONFIG, _no_volume(mount, container))
    if not (mount.subPath or mount.subPathExpr):
        return files.volumes[mount.name]
    if index not in files.sub_paths:
        raise Permanent(
            CREATE_CONFIG,
            f'failed to prepare subPath for volumeMount "{mount.name}" of container "{container.name}"',
        )
    return files.sub_paths[index]


def _no_volume(mount: VolumeMount, container: Container) -> str:
    return f'cannot find volume "{mount.name}" to mount into container "{container.name}"'


def _is_projected(volume: Volume) -> bool:
    """The agent writes these; a container's write would be lost with the next change, so none may write."""
    return any((volume.configMap, volume.secret, volume.downwardAPI, volume.projected))


def _recursive_read_only(mount: VolumeMount, context: TranslateContext) -> bool:
    mode = mount.recursiveReadOnly
    if mode in (None, "Disabled"):
        return False
    asked = f'volume "{mount.name}" requested recursive read-only mode, but it is'
    if not mount.readOnly:
        raise Permanent(CREATE_CONFIG, f"{asked} not read-only")
    if mount.mountPropagation not in (None, "None"):
        raise Permanent(CREATE_CONFIG, f'{asked} not compatible with propagation "{mount.mountPropagation}"')
    match mode:
        case "IfPossible":
            return context.recursive_read_only
        case "Enabled" if context.recursive_read_only:
            return True
        case "Enabled":
            raise Permanent(CREATE_CONFIG, f"{asked} not supported by the runtime")
        case _:
            raise Permanent(CREATE_CONFIG, f'unknown recursive read-only mode "{mode}"')


def _stop_signal(container: Container) -> str:
    """The CRI spells a real-time signal's sign in letters: SIGRTMIN+1 is SIGRTMINPLUS1."""
    name = container.lifecycle.stopSignal if container.lifecycle else None
    if name is None:
        return "RUNTIME_DEFAULT"
    spelled = name.replace("+", "PLUS").replace("-", "MINUS")
    if spelled not in api_pb2.Signal.keys():  # noqa: SIM118  (an enum's wrapper, not a dict)
        raise Permanent(CREATE_CONFIG, f"unknown stop signal: {name}")
    return spelled


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _bytes(value: str) -> bytes:
    """Values from a Secret may be any bytes: they travel as surrogates in the text and leave it whole."""
    return value.encode("utf-8", "surrogateescape")


def _utf8(word: str) -> str:
    """The CRI's command and args are text: bytes of a Secret that are none cannot travel there."""
    if any("\ud800" <= char <= "\udfff" for char in word):
        raise Permanent(CREATE_CONFIG, "command or args refer to a variable whose value is not UTF-8")
    return word
