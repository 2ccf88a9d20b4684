"""The agent's settings: one frozen value, made once at the start, read everywhere, never changed.

A leaf: imports nothing of agent. `agent.options` makes it from flags, environment and the settings file.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from agent.discreet import Discreet


class Taint(msgspec.Struct, frozen=True):
    key: str
    value: str
    effect: str


JOINED_KUBECONFIG = Path("/etc/edgelet/kubeconfig")
"""Where `edgelet join` writes unless told otherwise."""

EVERY_REGISTRY = "*"


class Mirror(msgspec.Struct, frozen=True):
    """Asked before the registry itself."""

    url: str
    override_path: bool = False
    """The URL's path is where the API begins, without a /v2 after it."""


class Registry(msgspec.Struct, frozen=True):
    """How one host is asked for images, be it a registry or a mirror of one."""

    host: str
    """As in images' names, with its port; EVERY_REGISTRY: all that have no entry of their own."""
    mirrors: tuple[Mirror, ...] = ()
    fallback: bool = True
    """What no mirror has is asked of the registry itself."""
    plain_http: bool = False
    ca: str = ""
    """Beside the machine's own: an absolute path, or PEM."""
    skip_verify: bool = False
    client_cert: Path | None = None
    client_key: Path | None = None
    """None: the key is in the file of the certificate."""
    username: str = ""
    password_file: Path | None = None
    """Read at each pull."""


EVICTION_HARD = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}


