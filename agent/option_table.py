"""Every setting's names, form, help and default in one table.

What reads flags, environment and file, the help text and the docs all come from it.
"""

from __future__ import annotations

from pathlib import Path

from agent import option_eviction, option_garbage, option_labels, option_periods, option_registries
from agent import option_values as form
from agent.config import EVICTION_HARD, JOINED_KUBECONFIG
from agent.option import Option
from agent.option_node_api import NODE_API
from agent.option_policies import POLICY_OPTIONS
from agent.option_prefetch import PREFETCH

DEFAULT_KUBECONFIG = Path("config/config.yaml")
DEFAULT_MANIFESTS = Path("config/manifests")
DEFAULT_TAINT_KEY = "virtual-kubelet.io/provider"
TAINT_VALUE_ENV = "VKUBELET_TAINT_VALUE"
TAINT_EFFECT_ENV = "VKUBELET_TAINT_EFFECT"

OPTIONS: tuple[Option, ...] = (
    Option(
        "kubeconfig", "kubeconfig", form.optional_path, "FILE",
        "the cluster to join; empty: standalone, with static pods only",
        env="KUBECONFIG", default=f"{DEFAULT_KUBECONFIG} or {JOINED_KUBECONFIG} where it exists, else standalone",
    ),
    Option(
        "bootstrap_kubeconfig", "bootstrap-kubeconfig", form.optional_path, "FILE",
        "asks for the node's certificate where the kubeconfig is missing or its certificate ended", default="none",
    ),
    Option(
        "cert_dir", "cert-dir", form.optional_path, "DIR", "certificates that the cluster issued to this node",
        default="ROOT_DIR/pki",
    ),
    Option(
        "rotate_certificates", "rotate-certificates", form.switch, "BOOL",
        "renew the client certificate in CERT_DIR in time",
    ),
    Option(
        "rotate_server_certificates", "rotate-server-certificates", form.switch, "BOOL",
        "have the certificate of the node's API signed by the cluster, and renewed; somebody there has to approve it",
        key="serverTLSBootstrap",
    ),
    Option(
        "node_name", "nodename", form.node_name, "NAME", "the Node's name",
        key="nodeName", env="DEFAULT_NODE_NAME", flag_alias="hostname-override", default="the host name",
    ),
    Option(
        "provider", "provider", form.provider, "NAME",
        "who runs the pods: a name that `edgelet providers` lists, or module:Class; mynode and example-provider mean"
        " containerd",
    ),
    Option(
        "provider_events", "provider-events", form.switch, "BOOL",
        "pods of containerd have virtual-kubelet's events ProviderCreateSuccess and ProviderUpdateSuccess too, two"
        " requests more for each pod",
        default="true where the provider is named mynode or example-provider, else false",
    ),
    Option(
        "provider_config", "provider-config", form.optional_path, "FILE", "the provider's own settings",
        default="none",
    ),
    Option(
        "full_resync_period", "full-resync-period", form.duration, "DURATION",
        "how often to see whether the provider has all pods of this node and no others", default="1m",
    ),
    Option(
        "node_ip", "node-ip", form.node_ips, "ADDRESS",
        "the Node's InternalIP: one address, or one IPv4 and one IPv6 with a comma between",
        key="nodeIP", env="VKUBELET_POD_IP", default="the address of the default route",
    ),
    Option("node_labels", "node-labels", option_labels.labels, "KEY=VALUE,...", "labels of the Node", many=True),
    Option(
        "register_with_taints", "register-with-taints", option_labels.taints, "KEY=VALUE:EFFECT,...",
        "taints that the Node is made with", many=True,
    ),
    Option(
        "provider_taint", "taint", option_labels.provider_taint, "KEY[=VALUE:EFFECT]",
        "taint the Node with its provider; the value is the provider's name and the effect NoSchedule unless given"
        f" here or in {TAINT_VALUE_ENV} and {TAINT_EFFECT_ENV}",
        env="VKUBELET_TAINT_KEY", default=f"{DEFAULT_TAINT_KEY}=PROVIDER:NoSchedule, none with containerd",
    ),
    Option("disable_taint", "disable-taint", form.switch, "BOOL", "no provider taint, whatever else says so"),
    Option("max_pods", "max-pods", form.whole(0, 100_000), "N", "pods that the Node takes"),
    Option(
        "node_lease_duration", "node-lease-duration-seconds", form.whole(4, 3600), "SECONDS",
        "how long the Node's lease is good for; it is renewed when half of that is over",
    ),
    Option(
        "container_runtime_endpoint", "container-runtime-endpoint", form.endpoint, "URL", "the runtime's CRI socket",
    ),
    Option("root_dir", "root-dir", form.path, "DIR", "the record of pods, and their volumes"),
    Option(
        "device_plugin_dir", "device-plugin-dir", form.optional_path, "DIR", "where device plugins register",
        default="ROOT_DIR/device-plugins",
    ),
    Option(
        "store", "store", form.store, "URL",
        "the record: sqlite:///PATH, or beside a local copy redis://HOST, rediss://, redis+sentinel://, etcd://, etcds://",
        env="EDGELET_STORE", default="sqlite, ROOT_DIR/record.db",
    ),
    Option(
        "store_key_file", "store-key-file", form.optional_path, "FILE",
        "the key that Secrets and tokens are sealed with in the record; made where it is missing",
        default="ROOT_DIR.key, beside the root folder",
    ),
    Option(
        "pod_manifest_path", "pod-manifest-path", form.optional_path, "PATH", "folder or file of static pods",
        default=f"{DEFAULT_MANIFESTS} when standalone, else none",
    ),
    Option(
        "manifest_url", "manifest-url", option_periods.http_url, "URL",
        "static pods from there: a Pod or a list, YAML or JSON", key="staticPodURL", default="none",
    ),
    Option(
        "manifest_url_header", "manifest-url-header", option_periods.headers, "NAME:VALUE,...",
        "HTTP headers of those requests", key="staticPodURLHeader", many=True, default="none",
    ),
    Option(
        "http_check_frequency", "http-check-frequency", form.duration, "DURATION",
        "how often the manifest URL is asked", default="20s",
    ),
    Option(
        "shutdown_grace_period", "shutdown-grace-period", option_periods.whole_seconds, "DURATION",
        "what pods have when the machine is shut down (systemd waits for them); 0: nothing", default="0",
    ),
    Option(
        "shutdown_grace_period_critical_pods", "shutdown-grace-period-critical-pods", option_periods.whole_seconds,
        "DURATION", "the last part of it, for critical pods alone", default="0",
    ),
    Option(
        "shutdown_grace_period_by_pod_priority", "shutdown-grace-period-by-pod-priority", option_periods.priorities,
        "PRIORITY=SECONDS,...", "instead of both: the time of pods of at least this priority", many=True,
        default="none",
    ),
    Option("pod_logs_dir", "pod-logs-dir", form.path, "DIR", "containers' logs"),
    Option(
        "container_log_links_dir", "container-log-links-dir", form.path, "DIR",
        "links to the logs, by which log shippers find them",
    ),
    Option("cluster_dns", "cluster-dns", form.addresses, "ADDRESS,...", "DNS servers of the cluster, for its pods",
           key="clusterDNS", many=True, default="none"),
    Option("cluster_domain", "cluster-domain", form.domain, "DOMAIN", "the cluster's DNS domain"),
    Option(
        "resolv_conf", "resolv-conf", form.optional_path, "FILE",
        "what pods with the node's own DNS get; empty: nothing",
    ),
    Option("cgroup_root", "cgroup-root", form.cgroup, "PATH", "cgroup below which pods' cgroups are made"),
    Option(
        "cgroup_driver", "cgroup-driver", form.choice("cgroupfs", "systemd", ""), "NAME",
        "who makes pods' cgroups: cgroupfs or systemd", default="what the runtime uses",
    ),
    Option(
        "cpu_cfs_quota", "cpu-cfs-quota", form.switch, "BOOL", "enforce containers' cpu limits",
        key="cpuCFSQuota",
    ),
    Option(
        "pod_max_pids", "pod-max-pids", form.whole(-1, 4_194_304), "N",
        "processes and threads of each pod; -1: only all pods together are limited",
        key="podPidsLimit",
    ),
    Option(
        "memory_qos", "memory-qos", form.switch, "BOOL",
        "on cgroup version 2 throttle containers before they meet their memory limit", key="memoryQoS",
    ),
    Option(
        "memory_throttling_factor", "memory-throttling-factor", option_periods.factor, "FACTOR",
        "with it: how far on the way from request to limit, or to the node's allocatable memory",
    ),
    Option(
        "memory_reservation_policy", "memory-reservation-policy", form.choice("None", "TieredReservation"), "POLICY",
        "with it: TieredReservation keeps what pods request from being reclaimed",
    ),
    Option(
        "memory_swap_behavior", "memory-swap-behavior", form.choice("NoSwap", "LimitedSwap"), "BEHAVIOR",
        "LimitedSwap: Burstable pods may swap in proportion to what they request, on cgroup version 2",
    ),
    Option(
        "reserved_cpus", "reserved-cpus", option_periods.cpus, "CPUS",
        "CPUs of the system, as 0-1,4: as many are not allocatable, instead of any cpu reserved below",
        key="reservedSystemCPUs", default="none",
    ),
    Option(
        "system_reserved", "system-reserved", form.reserved, "RESOURCE=QUANTITY,...",
        "what pods leave to the system: cpu, memory, ephemeral-storage, pid", many=True, default="none",
    ),
    Option(
        "kube_reserved", "kube-reserved", form.reserved, "RESOURCE=QUANTITY,...",
        "what pods leave to the agent and the runtime", many=True, default="none",
    ),
    Option(
        "enforce_node_allocatable", "enforce-node-allocatable", form.enforced, "NAME,...",
        "who is kept in these bounds by cgroups: pods, system-reserved, kube-reserved, system-reserved-compressible,"
        " kube-reserved-compressible, or none",
        many=True, default="pods",
    ),
    Option(
        "live_capacity", "live-capacity", form.switch, "BOOL",
        "on a machine that pods share: allocatable cpu and memory are less while other programs use more than what is"
        " reserved for them",
    ),
    Option(
        "system_reserved_cgroup", "system-reserved-cgroup", form.optional_cgroup, "PATH",
        "the system's cgroup, where it is to be enforced", default="none",
    ),
    Option(
        "kube_reserved_cgroup", "kube-reserved-cgroup", form.optional_cgroup, "PATH",
        "the cgroup of agent and runtime, where it is to be enforced", default="none",
    ),
    Option(
        "eviction_hard", "eviction-hard", option_eviction.thresholds, "SIGNAL<AMOUNT,...",
        "with less of it available pods go at once: memory.available, nodefs.available, nodefs.inodesFree,"
        " imagefs.available, imagefs.inodesFree, pid.available; what is given replaces the whole default, empty: none",
        many=True, default=",".join(f"{signal}<{amount}" for signal, amount in EVICTION_HARD.items()),
    ),
    Option(
        "eviction_soft", "eviction-soft", option_eviction.thresholds, "SIGNAL<AMOUNT,...",
        "the same, once it lasts for the signal's --eviction-soft-grace-period", many=True, default="none",
    ),
    Option(
        "eviction_soft_grace_period", "eviction-soft-grace-period", option_eviction.grace_periods,
        "SIGNAL=DURATION,...", "how long a soft threshold must be crossed before pods go", many=True, default="none",
    ),
    Option(
        "eviction_minimum_reclaim", "eviction-minimum-reclaim", option_eviction.minimum_reclaims,
        "SIGNAL=AMOUNT,...", "how much more than its threshold a signal must have again before no more pods go",
        many=True, default="none",
    ),
    Option(
        "eviction_max_pod_grace_period", "eviction-max-pod-grace-period", form.whole(-1, 2**31 - 1), "SECONDS",
        "how long a pod has at most to end at a soft threshold; -1: its own grace period",
    ),
    Option(
        "eviction_pressure_transition_period", "eviction-pressure-transition-period", form.duration, "DURATION",
        "how long a pressure must be over before the Node says so", default="5m",
    ),
    Option("parallel_starts", "parallel-starts", form.whole(1, 1000), "N", "pods started at the same time"),
    Option(
        "max_parallel_image_pulls", "max-parallel-image-pulls", form.whole(1, 1000), "N",
        "images pulled at the same time", flag_alias="registry-pull-limit",
    ),
    Option(
        "registry_qps", "registry-qps", form.rate, "N", "image pulls begun a second; 0: as many as wanted",
        key="registryPullQPS", default="5",
    ),
    Option(
        "registry_burst", "registry-burst", form.whole(1, 100_000), "N",
        "image pulls that may begin at once all the same",
    ),
    Option(
        "offline_images", "offline-images", form.choice("present", "none"), "WHICH",
        "what a container with the pull policy Always is started from while its registry can't be reached: the image"
        " that is present, or none",
    ),
    Option(
        "image_pull_credentials_verification_policy", "image-pull-credentials-verification-policy",
        form.choice("NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"),
        "POLICY",
        "images on the machine that a pod has to show credentials for, unless they were pulled without any:"
        " AlwaysVerify, NeverVerify, or which of them it need not",
    ),
    Option(
        "preloaded_images_verification_allowlist", "preloaded-images-verification-allowlist", form.images,
        "IMAGE,...", "images that NeverVerifyAllowlistedImages means; IMAGE has no tag and may end in /*", many=True,
        default="none",
    ),
    Option(
        "image_credential_provider_config", "image-credential-provider-config", form.optional_path, "PATH",
        "a CredentialProviderConfig, or a folder of them: programs that give credentials for images", default="none",
    ),
    Option(
        "image_credential_provider_bin_dir", "image-credential-provider-bin-dir", form.optional_path, "DIR",
        "the folder of those programs", default="none",
    ),
    Option(
        "registries", "registries", option_registries.registries, "YAML",
        "how registries and their mirrors are asked, by host: mirrors, fallback, plainHttp, ca, skipVerify, clientCert,"
        " clientKey, username, passwordFile",
        default="none",
    ),
    Option(
        "registry_auth_file", "registry-auth-file", form.optional_path, "FILE",
        "the node's own logins to registries, for every pod: a Docker configuration (auths)", default="none",
    ),
    Option(
        "image_rewrites", "image-rewrites", option_registries.rewrites, "FROM=TO,...",
        "images whose names begin with FROM are pulled from TO instead, and keep the name that the pod has for them;"
        " FROM and TO are a registry, or a registry and the first parts of a repository",
        many=True, default="none",
    ),
    *PREFETCH,
    Option(
        "image_gc_high_threshold", "image-gc-high-threshold", form.whole(0, 100), "PERCENT",
        "images that nothing uses are removed when so much of their file system is in use; 100: not for that",
        key="imageGCHighThresholdPercent",
    ),
    Option(
        "image_gc_low_threshold", "image-gc-low-threshold", form.whole(0, 100), "PERCENT",
        "until so much is in use", key="imageGCLowThresholdPercent",
    ),
    Option(
        "minimum_image_ttl_duration", "minimum-image-ttl-duration", option_garbage.age, "DURATION",
        "how long an image that nothing uses stays at least", key="imageMinimumGCAge", default="2m",
    ),
    Option(
        "image_maximum_gc_age", "image-maximum-gc-age", option_garbage.age, "DURATION",
        "how long an image that nothing uses stays at most; 0: as long as there is room", key="imageMaximumGCAge",
        default="0",
    ),
    Option(
        "maximum_dead_containers_per_container", "maximum-dead-containers-per-container", form.whole(-1, 1000), "N",
        "ended runs of each container that are kept beside its newest, for kubectl logs --previous; -1: all",
    ),
    Option(
        "minimum_container_ttl_duration", "minimum-container-ttl-duration", option_garbage.age, "DURATION",
        "how long an ended container stays at least, also when its pod is gone", default="0",
    ),
    Option(
        "container_log_max_size", "container-log-max-size", option_garbage.size, "QUANTITY",
        "a container's log is rotated from this size on; -1: never", default="10Mi",
    ),
    Option(
        "container_log_max_files", "container-log-max-files", form.whole(2, 1000), "N",
        "files that a container's log has at most",
    ),
    Option(
        "container_log_monitor_interval", "container-log-monitor-interval", form.duration, "DURATION",
        "how often the logs' sizes are looked at", default="10s",
    ),
    Option(
        "log_spool_size", "log-spool-size", option_garbage.room, "QUANTITY",
        "logs that wait on disk for a sink that is away (edgelet.io/logs); over that the oldest go", default="100Mi",
    ),
    Option(
        "seccomp_default", "seccomp-default", form.switch, "BOOL",
        "the runtime's seccomp profile, not none, for containers that ask for no profile",
    ),
    Option(
        "allowed_unsafe_sysctls", "allowed-unsafe-sysctls", form.sysctls, "NAME,...",
        "kernel parameters that pods may set beside the safe ones; NAME may end in *", many=True, default="none",
    ),
    Option(
        "scripts_enabled", "scripts-enabled", form.switch, "BOOL",
        "let pods be programs of the host (docs/scripts.md), where the two lists below allow it",
    ),
    Option(
        "scripts_namespaces", "scripts-namespaces", form.namespaces, "NAMESPACE,...",
        "namespaces whose pods may be programs of the host", many=True, default="none",
    ),
    Option(
        "scripts_service_accounts", "scripts-service-accounts", form.service_accounts, "[NAMESPACE/]NAME,...",
        "service accounts whose pods may be programs of the host", many=True, default="none",
    ),
    *POLICY_OPTIONS,
    *NODE_API,
    Option(
        "log_level", "log-level",
        form.choice("trace", "debug", "info", "warning", "error", aliases={"warn": "warning"}), "LEVEL",
        "trace, debug, info, warning or error",
    ),
    Option("log_format", "log-format", form.choice("text", "json"), "FORMAT", "text or json (one object a line)"),
)  # fmt: skip
