from pathlib import PurePosixPath
from typing import Any

import pytest
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.model.devices import DeviceMount, DeviceNode, DeviceSettings
from agent.model.volume import VolumeMount
from agent.pods.translate.container import ContainerFiles, Image, container_config, sub_path
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.security import ImageUser
from tests.unit.pods.pods import make_pod

CONTEXT = TranslateContext(node_name="edge-1", memory_capacity_bytes=2**30)
IMAGE = Image("sha256:abc")
DATA = PurePosixPath("/pods/u-1/data")
FILES = ContainerFiles(
    volumes={"data": DATA, "conf": PurePosixPath("/pods/u-1/conf"), "host": PurePosixPath("/srv")},
    hosts=PurePosixPath("/pods/u-1/etc-hosts"),
    termination_log=PurePosixPath("/pods/u-1/main/1f"),
)
VOLUMES = [
    {"name": "data", "emptyDir": {}},
    {"name": "conf", "configMap": {"name": "c"}},
    {"name": "host", "hostPath": {"path": "/srv"}},
]


def config(
    *,
    image: Image = IMAGE,
    env: tuple[tuple[str, str], ...] = (),
    files: ContainerFiles = FILES,
    context: TranslateContext = CONTEXT,
    attempt: int = 0,
    **fields: Any,
) -> api_pb2.ContainerConfig:
    pod = make_pod(volumes=VOLUMES, containers=[{"name": "main", "image": "busybox:1", **fields}])
    return container_config(pod, pod.spec.containers[0], attempt, image, env, files, context)


def mounts(*volume_mounts: dict[str, Any], **given: Any) -> list[api_pb2.Mount]:
    return list(config(volumeMounts=volume_mounts, **given).mounts)


def test_a_container_is_named_by_attempt_and_runs_the_resolved_image() -> None:
    found = config(attempt=3, workingDir="/w", stdin=True, stdinOnce=True, tty=True)
    assert found.metadata == api_pb2.ContainerMetadata(name="main", attempt=3)
    assert found.image == api_pb2.ImageSpec(image="sha256:abc", user_specified_image="busybox:1")
    assert found.log_path == "main/3.log"
    assert (found.working_dir, found.stdin, found.stdin_once, found.tty) == ("/w", True, True, True)
    assert found.labels["io.kubernetes.container.name"] == "main"
    assert found.annotations["io.kubernetes.container.restartCount"] == "3"
    assert found.linux.resources.oom_score_adj == 1000
    assert found.linux.security_context.namespace_options.pid == api_pb2.CONTAINER
    assert found.stop_signal == api_pb2.RUNTIME_DEFAULT


def test_command_and_args_are_expanded_from_the_environment() -> None:
    found = config(env=(("A", "1"), ("B", "$(A)")), command=["run", "$(A)$(C)"], args=["$(B)", "$$(A)"])
    assert list(found.command) == ["run", "1$(C)"]
    assert list(found.args) == ["$(A)", "$(A)"]
    assert [(pair.key, pair.value) for pair in found.envs] == [("A", b"1"), ("B", b"$(A)")]


def test_bytes_that_are_no_text_reach_the_environment_but_not_the_command() -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert config(env=(("KEY", raw),)).envs[0].value == b"\xff\xfe"
    with pytest.raises(Permanent, match="not UTF-8"):
        config(env=(("KEY", raw),), command=["$(KEY)"])


def test_mounts_come_in_the_specs_order_then_hosts_then_the_termination_log() -> None:
    assert mounts({"name": "data", "mountPath": "data", "readOnly": True}, {"name": "host", "mountPath": "/h"}) == [
        api_pb2.Mount(container_path="/data", host_path="/pods/u-1/data", readonly=True),
        api_pb2.Mount(container_path="/h", host_path="/srv"),
        api_pb2.Mount(container_path="/etc/hosts", host_path="/pods/u-1/etc-hosts"),
        api_pb2.Mount(container_path="/dev/termination-log", host_path="/pods/u-1/main/1f"),
    ]


def test_the_agents_files_are_left_out_where_the_user_brings_or_wants_none() -> None:
    own = mounts({"name": "data", "mountPath": "/etc/hosts"}, terminationMessagePath="")
    assert [mount.host_path for mount in own] == ["/pods/u-1/data"]
    assert mounts(files=ContainerFiles()) == []


def test_volumes_that_the_agent_writes_are_read_only() -> None:
    assert mounts({"name": "conf", "mountPath": "/c"})[0].readonly is True


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, api_pb2.PROPAGATION_PRIVATE),
        ("None", api_pb2.PROPAGATION_PRIVATE),
        ("HostToContainer", api_pb2.PROPAGATION_HOST_TO_CONTAINER),
        ("Bidirectional", api_pb2.PROPAGATION_BIDIRECTIONAL),
    ],
)
def test_propagation_is_private_unless_asked(mode: str | None, expected: int) -> None:
    assert mounts({"name": "host", "mountPath": "/h", "mountPropagation": mode})[0].propagation == expected


