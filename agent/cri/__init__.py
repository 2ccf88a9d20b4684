"""The runtime's side: a thin, fast client of containerd's CRI (runtime and images) and its stream of events."""