class Settings(Discreet, frozen=True):
    """Every setting with its default. Paths are absolute or relative to the working folder; times are seconds."""

    hidden: ClassVar = frozenset({"store", "manifest_url", "manifest_url_header", "policy_default"})
    node_name: str
    kubeconfig: Path | None = None
    """None: standalone, static manifests only."""
    bootstrap_kubeconfig: Path | None = None
    """What may ask for the node's certificate where there is none yet, or where it ended."""
    cert_dir: Path | None = None
    """Issued certificates; None: `pki` in the root folder."""
    rotate_certificates: bool = True
    """The client certificate that was issued to this node is renewed in time."""
    rotate_server_certificates: bool = False
    """The certificate of the kubelet API comes from the cluster."""
    provider: str = "containerd"
    """A registered name, or module:Class."""
    provider_events: bool = False
    """Events of virtual-kubelet's names also for what a provider that supervises its pods did well."""
    provider_config: Path | None = None
    """The provider's own settings, read by it alone."""
    full_resync_period: float = 60.0
    """Between two looks at whether the provider has all pods of this node, and no others."""
    node_ip: str = ""
    """InternalIP: one address, or one of each family with a comma between; empty: the address of the default route."""
    container_runtime_endpoint: str = "unix:///run/containerd/containerd.sock"
    root_dir: Path = Path("/var/lib/edgelet")
    device_plugin_dir: Path | None = None
    """Where device plugins register; None: `device-plugins` in the root folder."""
    store: str = ""
    """URL of the record; empty: a SQLite file in the root folder. It may have a password in it."""
    store_key_file: Path | None = None
    """Key of what is sealed in the record; None: beside the root folder, never in it."""
    pod_manifest_path: Path | None = None
    manifest_url: str = ""
    """Where static pods are asked for; empty: nowhere. It may have a password in it."""
    manifest_url_header: dict[str, str] = {}
    http_check_frequency: float = 20.0
    shutdown_grace_period: float = 0.0
    """What pods have when the machine goes down; 0: nobody waits for them."""
    shutdown_grace_period_critical_pods: float = 0.0
    """The last part of it, for critical pods alone."""
    shutdown_grace_period_by_pod_priority: tuple[tuple[int, int], ...] = ()
    """Instead of both: seconds by priority, lowest first."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    max_pods: int = 110
    node_lease_duration: int = 40
    """Seconds that a renewal of the Node's lease is good for; it is renewed when half of them are over."""
    node_labels: dict[str, str] = {}
    register_with_taints: tuple[Taint, ...] = ()
    disable_taint: bool = False
    """No provider taint on the Node, whatever `provider_taint` says (virtual-kubelet's flag)."""
    provider_taint: Taint | None = None
    """A taint that tells this Node's provider, as virtual-kubelet sets it."""
    log_level: str = "info"
    log_format: str = "text"
    port: int = 10250
    """HTTPS port of the kubelet API; 0: do not listen."""
    address: str = ""
    """Listening address of the kubelet API; empty: every address, IPv4 and IPv6."""
    tls_cert_file: Path | None = None
    tls_private_key_file: Path | None = None
    client_ca_file: Path | None = None
    """CA of client certificates; None: the cluster's CA from the kubeconfig."""
    authentication_token_webhook: bool = True
    """The kubelet API takes bearer tokens, which the API server reviews."""
    authentication_token_webhook_cache_ttl: float = 120.0
    authorization_mode: str = "Webhook"
    """Webhook: the API server decides what a client may do. AlwaysAllow: everybody who is known may do everything."""
    authorization_webhook_cache_authorized_ttl: float = 300.0
    authorization_webhook_cache_unauthorized_ttl: float = 30.0
    streaming_connection_idle_timeout: float = 4 * 3600.0
    """After so long without a byte an exec, attach or port-forward ends."""
    enable_system_log_handler: bool = False
    """The kubelet API shows the files in /var/log."""
    read_only_port: int = 0
    """HTTP port without authentication, for what can only be read; 0: none."""
    local_api: tuple[str, int] | None = ("127.0.0.1", 10550)
    """Where the local API listens, with TLS; None: nowhere."""
    inject_local_api: bool = False
    """Pods find the local API where they look for the API server."""
    local_api_secrets: bool = False
    """The local API shows recorded Secrets too."""
    pod_logs_dir: Path = Path("/var/log/pods")
    container_log_links_dir: Path = Path("/var/log/containers")
    cgroup_root: str = "/"
    """Cgroup below which `kubepods` is made."""
    cgroup_driver: str = ""
    """cgroupfs or systemd; empty: what the runtime says that it uses."""
    cpu_cfs_quota: bool = True
    """Cpu limits are enforced; requests weigh either way."""
    pod_max_pids: int = -1
    """Processes and threads of each pod; -1: as many as all pods together may have."""
    memory_qos: bool = False
    """On cgroup version 2 containers are throttled before they meet their memory limit."""
    memory_throttling_factor: float = 0.9
    """How far from request to limit that begins."""
    memory_reservation_policy: str = "None"
    """TieredReservation: with `memory_qos`, requests are kept from reclaim."""
    memory_swap_behavior: str = "NoSwap"
    """LimitedSwap: Burstable pods may swap in proportion to what they request (version 2)."""
    reserved_cpus: str = ""
    """CPUs, as a list, that are the system's: as many are taken off the allocatable ones."""
    system_reserved: dict[str, str] = {}
    """Resources that the system keeps from pods, as quantities by name: cpu, memory, ephemeral-storage, pid."""
    kube_reserved: dict[str, str] = {}
    """The same for the agent and the runtime."""
    enforce_node_allocatable: tuple[str, ...] = ("pods",)
    """Whom a cgroup keeps in bounds: pods, system-reserved, kube-reserved, and the two with -compressible."""
    live_capacity: bool = False
    """Allocatable follows what programs beside the pods use."""
    system_reserved_cgroup: str = ""
    kube_reserved_cgroup: str = ""
    eviction_hard: dict[str, str] = msgspec.field(default_factory=lambda: dict(EVICTION_HARD))
    """By signal, a quantity or a share (`10%`): with less than that available a pod goes at once."""
    eviction_soft: dict[str, str] = {}
    """The same, after `eviction_soft_grace_period` (seconds by signal) of it."""
    eviction_soft_grace_period: dict[str, float] = {}
    eviction_minimum_reclaim: dict[str, str] = {}
    """How much more than the threshold must be available before it counts as over, by signal."""
    eviction_max_pod_grace_period: int = 0
    """Seconds that a pod has at most to end at a soft threshold; negative: its own grace period."""
    eviction_pressure_transition_period: float = 300.0
    """A pressure counts as over only this long after it was last seen, so that a Node on the brink does not flap."""
    resolv_conf: Path | None = Path("/etc/resolv.conf")
    """What pods with the node's DNS inherit; None: nothing."""
    parallel_starts: int = 4
    """Pods whose sandboxes are made at the same time: more at once slows the runtime down."""
    max_parallel_image_pulls: int = 5
    registry_qps: float = 5.0
    """Pulls begun a second, after the first `registry_burst`; 0: as many as wanted."""
    registry_burst: int = 10
    offline_images: str = "present"
    """What policy Always means while the registry can't be reached: the image that is "present", or "none"."""
    image_pull_credentials_verification_policy: str = "NeverVerifyPreloadedImages"
    preloaded_images_verification_allowlist: tuple[str, ...] = ()
    """Images for every pod, if the policy is NeverVerifyAllowlistedImages: names without tag, or prefixes with /*."""
    image_credential_provider_config: Path | None = None
    """A CredentialProviderConfig, or a folder of them; goes with the folder of its programs."""
    image_credential_provider_bin_dir: Path | None = None
    registries: tuple[Registry, ...] = ()
    registry_auth_file: Path | None = None
    """A Docker configuration: the node's own logins, for every pod."""
    image_rewrites: tuple[tuple[str, str], ...] = ()
    """(from, to), prefixes of image names in full: pulled from the second, and called what the pod calls it."""
    prefetch: tuple[str, ...] = ()
    """Images that are pulled before a pod needs them, and kept."""
    prefetch_rate: int = 0
    """Bytes a second for them on the whole; 0: as fast as it goes."""
    prefetch_window: tuple[tuple[int, int], ...] = ()
    """Times of day for them, in minutes since midnight; none: always."""
    image_bundles: Path | None = None
    """A folder of archives that are imported as images, and kept; None: `images` in the root folder."""
    image_gc_high_threshold: int = 85
    """Percent of the images' file system in use from which unused images are removed; 100: never for that."""
    image_gc_low_threshold: int = 80
    """Percent at which that ends."""
    minimum_image_ttl_duration: float = 120.0
    """So long an unused image stays from when it was first seen."""
    image_maximum_gc_age: float = 0.0
    """Unused for so long, it goes however much room there is; 0: it does not."""
    maximum_dead_containers_per_container: int = 1
    """Ended runs of a container that are kept beside its newest; -1: all."""
    minimum_container_ttl_duration: float = 0.0
    """So long an ended container stays, whatever became of its pod."""
    container_log_max_size: int = 10 * 2**20
    """Bytes from which a container's log is rotated; less than 0: it is not."""
    container_log_max_files: int = 5
    """Files that a container's log has at most, the current one too."""
    container_log_monitor_interval: float = 10.0
    """Between two looks at the logs' sizes."""
    log_spool_size: int = 100 * 2**20
    """Bytes of logs that stay on disk only because they are not sent yet; over that the oldest go."""
    seccomp_default: bool = False
    """Containers that ask for no seccomp profile get the runtime's instead of none."""
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    """Kernel parameters that pods may set beside the safe ones: names, or prefixes that end in `*`."""
    scripts_enabled: bool = False
    """Pods may be programs of the host, where the two lists below allow it."""
    scripts_namespaces: tuple[str, ...] = ()
    scripts_service_accounts: tuple[str, ...] = ()
    """NAME in each of those namespaces, or NAMESPACE/NAME."""
    policy_default: dict[str, str] = {}
    """Policies of pods that say nothing themselves, by annotation."""
    policy_host_namespaces: tuple[str, ...] = ()
    """Whose pods may have policies that give power over the host; `*`: all."""
    fixed_ip_retention: float = 86400.0
    """Seconds that an address is kept for a pod (`edgelet.io/fixed-ip`) after the pod has gone."""
