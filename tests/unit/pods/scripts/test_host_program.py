"""A pod of host programs as the rest of the agent sees it, and its containers' mounts."""

from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest

from agent.cri._generated import api_pb2
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.pods.scripts.host_program import (
    Account,
    Host,
    HostFolder,
    host_record,
    host_view,
    mountpoints,
    refusals,
    user,
    with_host,
)
from agent.pods.scripts.kind import HOST_IMAGE
from agent.pods.translate.container import ContainerFiles, Image, container_config
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.sandbox import sandbox
from tests.unit.pods.pods import make_pod

CONTEXT = TranslateContext(node_name="edge-1", memory_capacity_bytes=2**30)
HOST = Host(
    tuple(HostFolder(path, propagates=path == "/mnt") for path in ("/etc", "/mnt", "/sys", "/tmp", "/sys/fs/cgroup")),
    files=("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"),
)
FILES = ContainerFiles(
    volumes={"data": PurePosixPath("/pods/u-1/data")},
    hosts=PurePosixPath("/pods/u-1/etc-hosts"),
    termination_log=PurePosixPath("/pods/u-1/main/1f"),
)
VOLUMES = [{"name": "data", "emptyDir": {}}]
SCRIPT = {"name": "main", "image": "bash", "args": ["echo hi"]}


def scripts_pod(spec: dict[str, Any] | None = None, **container: Any) -> Pod:
    annotations = {"annotations": {"type": "bash"}}
    return make_pod(annotations, **{"volumes": VOLUMES, "containers": [{**SCRIPT, **container}], **(spec or {})})


def config(host: Host = HOST, spec: dict[str, Any] | None = None, **container: Any) -> api_pb2.ContainerConfig:
    pod = host_view(scripts_pod(spec, **container))
    main = pod.spec.containers[0]
    return with_host(container_config(pod, main, 0, Image("sha256:e"), (), FILES, CONTEXT), pod, main, host)


def mounted(found: api_pb2.ContainerConfig) -> dict[str, str]:
    paths = [mount.container_path for mount in found.mounts]
    assert len(set(paths)) == len(paths)
    return {mount.container_path: mount.host_path for mount in found.mounts}


def volume_mounts(*paths: str) -> list[dict[str, str]]:
    return [{"name": "data", "mountPath": path} for path in paths]


def test_args_alone_are_for_bash_and_a_command_stays_as_given() -> None:
    found = config(args=["echo $0", "x"])
    assert (list(found.command), list(found.args)) == (["bash", "-c"], ["echo $0", "x"])
    found = config(command=["/usr/bin/env"], args=["true"])
    assert (list(found.command), list(found.args)) == (["/usr/bin/env"], ["true"])


def test_every_container_shares_all_of_the_host_with_all_rights() -> None:
    side = {"name": "side", "image": "x", "restartPolicy": "Always", "args": ["true"]}
    pod = host_view(scripts_pod({"initContainers": [side], "shareProcessNamespace": True}))
    security = sandbox(pod, 0, "/kubepods/x", "", CONTEXT).config.linux.security_context
    for options in (security.namespace_options, config().linux.security_context.namespace_options):
        assert (options.network, options.pid, options.ipc) == (api_pb2.NODE, api_pb2.NODE, api_pb2.NODE)
    assert security.privileged
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        assert container.image == HOST_IMAGE
        assert container.securityContext is not None
        assert container.securityContext.privileged
    found = config().linux.security_context
    assert found.privileged
    assert not found.masked_paths
    assert not found.readonly_paths


def test_who_it_runs_as_stays_with_the_groups_that_the_host_knows() -> None:
    context = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    found = config(Host(HOST.folders, HOST.files, Account(100, (100, 27))), securityContext=context)
    security = found.linux.security_context
    assert (security.run_as_user.value, security.run_as_group.value) == (1000, 100)
    assert list(security.supplemental_groups) == [100, 27]
    assert security.no_new_privs
    found = config(Host((), (), Account(100, (100,))), securityContext={"runAsUser": 1000, "runAsGroup": 5})
    assert found.linux.security_context.run_as_group.value == 5


def test_the_containers_user_wins_over_the_pods() -> None:
    pod = scripts_pod({"securityContext": {"runAsUser": 7}}, securityContext={"runAsUser": 8})
    assert user(pod, pod.spec.containers[0]) == 8
    pod = scripts_pod({"securityContext": {"runAsUser": 7}})
    assert user(pod, pod.spec.containers[0]) == 7
    assert user(scripts_pod(), scripts_pod().spec.containers[0]) is None


