from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from agent.config import Settings, Taint
from agent.errors import ConfigError
from agent.option_table import OPTIONS
from agent.options import resolve

ROOT = Path(__file__).parents[2]


def settle(
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    present: tuple[str, ...] = (),
    hostname: str = "box",
) -> Settings:
    return resolve(
        flags or {},
        environ or {},
        file or {},
        file_name="edge.yaml",
        hostname=hostname,
        exists=lambda path: str(path) in present,
    )


def test_every_setting_has_exactly_one_option() -> None:
    assert sorted(option.field for option in OPTIONS) == sorted(Settings.__struct_fields__)


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() -> None:
    flags, environ, file = {"node_name": "flag"}, {"DEFAULT_NODE_NAME": "env"}, {"nodeName": "file"}
    assert settle(flags, environ, file).node_name == "flag"
    assert settle({}, environ, file).node_name == "env"
    assert settle({}, {}, file).node_name == "file"
    assert settle().node_name == "box"


def test_an_empty_environment_variable_counts_as_unset() -> None:
    assert settle({}, {"DEFAULT_NODE_NAME": "", "VKUBELET_POD_IP": ""}, {"nodeName": "file"}).node_name == "file"


def test_the_node_name_is_lower_cased_and_must_be_a_dns_name() -> None:
    assert settle({"node_name": "Edge-1.Site"}).node_name == "edge-1.site"
    with pytest.raises(ConfigError, match=r"^--nodename: 'edge_1' is no node name"):
        settle({"node_name": "edge_1"})
    with pytest.raises(ConfigError, match="use --nodename"):
        settle(hostname="my_box")


def test_the_default_kubeconfig_counts_only_where_it_exists() -> None:
    joined = settle(present=("config/config.yaml",))
    assert joined.kubeconfig == Path("config/config.yaml")
    assert joined.pod_manifest_path is None
    alone = settle()
    assert alone.kubeconfig is None
    assert alone.pod_manifest_path == Path("config/manifests")


def test_an_empty_kubeconfig_flag_means_standalone_even_beside_the_default_one() -> None:
    alone = settle({"kubeconfig": ""}, present=("config/config.yaml",))
    assert alone.kubeconfig is None
    assert alone.pod_manifest_path == Path("config/manifests")


def test_a_kubeconfig_that_is_missing_is_named_with_its_origin() -> None:
    with pytest.raises(ConfigError, match=r"^--kubeconfig: no such file: /nope$"):
        settle({"kubeconfig": "/nope"})
    with pytest.raises(ConfigError, match=r"^environment variable KUBECONFIG: no such file: /nope$"):
        settle({}, {"KUBECONFIG": "/nope"})
    with pytest.raises(ConfigError, match=r"^edge.yaml: no such file: /nope$"):
        settle({}, {}, {"kubeconfig": "/nope"})


def test_one_existing_file_of_a_kubeconfig_list_is_enough() -> None:
    assert settle({}, {"KUBECONFIG": "/nope:/there"}, present=("/there",)).kubeconfig == Path("/nope:/there")


def test_lists_and_maps_are_taken_as_flags_write_them_and_as_yaml_has_them() -> None:
    flags = {
        "node_labels": "a=b, c=d,e=",
        "cluster_dns": "10.96.0.10,fd00::a",
        "register_with_taints": "k=v:NoSchedule,bare:NoExecute,empty=:PreferNoSchedule",
    }
    file: dict[str, object] = {
        "nodeLabels": {"a": "b", "c": "d", "e": ""},
        "clusterDNS": ["10.96.0.10", "fd00::a"],
        "registerWithTaints": [
            {"key": "k", "value": "v", "effect": "NoSchedule"},
            "bare:NoExecute",
            {"key": "empty", "effect": "PreferNoSchedule"},
        ],
    }
    for settings in (settle(flags), settle({}, {}, file)):
        assert settings.node_labels == {"a": "b", "c": "d", "e": ""}
        assert settings.cluster_dns == ("10.96.0.10", "fd00::a")
        assert settings.register_with_taints == (
            Taint("k", "v", "NoSchedule"),
            Taint("bare", "", "NoExecute"),
            Taint("empty", "", "PreferNoSchedule"),
        )


