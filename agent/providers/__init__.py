"""Who runs the pods: the provider contract, the registry and the containerd provider."""
