"""Unit tests read kubeconfigs in their own process: one for each would take most of the tests' time."""

import kubernetes.aio.config  # noqa: F401