def test_the_file_takes_a_flags_own_spelling_too_but_not_both() -> None:
    assert settle({}, {}, {"max-pods": 7}).max_pods == 7
    with pytest.raises(ConfigError, match=r"^edge.yaml: maxPods is set twice$"):
        settle({}, {}, {"max-pods": 7, "maxPods": 8})


def test_a_key_without_a_value_leaves_the_default() -> None:
    assert settle({}, {}, {"maxPods": None}).max_pods == 110


def test_an_unknown_key_names_key_and_file() -> None:
    with pytest.raises(ConfigError, match=r"^edge.yaml: unknown key 'maxPod'; did you mean 'maxPods'\?$"):
        settle({}, {}, {"maxPod": 7})


def test_a_wrong_value_in_the_file_is_refused_even_where_a_flag_wins() -> None:
    with pytest.raises(ConfigError, match=r"^edge.yaml: maxPods: not a whole number: 'many'$"):
        settle({"max_pods": "9"}, {}, {"maxPods": "many"})


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("max_pods", "1e3", "--max-pods: not a whole number: '1e3'"),
        ("max_pods", "-1", "--max-pods: -1 is not between 0 and 100000"),
        ("manifest_url", "ftp://host/pod", "--manifest-url: not an http:// or https:// URL"),
        ("manifest_url_header", "X-Token secret", "--manifest-url-header: header 'X-Token secret' is not written NAME"),
        ("shutdown_grace_period", "500ms", "--shutdown-grace-period: '500ms' is neither 0 nor whole seconds"),
        ("shutdown_grace_period_critical_pods", "9s", "--shutdown-grace-period-critical-pods is a part of"),
        ("shutdown_grace_period_by_pod_priority", "a=5", "--shutdown-grace-period-by-pod-priority: 'a=5' is not"),
        ("shutdown_grace_period_by_pod_priority", "1=5,1=6", "--shutdown-grace-period-by-pod-priority: priority 1 is"),
        ("memory_throttling_factor", "1.5", "--memory-throttling-factor: '1.5' is not more than 0 and at most 1"),
        ("memory_swap_behavior", "Some", "--memory-swap-behavior: "),
        ("reserved_cpus", "3-1", "--reserved-cpus: '3-1' is no list of CPUs"),
        ("port", "70000", "--port: 70000 is not between 0 and 65535"),
        ("node_ip", "10.0.0.300", "--node-ip: '10.0.0.300' is no IP address"),
        ("node_ip", "0.0.0.0", "--node-ip: 0.0.0.0 is no address of a node"),
        (
            "node_ip",
            "10.0.0.1,10.0.0.2",
            "--node-ip: '10.0.0.1,10.0.0.2' is neither one address",
        ),
        ("cluster_dns", "dns.local", "--cluster-dns: 'dns.local' is no IP address"),
        ("cluster_domain", "a..b", "--cluster-domain: 'a..b' is no DNS domain"),
        ("node_labels", "a", "--node-labels: 'a' is not written key=value"),
        ("node_labels", "-a=b", "--node-labels: '-a' is no label key"),
        ("node_labels", "a=b c", "--node-labels: label 'a' cannot have the value 'b c'"),
        ("register_with_taints", "k=v", "--register-with-taints: taint 'k=v' has no effect"),
        ("register_with_taints", "k", "--register-with-taints: taint 'k' has no effect"),
        ("register_with_taints", "k=v:Never", "--register-with-taints: 'Never' is none of NoSchedule"),
        (
            "register_with_taints",
            "k=v:NoExecute,k=w:NoExecute",
            "--register-with-taints: taint k:NoExecute is there twice",
        ),
        ("container_runtime_endpoint", "tcp://h:1", "--container-runtime-endpoint: 'tcp://h:1' is no unix socket"),
        ("cgroup_root", "edge", "--cgroup-root: 'edge' is no absolute cgroup path"),
        ("system_reserved", "disk=1Gi", "--system-reserved: 'disk' cannot be reserved"),
        ("kube_reserved", "cpu=lots", "--kube-reserved: not a resource quantity: 'lots'"),
        ("kube_reserved", "cpu=-1", "--kube-reserved: cpu=-1 is less than nothing"),
        ("enforce_node_allocatable", "all", "--enforce-node-allocatable: 'all' is none of pods"),
        ("enforce_node_allocatable", "kube-reserved", "--enforce-node-allocatable=kube-reserved also needs"),
        ("pod_max_pids", "-2", "--pod-max-pids: -2 is not between"),
        ("cgroup_driver", "cgroup", "--cgroup-driver: 'cgroup' is none of"),
        ("full_resync_period", "soon", "--full-resync-period: 'soon' is no duration: write 90s or 1m30s"),
        ("full_resync_period", "0s", "--full-resync-period: '0s' is not more than zero"),
        ("provider", " ", "--provider: no provider named; see edgelet providers"),
        ("log_level", "loud", "--log-level: 'loud' is none of trace"),
        ("disable_taint", "maybe", "--disable-taint: neither true nor false: 'maybe'"),
        ("root_dir", "", "--root-dir: no path given"),
        *(
            ("preloaded_images_verification_allowlist", pattern, "--preloaded-images-verification-allowlist: ")
            for pattern in ("/*", "*", "a*b", "a/*/b", "a:1", "r:5000/a:1", "a@sha256:0")
        ),
        *(
            ("image_rewrites", f"{wrong}=r.example", f"--image-rewrites: {wrong!r} is no registry, and no beginning")
            for wrong in (
                "",
                "/",
                "library",
                "busybox:latest",
                "Docker.io/A",
                "docker.io/a:1",
                "docker.io//a",
                "a@b.example",
            )
        ),
        ("image_rewrites", "docker.io", "--image-rewrites: 'docker.io' is not written key=value"),
        ("image_rewrites", "docker.io=", "--image-rewrites: '' is no registry"),
        ("image_rewrites", "quay.io/a=r.example,quay.io/a/=s.example", "--image-rewrites: quay.io/a is there twice"),
        ("registry_qps", "-1", "--registry-qps: '-1' is no number from 0 on"),
        ("registry_qps", "often", "--registry-qps: 'often' is no number from 0 on"),
        ("image_pull_credentials_verification_policy", "Sometimes", "--image-pull-credentials-verification-policy: "),
        ("allowed_unsafe_sysctls", "net..a", "--allowed-unsafe-sysctls: 'net..a' is no name of a kernel parameter"),
        ("allowed_unsafe_sysctls", "net.*.a", "--allowed-unsafe-sysctls: 'net.*.a' is no name of a kernel parameter"),
        ("allowed_unsafe_sysctls", "vm.swappiness", "--allowed-unsafe-sysctls: 'vm.swappiness' is not known to belong"),
        ("allowed_unsafe_sysctls", "kernel.*", "--allowed-unsafe-sysctls: 'kernel.*' is not known to belong"),
        ("allowed_unsafe_sysctls", "*", "--allowed-unsafe-sysctls: '*' is not known to belong"),
        ("scripts_namespaces", "*", "--scripts-namespaces: '*' is no namespace"),
        ("scripts_namespaces", "a.b", "--scripts-namespaces: 'a.b' is no namespace"),
        ("scripts_service_accounts", "*", "--scripts-service-accounts: '*' is no service account"),
        ("scripts_service_accounts", "*/a", "--scripts-service-accounts: '*' is no namespace"),
        ("tls_cert_file", "/nope", "--tls-cert-file: no such file: /nope"),
    ],
)
def test_a_wrong_flag_gets_one_line_that_names_it(field: str, given: str, message: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(message)) as caught:
        settle({field: given})
    assert "\n" not in str(caught.value)


