"""Pods for tests: a small valid one, with what a test is about laid over it."""

from typing import Any

from agent.model.pod import Pod, pod_from_dict


def make_pod(meta: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """Pod shop/web (uid u-1) with one container `main`; `spec` holds the API's own field names."""
    return pod_from_dict(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", **(meta or {})},
            "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
        }
    )


def container_pod(meta: dict[str, Any] | None = None, **fields: Any) -> Pod:
    """A pod whose only container has these fields."""
    return make_pod(meta, containers=[{"name": "main", "image": "busybox", **fields}])
