"""Pods whose containers are programs of the host: who may have them, what they become, and what they need made."""