def test_yaml_values_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^edge.yaml: nodeLabels: not a text: True \(put it in quotes\)$"):
        settle({}, {}, {"nodeLabels": {"gpu": True}})
    with pytest.raises(ConfigError, match=r"^edge.yaml: maxPods: not a whole number: True$"):
        settle({}, {}, {"maxPods": True})
    with pytest.raises(ConfigError, match=r"^edge.yaml: registerWithTaints: a taint has no 'efect'"):
        settle({}, {}, {"registerWithTaints": [{"key": "k", "efect": "NoSchedule"}]})


@pytest.mark.parametrize(
    "key",
    [
        "kubernetes.io/role",
        "node-role.kubernetes.io/worker",
        "node-restriction.kubernetes.io/zone",
        "k8s.io/x",
        "team.k8s.io/x",
    ],
)
def test_a_label_that_no_node_may_give_itself_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^--node-labels: label '{key}' is reserved"):
        settle({"node_labels": f"{key}=a"})


@pytest.mark.parametrize(
    "key",
    [
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/pool",
        "x.node.kubernetes.io/pool",
        "kubelet.kubernetes.io/x",
        "example.com/role",
        "kubernetes.io.example.com/x",
    ],
)
def test_labels_that_a_node_may_give_itself_are_kept(key: str) -> None:
    assert settle({"node_labels": f"{key}=a"}).node_labels == {key: "a"}