def test_the_hosts_folders_and_files_are_bound_at_their_own_paths() -> None:
    found = config()
    expected = [*(folder.path for folder in HOST.folders), *HOST.files]
    assert mounted(found) == {path: path for path in expected}
    hears = {m.container_path for m in found.mounts if m.propagation == api_pb2.PROPAGATION_HOST_TO_CONTAINER}
    assert hears == {"/mnt"}
    assert not any(m.propagation == api_pb2.PROPAGATION_BIDIRECTIONAL for m in found.mounts)


def test_the_pods_volumes_lie_over_the_hosts_folders() -> None:
    found = mounted(config(volumeMounts=volume_mounts("/data", "/etc/app/", "/tmp/", "/etc/hosts")))
    for path in ("/data", "/etc/app/", "/tmp/", "/etc/hosts"):
        assert found[path] == "/pods/u-1/data"
    assert "/tmp" not in found


def test_nothing_is_bound_into_a_volume_that_stands_for_a_folder_of_the_host() -> None:
    assert "/sys/fs/cgroup" not in mounted(config(volumeMounts=volume_mounts("/sys")))
    assert not [path for path in mounted(config(volumeMounts=volume_mounts("/etc"))) if path.startswith("/etc/")]


def test_what_a_pod_adds_to_names_and_resolver_is_kept() -> None:
    found = mounted(config(spec={"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}]}))
    assert found["/etc/hosts"] == "/pods/u-1/etc-hosts"
    for spec in (
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}},
        {"dnsPolicy": "ClusterFirstWithHostNet"},
    ):
        assert "/etc/resolv.conf" not in mounted(config(spec=spec)), "the runtime's own is there"


def test_its_output_is_its_last_words() -> None:
    found = config()
    assert found.annotations["io.edgelet.host"] == "true"
    assert "/dev/termination-log" not in mounted(found)


@pytest.mark.parametrize(
    ("paths", "working_dir", "expected"),
    [
        (["/data"], "", ()),
        (["/etc/app"], "", ("/etc/app",)),
        (["/etc//app/../b/"], "", ("/etc/b",)),
        (["/tmp", "/tmp/inside"], "", ()),
        (["/etc/app", "/etc/app/inside"], "", ("/etc/app",)),
        (["/sys/fs/cgroup"], "", ()),
        ([], "/tmp/work", ("/tmp/work",)),
        ([], "/work", ()),
        ([], "/tmp", ()),
        (["/tmp/work"], "/tmp/work/below", ("/tmp/work",)),
    ],
)
def test_what_must_be_there_on_the_host_to_mount_on(
    paths: list[str], working_dir: str, expected: tuple[str, ...]
) -> None:
    assert mountpoints(config(volumeMounts=volume_mounts(*paths), workingDir=working_dir), HOST) == expected


@pytest.mark.parametrize(
    ("spec", "container", "path"),
    [
        ({}, {"args": []}, "spec.containers[0]"),
        (
            {},
            {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
            "spec.containers[0].securityContext.capabilities",
        ),
        ({}, {"securityContext": {"privileged": False}}, "spec.containers[0].securityContext.privileged"),
        (
            {},
            {"securityContext": {"readOnlyRootFilesystem": True}},
            "spec.containers[0].securityContext.readOnlyRootFilesystem",
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
            {},
            "spec.securityContext.seccompProfile",
        ),
        ({}, {"volumeMounts": volume_mounts("//")}, "spec.containers[0].volumeMounts[0].mountPath"),
    ],
)
def test_what_a_host_program_cannot_have_is_told_by_field(
    spec: dict[str, Any], container: dict[str, Any], path: str
) -> None:
    assert [refusal.path for refusal in refusals(scripts_pod(spec, **container))] == [path]


def test_what_says_who_it_runs_as_is_no_fault() -> None:
    context = {"runAsUser": 1, "runAsGroup": 1, "runAsNonRoot": True, "allowPrivilegeEscalation": False}
    assert refusals(scripts_pod({"securityContext": {"runAsUser": 1}}, securityContext=context)) == ()
    assert refusals(scripts_pod(securityContext={"privileged": True})) == ()


def test_only_records_of_scripts_are_viewed_otherwise_and_the_raw_object_stays() -> None:
    raw = msgspec.json.encode(scripts_pod())
    found = host_record(PodRecord.decode(raw))
    assert found.raw == raw
    assert found.pod.spec.hostPID
    ordinary = PodRecord.decode(msgspec.json.encode(make_pod()))
    assert host_record(ordinary) is ordinary
