from typing import Any

import pytest
from msgspec.structs import replace

from agent.cri._generated import api_pb2
from agent.errors import Permanent
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.security import ImageUser, check_non_root, container_security, namespaces, sandbox_security
from tests.unit.pods.pods import container_pod, make_pod

CONTEXT = TranslateContext(
    node_name="edge-1", memory_capacity_bytes=1, seccomp_root="/seccomp", masked_paths=("/sys/cpu0/thermal_throttle",)
)
PROFILE = api_pb2.SecurityProfile


def security(
    of_pod: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    user: ImageUser | None = None,
    meta: dict[str, Any] | None = None,
) -> api_pb2.LinuxContainerSecurityContext:
    pod = make_pod(meta, securityContext=of_pod, containers=[{"name": "main", "securityContext": own}])
    return container_security(pod, pod.spec.containers[0], user or ImageUser(), CONTEXT)


@pytest.mark.parametrize(
    ("spec", "network", "pid", "ipc"),
    [
        ({}, "POD", "CONTAINER", "POD"),
        ({"hostNetwork": True}, "NODE", "CONTAINER", "POD"),
        ({"hostPID": True, "shareProcessNamespace": True}, "POD", "NODE", "POD"),
        ({"shareProcessNamespace": True}, "POD", "POD", "POD"),
        ({"hostIPC": True}, "POD", "CONTAINER", "NODE"),
    ],
)
def test_namespaces_are_the_pods_unless_the_host_or_the_pod_shares_them(
    spec: dict[str, Any], network: str, pid: str, ipc: str
) -> None:
    found = namespaces(make_pod(**spec), CONTEXT)
    modes = [api_pb2.NamespaceMode.Name(mode) for mode in (found.network, found.pid, found.ipc)]
    assert modes == [network, pid, ipc]


def test_by_default_a_container_runs_as_its_image_says_with_proc_masked() -> None:
    found = security(user=ImageUser(uid=1000))
    assert found.run_as_user.value == 1000
    assert not found.HasField("run_as_group")
    assert not found.HasField("capabilities")
    assert not found.HasField("apparmor")
    assert found.seccomp.profile_type == PROFILE.Unconfined
    assert "/proc/kcore" in found.masked_paths
    assert "/sys/cpu0/thermal_throttle" in found.masked_paths
    assert list(found.readonly_paths) == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert (found.privileged, found.readonly_rootfs, found.no_new_privs) == (False, False, False)


def test_an_image_user_by_name_travels_by_name_and_nobody_means_root() -> None:
    named = security(user=ImageUser(username="www"))
    assert (named.run_as_username, named.HasField("run_as_user")) == ("www", False)
    root = security()
    assert (root.run_as_username, root.HasField("run_as_user"), root.run_as_user.value) == ("", True, 0)


def test_the_containers_fields_win_over_the_pods_and_the_pods_over_the_image() -> None:
    of_pod = {"runAsUser": 1, "runAsGroup": 2, "seLinuxOptions": {"level": "s0"}, "fsGroup": 5}
    found = security(of_pod, {"runAsUser": 0, "seLinuxOptions": {"type": "t"}}, ImageUser(username="www"))
    assert (found.run_as_user.value, found.run_as_group.value, found.run_as_username) == (0, 2, "")
    assert (found.selinux_options.type, found.selinux_options.level) == ("t", "")
    assert security(of_pod).selinux_options.level == "s0"
    assert security(of_pod).run_as_user.value == 1


def test_groups_of_the_volumes_come_first_and_the_policy_is_kept() -> None:
    of_pod = {"supplementalGroups": [7, 8], "fsGroup": 5, "supplementalGroupsPolicy": "Strict"}
    found = security(of_pod)
    assert list(found.supplemental_groups) == [5, 7, 8]
    assert found.supplemental_groups_policy == api_pb2.Strict
    assert security({"supplementalGroupsPolicy": "Merge"}).supplemental_groups_policy == api_pb2.Merge


