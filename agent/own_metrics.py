"""What the agent counts of itself: one place that names every series of /metrics and /metrics/probes.

Names are a kubelet's where a series means the same, so that dashboards and alerts written for kubelets work; what only
this agent has begins with `edgelet_`. Parts of the agent count by the instruments here; the composition root says how
gauges are read.
"""

from __future__ import annotations

from typing import Final

from agent.exposition import Kind
from agent.instruments import Counter, Gauge, Histogram

_CALLS: Final = (0.005, 0.0125, 0.03125, 0.078125, 0.1953125, 0.48828125, 1.220703125, 3.0517578125, 7.62939453125)
"""Seconds that a call to the runtime may take; the five further steps of a kubelet are calls that hang."""
_CALL_BOUNDS: Final = (*_CALLS, 19.073486328125, 47.6837158203125, 119.20928955078125, 298.0232238769531)
_DEFAULT: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_START: Final = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700)
_START_BOUNDS: Final = (*_START, 3600)

# ------------------------------------------------------------ a kubelet's names

NODE_NAME = Gauge("kubelet_node_name", "The node's name; always 1.", "node")
RUNNING_PODS = Gauge("kubelet_running_pods", "Pods whose sandbox runs.")
RUNNING_CONTAINERS = Gauge("kubelet_running_containers", "Containers by their state.", "container_state")
DESIRED_PODS = Gauge("kubelet_desired_pods", "Pods that this node is to run; static: not the API server's.", "static")

POD_START = Histogram(
    "kubelet_pod_start_duration_seconds", "From the node's first sight of a pod until it runs.", _START_BOUNDS
)
POD_START_SLI = Histogram(
    "kubelet_pod_start_sli_duration_seconds",
    "From a pod's creation until all its containers run, without pulls of images and init containers.",
    _START_BOUNDS,
)
POD_START_TOTAL = Histogram(
    "kubelet_pod_start_total_duration_seconds",
    "From a pod's creation until all its containers run, with pulls of images and init containers.",
    _START_BOUNDS,
)
EVICTIONS = Counter("kubelet_evictions", "Pods that were evicted, by what ran short.", "eviction_signal")
STARTED_PODS = Counter("kubelet_started_pods_total", "Pod sandboxes that were started.")
STARTED_PODS_ERRORS = Counter("kubelet_started_pods_errors_total", "Pod sandboxes that could not be started.")
STARTED_CONTAINERS = Counter("kubelet_started_containers_total", "Containers that were started.")
STARTED_CONTAINERS_ERRORS = Counter("kubelet_started_containers_errors_total", "Containers that could not be started.")

RUNTIME_OPERATIONS = Counter("kubelet_runtime_operations_total", "Calls to the runtime.", "operation_type")
RUNTIME_ERRORS = Counter("kubelet_runtime_operations_errors_total", "Failed calls to the runtime.", "operation_type")
RUNTIME_DURATION = Histogram(
    "kubelet_runtime_operations_duration_seconds", "What calls to the runtime took.", _CALL_BOUNDS, "operation_type"
)

PLEG_DURATION = Histogram("kubelet_pleg_relist_duration_seconds", "What a relist of all pods took.", _DEFAULT)
PLEG_INTERVAL = Histogram("kubelet_pleg_relist_interval_seconds", "Time from one relist to the next.", (*_DEFAULT, 60))
PLEG_LAST_SEEN = Gauge("kubelet_pleg_last_seen_seconds", "When the runtime's pods were last listed, in Unix seconds.")

IMAGES_COLLECTED = Counter(
    "kubelet_image_garbage_collected_total",
    "Images removed because nothing used them: for space, or for age.",
    "reason",
)

API_REQUESTS = Counter("rest_client_requests_total", "Requests to the API server.", "code", "method", "host")

# ------------------------------------------------------------ this agent's own

