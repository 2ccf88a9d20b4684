"""edgelet: a Kubernetes node agent for the edge.

It joins a cluster as a Node and runs the Node's Pods through containerd's CRI. The durable record of
desired pods comes first; the API server's watch only changes that record.
"""

__version__ = "0.1.0"
