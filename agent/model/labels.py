"""Names that other programs read: the kubelet's labels, annotations and paths, and our own.

They are wire facts: crictl, log shippers and metrics collectors find pods by them.
"""

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
NODE = "io.edgelet.node"
"""Ours: marks a sandbox or container as this agent's; without it nothing is ever touched."""

CONTAINER_HASH = "io.kubernetes.container.hash"
CONTAINER_RESTART_COUNT = "io.kubernetes.container.restartCount"
CONTAINER_TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
CONTAINER_TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
CONTAINER_PRE_STOP = "io.kubernetes.container.preStopHandler"
CONTAINER_PORTS = "io.kubernetes.container.ports"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"
POD_DELETION_GRACE = "io.kubernetes.pod.deletionGracePeriod"

CONFIG_SOURCE = "kubernetes.io/config.source"
CONFIG_SEEN = "kubernetes.io/config.seen"
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_MIRROR = "kubernetes.io/config.mirror"
MANIFEST = "io.edgelet.manifest"
"""Ours: the file that a static pod is from."""
CONTAINER_IMAGE = "io.edgelet.image"
"""Ours, an annotation of a container: its image as the pod names it. containerd 1.6 tells one of the image's tags."""
HOST = "io.edgelet.host"
"""Ours, an annotation of a container: it is a program of the host, and the end of its output is its last words."""