def test_what_the_container_asks_of_its_privileges_is_passed_on() -> None:
    own = {
        "privileged": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_ADMIN", "CAP_SYS_TIME"], "drop": ["ALL"]},
        "procMount": "Unmasked",
    }
    found = security(own=own)
    assert (found.privileged, found.readonly_rootfs, found.no_new_privs) == (True, True, True)
    assert list(found.capabilities.add_capabilities) == ["NET_ADMIN", "CAP_SYS_TIME"]
    assert list(found.capabilities.drop_capabilities) == ["ALL"]
    assert (list(found.masked_paths), list(found.readonly_paths)) == ([], [])
    assert security(own={"allowPrivilegeEscalation": True}).no_new_privs is False


@pytest.mark.parametrize(
    ("profile", "kind", "ref"),
    [
        ({"type": "RuntimeDefault"}, PROFILE.RuntimeDefault, ""),
        ({"type": "Unconfined"}, PROFILE.Unconfined, ""),
        ({"type": "Localhost", "localhostProfile": "p/audit.json"}, PROFILE.Localhost, "/seccomp/p/audit.json"),
    ],
)
def test_a_seccomp_profile_comes_from_the_container_else_the_pod(profile: dict[str, str], kind: int, ref: str) -> None:
    other = {"type": "Localhost", "localhostProfile": "other.json"}
    for found in (
        security({"seccompProfile": profile}),
        security({"seccompProfile": other}, {"seccompProfile": profile}),
    ):
        assert (found.seccomp.profile_type, found.seccomp.localhost_ref) == (kind, ref)


def test_the_nodes_owner_may_prefer_the_runtimes_profile_to_none() -> None:
    preferring = replace(CONTEXT, seccomp_default=True)
    pod = container_pod()
    asked = container_pod(securityContext={"seccompProfile": {"type": "Unconfined"}})
    for one, kind in ((pod, PROFILE.RuntimeDefault), (asked, PROFILE.Unconfined)):
        found = container_security(one, one.spec.containers[0], ImageUser(), preferring)
        assert found.seccomp.profile_type == kind


