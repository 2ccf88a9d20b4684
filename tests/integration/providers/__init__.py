"""Providers other than containerd, as processes of their own on a real control plane."""
