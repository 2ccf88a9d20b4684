"""Typed views of Kubernetes and runtime objects that the core speaks. No I/O; imports nothing of agent but errors."""