@pytest.mark.parametrize(
    ("profile", "kind", "ref", "legacy"),
    [
        ({"type": "RuntimeDefault"}, PROFILE.RuntimeDefault, "", "runtime/default"),
        ({"type": "Unconfined"}, PROFILE.Unconfined, "", "unconfined"),
        ({"type": "Localhost", "localhostProfile": "mine"}, PROFILE.Localhost, "mine", "localhost/mine"),
    ],
)
def test_an_apparmor_profile_is_given_in_both_forms_whether_field_or_annotation(
    profile: dict[str, str], kind: int, ref: str, legacy: str
) -> None:
    annotation = {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": legacy}}
    other = {"type": "Localhost", "localhostProfile": "other"}
    for found in (
        security({"appArmorProfile": profile}),
        security({"appArmorProfile": other}, {"appArmorProfile": profile}),
        security({"appArmorProfile": other}, meta=annotation),
    ):
        assert (found.apparmor.profile_type, found.apparmor.localhost_ref) == (kind, ref)
        assert found.apparmor_profile == legacy


@pytest.mark.parametrize(
    ("of_pod", "annotation", "message"),
    [
        ({"seccompProfile": {"type": "Localhost"}}, "", "localhostProfile must be set"),
        ({"seccompProfile": {"type": "Odd"}}, "", "unknown seccomp profile type: Odd"),
        ({"appArmorProfile": {"type": "Localhost"}}, "", "missing localhost apparmor profile name"),
        ({"appArmorProfile": {"type": "Odd"}}, "", "unknown apparmor profile type: Odd"),
        ({}, "docker/x", "unknown apparmor profile type: docker/x"),
        ({"supplementalGroupsPolicy": "Odd"}, "", "unsupported supplementalGroupsPolicy: Odd"),
    ],
)
def test_an_incomplete_or_unknown_profile_is_a_config_error(
    of_pod: dict[str, Any], annotation: str, message: str
) -> None:
    meta = {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": annotation}}
    with pytest.raises(Permanent, match=message) as caught:
        security(of_pod, meta=meta)
    assert caught.value.reason == "CreateContainerConfigError"


def test_the_sandbox_takes_the_pods_identity_and_is_privileged_if_any_container_is() -> None:
    of_pod = {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seLinuxOptions": {"user": "u"}}
    found = sandbox_security(make_pod(securityContext=of_pod, hostIPC=True), CONTEXT)
    assert (found.run_as_user.value, found.run_as_group.value) == (1, 2)
    assert list(found.supplemental_groups) == [3, 4]
    assert found.selinux_options.user == "u"
    assert found.namespace_options.ipc == api_pb2.NODE
    assert found.seccomp.profile_type == PROFILE.RuntimeDefault
    assert found.privileged is False
    init = [{"name": "i", "securityContext": {"privileged": True}}]
    assert sandbox_security(make_pod(initContainers=init), CONTEXT).privileged is True


def test_pause_processes_have_a_profile_that_is_cheaper_unless_the_pods_processes_reach_them() -> None:
    own = replace(CONTEXT, sandbox_seccomp="/root/sandbox.json")
    found = sandbox_security(make_pod(), own).seccomp
    assert (found.profile_type, found.localhost_ref) == (PROFILE.Localhost, "/root/sandbox.json")
    shared = sandbox_security(make_pod(shareProcessNamespace=True), own).seccomp
    assert (shared.profile_type, shared.localhost_ref) == (PROFILE.RuntimeDefault, "")


def checked(own: dict[str, Any], user: ImageUser, of_pod: dict[str, Any] | None = None) -> None:
    pod = make_pod(securityContext=of_pod, containers=[{"name": "main", "securityContext": own}])
    check_non_root(pod, pod.spec.containers[0], user)


@pytest.mark.parametrize(
    ("own", "user", "message"),
    [
        ({"runAsUser": 0}, ImageUser(uid=5), "container's runAsUser breaks non-root policy"),
        ({}, ImageUser(uid=0), "container has runAsNonRoot and image will run as root"),
        ({}, ImageUser(), "container has runAsNonRoot and image will run as root"),
        ({}, ImageUser(username="www"), r"image has non-numeric user \(www\), cannot verify user is non-root"),
        ({}, ImageUser(uid=2**31), r"invalid user id \(2147483648\). \(Must be 1-\(2147483647\)\): must be between"),
        ({}, ImageUser(uid=-1), r"image has an invalid user id \(-1\)"),
    ],
)
def test_run_as_non_root_holds_against_spec_and_image(own: dict[str, Any], user: ImageUser, message: str) -> None:
    for fields, of_pod in (({**own, "runAsNonRoot": True}, None), (own, {"runAsNonRoot": True})):
        with pytest.raises(Permanent, match=message) as caught:
            checked(fields, user, of_pod)
        assert caught.value.reason == "CreateContainerConfigError"
        assert str(caught.value).endswith('(pod: "web_shop(u-1)", container: main)')
    checked({**own, "runAsNonRoot": False}, user, {"runAsNonRoot": True})


def test_run_as_non_root_is_content_with_a_user_that_is_not_root() -> None:
    checked({"runAsNonRoot": True, "runAsUser": 7}, ImageUser())
    checked({"runAsNonRoot": True}, ImageUser(uid=7))


def test_a_user_namespace_maps_its_root_to_the_start_of_the_pods_range() -> None:
    found = namespaces(make_pod(hostUsers=False), replace(CONTEXT, first_user_id=131072)).userns_options
    assert found.mode == api_pb2.POD
    wanted = [api_pb2.IDMapping(host_id=131072, container_id=0, length=65536)]
    assert list(found.uids) == list(found.gids) == wanted


def test_without_a_range_a_pod_has_the_hosts_users() -> None:
    found = namespaces(make_pod(), CONTEXT).userns_options
    assert (found.mode, len(found.uids), len(found.gids)) == (api_pb2.NODE, 0, 0)