def test_a_node_of_another_provider_is_tainted_unless_told_otherwise() -> None:
    own = Taint("virtual-kubelet.io/provider", "mock", "NoSchedule")
    assert settle({"provider": "mock"}).provider_taint == own
    assert settle({"provider": "zoo.cage:Zoo"}).provider_taint == replace(own, value="Zoo")
    assert settle({"provider": "mock", "provider_taint": "k=v:NoExecute"}).provider_taint == Taint(
        "k", "v", "NoExecute"
    )
    assert settle({"provider": "mock"}, {"VKUBELET_TAINT_EFFECT": "NoExecute"}).provider_taint == replace(
        own, effect="NoExecute"
    )
    with pytest.raises(ConfigError, match=r"^--provider: label .* cannot have the value '_Hidden'"):
        settle({"provider": "zoo:_Hidden"})


@pytest.mark.parametrize("name", ["containerd", "mynode", "example-provider"])
def test_the_older_names_of_our_own_provider_mean_it_and_give_no_taint(name: str) -> None:
    settings = settle({"provider": name})
    assert (settings.provider, settings.provider_taint) == ("containerd", None)
    assert settings.provider_events == (name != "containerd")
    assert not settle({"provider": name, "provider_events": "false"}).provider_events


def test_a_duration_is_gos_or_bare_seconds() -> None:
    for given, seconds in {"1m30s": 90, "90": 90, "0.5s": 0.5, "2h": 7200, "250ms": 0.25}.items():
        assert settle({"full_resync_period": given}).full_resync_period == seconds
    assert settle({}, {}, {"fullResyncPeriod": 90}).full_resync_period == 90


def test_a_provider_config_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"^--provider-config: no such file: /nope$"):
        settle({"provider_config": "/nope"})
    assert settle({"provider_config": "/p"}, present=("/p",)).provider_config == Path("/p")


def test_the_provider_taint_is_filled_in_as_virtual_kubelet_does() -> None:
    assert settle().provider_taint is None
    assert settle({"provider_taint": "edge"}).provider_taint == Taint("edge", "containerd", "NoSchedule")
    environ = {"VKUBELET_TAINT_KEY": "edge", "VKUBELET_TAINT_VALUE": "far", "VKUBELET_TAINT_EFFECT": "NoExecute"}
    assert settle({}, environ).provider_taint == Taint("edge", "far", "NoExecute")
    only_value = settle({}, {"VKUBELET_TAINT_VALUE": "far"})
    assert only_value.provider_taint == Taint("virtual-kubelet.io/provider", "far", "NoSchedule")
    assert settle({"provider_taint": "k=v:NoExecute"}, environ).provider_taint == Taint("k", "v", "NoExecute")
    with pytest.raises(ConfigError, match="VKUBELET_TAINT_EFFECT: 'Never' is none of"):
        settle({}, {"VKUBELET_TAINT_EFFECT": "Never"})


def test_image_rewrites_are_pairs_whose_slash_at_the_end_says_nothing() -> None:
    pairs = (("docker.io/library", "r.example:5000/lib"), ("quay.io", "localhost/q"))
    assert (
        settle({"image_rewrites": "docker.io/library/=r.example:5000/lib,quay.io=localhost/q"}).image_rewrites == pairs
    )
    file = {"imageRewrites": {"docker.io/library/": "r.example:5000/lib/", "quay.io": "localhost/q"}}
    assert settle({}, {}, file).image_rewrites == pairs