@pytest.mark.parametrize(
    ("mode", "able", "expected"),
    [(None, True, False), ("Disabled", True, False), ("IfPossible", True, True), ("IfPossible", False, False),
     ("Enabled", True, True)],
)  # fmt: skip
def test_recursive_read_only_follows_the_runtimes_ability(mode: str | None, able: bool, expected: bool) -> None:
    context = replace(CONTEXT, recursive_read_only=able)
    mount = {"name": "data", "mountPath": "/d", "readOnly": True, "recursiveReadOnly": mode}
    assert mounts(mount, context=context)[0].recursive_read_only is expected


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"name": "none"}, 'cannot find volume "none" to mount into container "main"'),
        ({"name": "data", "mountPropagation": "Odd"}, 'invalid MountPropagation mode: "Odd"'),
        ({"name": "data", "recursiveReadOnly": "Enabled"}, "it is not read-only"),
        ({"name": "data", "readOnly": True, "recursiveReadOnly": "Enabled"}, "not supported by the runtime"),
        ({"name": "data", "readOnly": True, "recursiveReadOnly": "Odd"}, 'unknown recursive read-only mode "Odd"'),
        (
            {"name": "data", "readOnly": True, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"},
            'not compatible with propagation "HostToContainer"',
        ),
        ({"name": "data", "subPath": "x"}, 'failed to prepare subPath for volumeMount "data"'),
    ],
)
def test_a_mount_that_cannot_be_had_is_a_config_error(mount: dict[str, Any], message: str) -> None:
    with pytest.raises(Permanent, match=message) as caught:
        mounts({"mountPath": "/m", **mount})
    assert caught.value.reason == "CreateContainerConfigError"


def test_a_sub_path_mounts_what_was_prepared_for_its_place() -> None:
    files = replace(FILES, sub_paths={1: PurePosixPath("/pods/u-1/sub/1")})
    found = mounts(
        {"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b", "subPath": "x"}, files=files
    )
    assert [mount.host_path for mount in found[:2]] == ["/pods/u-1/data", "/pods/u-1/sub/1"]


def test_selinux_relabels_what_the_agent_made_but_never_the_hosts_own() -> None:
    found = mounts(
        {"name": "data", "mountPath": "/d"},
        {"name": "host", "mountPath": "/h"},
        context=replace(CONTEXT, selinux=True),
    )
    assert [mount.selinux_relabel for mount in found] == [True, False, True, True]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SIGUSR1", api_pb2.SIGUSR1), ("SIGRTMIN+3", api_pb2.SIGRTMINPLUS3), ("SIGRTMAX-2", api_pb2.SIGRTMAXMINUS2)],
)
def test_a_stop_signal_is_passed_in_the_cris_spelling(name: str, expected: int) -> None:
    assert config(lifecycle={"stopSignal": name}).stop_signal == expected


def test_an_unknown_stop_signal_is_a_config_error() -> None:
    with pytest.raises(Permanent, match="unknown stop signal: SIGNONE"):
        config(lifecycle={"stopSignal": "SIGNONE"})


def test_a_root_image_is_not_started_against_run_as_non_root() -> None:
    own = {"runAsNonRoot": True}
    with pytest.raises(Permanent, match="image will run as root"):
        config(securityContext=own)
    found = config(securityContext=own, image=replace(IMAGE, user=ImageUser(uid=9)))
    assert found.linux.security_context.run_as_user.value == 9


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"subPath": "a/$(POD)"}, "a/$(POD)"),
        ({"subPathExpr": "a/$(POD)/$$(X)"}, "a/web/$(X)"),
    ],
)
def test_only_sub_path_expr_is_expanded(fields: dict[str, str], expected: str) -> None:
    assert sub_path(VolumeMount(name="v", mountPath="/m", **fields), {"POD": "web"}) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subPathExpr": "$(B)/$(A)/$(EMPTY)"}, "missing value for A, B, EMPTY"),
        ({"subPath": "/abs"}, "must not be an absolute path"),
        ({"subPath": "a/../b"}, "must not contain '..'"),
        ({"subPathExpr": "$(UP)"}, "must not contain '..'"),
    ],
)
def test_a_sub_path_without_value_or_out_of_its_volume_is_a_config_error(fields: dict[str, str], message: str) -> None:
    with pytest.raises(Permanent, match=message):
        sub_path(VolumeMount(name="v", mountPath="/m", **fields), {"EMPTY": "", "UP": ".."})  # type: ignore[arg-type]


def test_what_device_plugins_gave_comes_before_the_pod_s_own() -> None:
    given = DeviceSettings(
        env={"WIDGETS": "a", "OWN": "the plugin's"},
        mounts=(DeviceMount("/opt/lib", "/usr/lib/widgets", read_only=True),),
        nodes=(DeviceNode("/dev/widget0", "/dev/w17", "rw"),),
        annotations={"widgets": "a", "io.kubernetes.container.restartCount": "99"},
        cdi=("example.com/widget=a",),
    )
    data = {"name": "data", "mountPath": "/data"}
    found = config(
        env=(("OWN", "the pod's"),),
        files=replace(FILES, devices=given),
        volumeMounts=[data],
        command=["use", "$(WIDGETS)", "$(OWN)"],
    )
    assert [(one.key, one.value) for one in found.envs] == [
        ("WIDGETS", b"a"),
        ("OWN", b"the plugin's"),
        ("OWN", b"the pod's"),
    ]
    assert list(found.command) == ["use", "a", "the pod's"]
    assert list(found.devices) == [
        api_pb2.Device(container_path="/dev/widget0", host_path="/dev/w17", permissions="rw")
    ]
    library, *others = found.mounts
    assert library == api_pb2.Mount(container_path="/opt/lib", host_path="/usr/lib/widgets", readonly=True)
    assert others[0].container_path == "/data"
    assert found.annotations["widgets"] == "a"
    assert found.annotations["io.kubernetes.container.restartCount"] == "0"
    assert [one.name for one in found.CDI_devices] == ["example.com/widget=a"]
