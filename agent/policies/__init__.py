"""What annotations ask of the node for a pod beyond its spec: how they are written, and which of several holds."""