def test_certificate_and_key_go_together() -> None:
    with pytest.raises(ConfigError, match="go together"):
        settle({"tls_cert_file": "/c"}, present=("/c",))
    assert settle({"tls_cert_file": "/c", "tls_private_key_file": "/k"}, present=("/c", "/k")).tls_cert_file == Path(
        "/c"
    )


def test_scripts_are_off_and_need_both_lists_to_be_on() -> None:
    assert not settle().scripts_enabled
    flags = {"scripts_enabled": "true", "scripts_namespaces": "default, site"}
    with pytest.raises(ConfigError, match=r"^--scripts-enabled also needs --scripts-namespaces and --scripts-service"):
        settle(flags)
    settings = settle({**flags, "scripts_service_accounts": "default,site/keeper"})
    assert settings.scripts_namespaces == ("default", "site")
    assert settings.scripts_service_accounts == ("default", "site/keeper")
    file: dict[str, object] = {
        "scriptsEnabled": True,
        "scriptsNamespaces": ["default", "site"],
        "scriptsServiceAccounts": ["default", "site/keeper"],
    }
    assert settle({}, {}, file) == settings


def test_a_socket_may_be_given_as_a_path() -> None:
    assert settle({"container_runtime_endpoint": "/run/c.sock"}).container_runtime_endpoint == "unix:///run/c.sock"


def test_both_families_make_a_dual_stack_node() -> None:
    assert settle({"node_ip": "10.0.0.1,fd00:0::1"}).node_ip == "10.0.0.1,fd00::1"


def test_warn_is_another_word_for_warning() -> None:
    assert settle({"log_level": "WARN"}).log_level == "warning"


def test_the_sample_file_is_true_and_shows_every_setting() -> None:
    """Every setting stands in it, commented out with a value that is taken."""
    text = (ROOT / "config" / "edgelet.sample.yaml").read_text()
    settings = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)
    sample = yaml.safe_load(settings)
    assert sorted(sample) == sorted(option.file_key for option in OPTIONS)
    files = tuple(str(value) for value in sample.values())
    assert settle({}, {}, sample, present=files).max_pods == 110
    assert yaml.safe_load(text) is None


def test_the_configuration_reference_names_every_flag_variable_key_and_default() -> None:
    rows = {
        row.split("|")[1].strip(): row
        for row in (ROOT / "docs" / "configuration.md").read_text().splitlines()
        if row.startswith("| `--")
    }
    for option in OPTIONS:
        row = rows.pop(f"`--{option.flag}`")
        assert f"`{option.file_key}`" in row
        assert option.env in row
        assert option.default_in_words().replace("`", "") in row.replace("`", "")
    assert list(rows) == ["`--config`"]


def test_headers_and_the_time_of_priorities_are_taken_as_a_kubelets_file_has_them() -> None:
    by_flag = settle({"manifest_url_header": "A:b,C: d:e", "shutdown_grace_period_by_pod_priority": "100=7,0=5"})
    assert by_flag.manifest_url_header == {"A": "b", "C": "d:e"}
    assert by_flag.shutdown_grace_period_by_pod_priority == ((0, 5), (100, 7))
    listed = [{"priority": 100, "shutdownGracePeriodSeconds": 7}, {"priority": 0, "shutdownGracePeriodSeconds": 5}]
    file = {
        "staticPodURL": "https://user:word@host/pods",
        "staticPodURLHeader": {"A": ["b"], "C": "d:e"},
        "shutdownGracePeriodByPodPriority": listed,
    }
    by_file = settle({}, {}, file)
    assert by_file.manifest_url_header == by_flag.manifest_url_header
    assert by_file.shutdown_grace_period_by_pod_priority == by_flag.shutdown_grace_period_by_pod_priority
    assert "word" not in repr(by_file)
    with pytest.raises(ConfigError, match="use one"):
        settle({"shutdown_grace_period": "30s", "shutdown_grace_period_by_pod_priority": "0=5"})


def test_reserved_cpus_and_reserved_cgroups_exclude_each_other() -> None:
    assert settle({"reserved_cpus": "0-1,4"}).reserved_cpus == "0-1,4"
    with pytest.raises(ConfigError, match=r"^--reserved-cpus does not go together"):
        settle({"reserved_cpus": "0", "system_reserved_cgroup": "/system.slice"})
