"""A Kubernetes API at the edge: what this node knows, for kubectl and for workloads, with or without the API server."""
