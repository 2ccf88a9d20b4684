"""A pod of which only the runtime knows: enough to end it well."""

from __future__ import annotations

import msgspec

from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.pod import decode_pod
from agent.pods.support import unsupported
from agent.providers.found import found_record


def container(name: str, attempt: int) -> ObservedContainer:
    return ObservedContainer(f"{name}-{attempt}", name, "s", attempt, ContainerState.RUNNING, "i", "sha256:i", "", 1)


def test_it_has_its_names_its_uid_and_every_container_once() -> None:
    found = found_record(
        ObservedPod("u-1", "shop", "web", (), (container("main", 1), container("main", 0), container("side", 0)))
    )
    meta = found.pod.metadata
    assert (found.uid, meta.namespace, meta.name) == ("u-1", "shop", "web")
    assert [c.name for c in found.pod.spec.containers] == ["main", "side"]


def test_a_pod_without_containers_is_one_too() -> None:
    assert found_record(ObservedPod("u-1", "shop", "web")).pod.spec.containers == ()


def test_its_raw_half_reads_as_the_same_pod_and_nothing_of_it_is_refused() -> None:
    found = found_record(ObservedPod("u-1", "shop", "web", (), (container("main", 0),)))
    assert decode_pod(found.raw) == found.pod
    assert list(unsupported(msgspec.json.decode(found.raw))) == []