BUILD = Gauge("edgelet_build_info", "The agent's version; always 1.", "version")
QUEUE_DEPTH = Gauge("edgelet_queue_depth", "What waits in the agent, by queue.", "queue")
JOURNAL_LENGTH = Gauge(
    "edgelet_journal_length", "Changes of the record that its disk has not taken yet, because it refuses them."
)
RECORD_BYTES = Gauge("edgelet_record_bytes", "The record's size on disk, its write-ahead log with it.")
OFFLINE = Gauge("edgelet_offline_seconds_total", "Time without an answer of the API server.", kind=Kind.COUNTER)
OFFLINE_NOW = Gauge("edgelet_offline", "1 while the API server does not answer.")
FOREIGN_CLUSTER = Gauge("edgelet_foreign_cluster", "1 while what answers is another cluster's API server.")
DOUBTED_LISTS = Counter(
    "edgelet_doubted_lists_total", "Lists of the API server that lacked pods which it has all the same."
)
API_BY_RESOURCE = Counter(
    "edgelet_api_requests_total", "Requests to the API server by what they are for.", "method", "resource", "code"
)
API_DURATION = Histogram(
    "edgelet_api_request_duration_seconds", "From a request to the API server until its answer.", _DEFAULT, "method"
)

LOG_LINES_SENT = Counter("edgelet_log_lines_sent_total", "Lines of containers' logs that sinks took.", "sink")
LOG_LINES_LOST = Counter(
    "edgelet_log_lines_lost_total", "Lines of containers' logs that were dropped unsent, because the spool was full."
)
LOG_SPOOL_BYTES = Gauge("edgelet_log_spool_bytes", "Logs that are on disk only because they are not sent yet.")

# ------------------------------------------------------------ the process

PROCESS_MEMORY = Gauge("process_resident_memory_bytes", "The agent's resident memory.")
PROCESS_CPU = Gauge("process_cpu_seconds_total", "The agent's CPU time, user and system.", kind=Kind.COUNTER)
PROCESS_START = Gauge("process_start_time_seconds", "When the agent was started, in Unix seconds.")
PROCESS_FILES = Gauge("process_open_fds", "The agent's open files.")

# ------------------------------------------------------------ probes

PROBE_RESULTS = Counter(
    "prober_probe_total",
    "Probes of containers by their result.",
    "probe_type",
    "result",
    "container",
    "pod",
    "namespace",
    "pod_uid",
)
PROBE_DURATION = Histogram(
    "prober_probe_duration_seconds", "What probes took.", _DEFAULT, "probe_type", "container", "pod", "namespace"
)

OWN: Final = (
    NODE_NAME,
    RUNNING_PODS,
    RUNNING_CONTAINERS,
    DESIRED_PODS,
    POD_START,
    POD_START_SLI,
    POD_START_TOTAL,
    EVICTIONS,
    STARTED_PODS,
    STARTED_PODS_ERRORS,
    STARTED_CONTAINERS,
    STARTED_CONTAINERS_ERRORS,
    RUNTIME_OPERATIONS,
    RUNTIME_ERRORS,
    RUNTIME_DURATION,
    PLEG_DURATION,
    PLEG_INTERVAL,
    PLEG_LAST_SEEN,
    IMAGES_COLLECTED,
    API_REQUESTS,
    BUILD,
    QUEUE_DEPTH,
    JOURNAL_LENGTH,
    RECORD_BYTES,
    OFFLINE,
    OFFLINE_NOW,
    FOREIGN_CLUSTER,
    DOUBTED_LISTS,
    API_BY_RESOURCE,
    API_DURATION,
    LOG_LINES_SENT,
    LOG_LINES_LOST,
    LOG_SPOOL_BYTES,
    PROCESS_MEMORY,
    PROCESS_CPU,
    PROCESS_START,
    PROCESS_FILES,
    PROBE_DURATION,
)
PROBES: Final = (PROBE_RESULTS,)
