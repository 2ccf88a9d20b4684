"""What a pod may write to the node's disk."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.pod import Pod
from agent.node.eviction.limits import exceeded, is_limited, limits_written
from agent.stats.storage import LocalStorage
from tests.unit.pods.pods import make_pod

MIB = 2**20


def limited(*limits: str, volumes: dict[str, dict[str, Any]] | None = None) -> Pod:
    """A container c0, c1 … for each limit; an empty one has none."""
    containers = [
        {"name": f"c{n}", "image": "i", "resources": {"limits": {"ephemeral-storage": limit} if limit else {}}}
        for n, limit in enumerate(limits)
    ]
    return make_pod(
        containers=containers, volumes=[{"name": name, "emptyDir": of} for name, of in (volumes or {}).items()]
    )


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (limited(""), (False, False)),
        (limited("", volumes={"v": {}}), (False, False)),
        (limited("", volumes={"v": {"sizeLimit": "0"}}), (False, False)),
        (limited("", volumes={"v": {"sizeLimit": "1Mi", "medium": "Memory"}}), (False, False)),
        (limited("", volumes={"v": {"sizeLimit": "1Mi"}}), (True, False)),
        (limited("", "1Mi"), (True, True)),
    ],
)
def test_only_pods_with_limits_are_looked_at(pod: Pod, expected: tuple[bool, bool]) -> None:
    assert (is_limited(pod), limits_written(pod)) == expected


ONE = limited("10Mi")
TWO = limited("10Mi", "20Mi")
HALF = limited("10Mi", "")
VOLUME = limited("", volumes={"cache": {"sizeLimit": "5Mi"}})
EMPTY_DIR = 'Usage of EmptyDir volume "cache" exceeds the limit "5Mi". '
WHOLE = "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi. "
CONTAINER = 'Container c0 exceeded its local ephemeral storage limit "10Mi". '


@pytest.mark.parametrize(
    ("pod", "storage", "message"),
    [
        (VOLUME, LocalStorage(volumes={"cache": 5 * MIB}), ""),
        (VOLUME, LocalStorage(volumes={"cache": 5 * MIB + 1}), EMPTY_DIR),
        (VOLUME, LocalStorage(volumes={"other": 9 * MIB}, logs={"c0": 99 * MIB}), ""),
        (TWO, LocalStorage(written={"c0": 10 * MIB, "c1": 20 * MIB}), ""),
        (TWO, LocalStorage(written={"c0": 10 * MIB}, logs={"c1": 20 * MIB}, volumes={"free": 1}), WHOLE),
        (TWO, LocalStorage(written={"c0": 9 * MIB}, logs={"c0": 2 * MIB}), CONTAINER),
        (TWO, LocalStorage(written={"c0": 10 * MIB}, logs={"c1": 20 * MIB}), ""),
        (HALF, LocalStorage(written={"c0": 9 * MIB, "c1": MIB}), ""),
    ],
)
def test_an_empty_dir_the_pod_and_a_container_have_their_limits(pod: Pod, storage: LocalStorage, message: str) -> None:
    found = exceeded(pod, storage, own_image_disk=False)
    assert (found.message if found else "") == message


def test_with_images_on_another_disk_a_container_is_limited_in_its_log_alone() -> None:
    writes, logs = LocalStorage(written={"c0": 15 * MIB}), LocalStorage(logs={"c0": 15 * MIB})
    assert exceeded(TWO, writes, own_image_disk=True) is None
    assert exceeded(TWO, logs, own_image_disk=True) is not None


def test_the_metric_tells_which_limit_it_was() -> None:
    storage = LocalStorage(written={"c0": 11 * MIB}, volumes={"cache": 6 * MIB})
    assert [
        found.limit for pod in (VOLUME, ONE, TWO) if (found := exceeded(pod, storage, own_image_disk=False)) is not None
    ] == ["emptydirfs.limit", "ephemeralpodfs.limit", "ephemeralcontainerfs.limit"]
