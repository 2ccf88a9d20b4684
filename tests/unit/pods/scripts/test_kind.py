"""What makes a pod one of host programs is settled when it is first recorded."""

from typing import Any

import msgspec
import pytest

from agent.model.record import Origin, PodRecord
from agent.pods.scripts.kind import is_scripts, settled
from tests.unit.pods.pods import make_pod


def record(annotations: dict[str, str] | None = None, origin: Origin = Origin.API, **meta: Any) -> PodRecord:
    names = {"name": "web", "namespace": "shop", "uid": "u-1", **meta}
    if annotations is not None:
        names["annotations"] = annotations
    return PodRecord.decode(msgspec.json.encode({"metadata": names, "spec": {"containers": []}}), origin)


@pytest.mark.parametrize("annotations", [{"type": "bash"}, {"edgelet.io/host": "true"}, {"type": "bash", "x": "y"}])
def test_either_annotation_makes_a_pod_scripts(annotations: dict[str, str]) -> None:
    assert is_scripts(make_pod({"annotations": annotations}))


@pytest.mark.parametrize(
    "annotations", [None, {}, {"type": "Bash"}, {"type": "pod"}, {"edgelet.io/host": "True"}, {"edgelet.io/host": ""}]
)
def test_nothing_else_does(annotations: dict[str, str] | None) -> None:
    assert not is_scripts(make_pod({"annotations": annotations, "labels": {"type": "bash"}}))


@pytest.mark.parametrize("annotations", [{"type": "bash"}, {"edgelet.io/host": "true"}])
def test_an_ordinary_pod_stays_one_whatever_is_written_on_it_later(annotations: dict[str, str]) -> None:
    kept = settled(record({"mine": "2", **annotations}, resourceVersion="9"), record({"mine": "1"}))
    assert not is_scripts(kept.pod)
    assert kept.kind_change_refused
    assert kept.pod.metadata.annotations == {"mine": "2"}
    assert kept.pod.metadata.resourceVersion == "9"
    # The row that a restart reads says the same.
    assert not is_scripts(PodRecord.decode(kept.raw).pod)
    assert msgspec.json.decode(kept.raw)["metadata"]["annotations"] == {"mine": "2"}


@pytest.mark.parametrize("annotations", [None, {}, {"type": "pod"}, {"edgelet.io/host": "false"}])
def test_scripts_stay_scripts(annotations: dict[str, str] | None) -> None:
    kept = settled(record(annotations), record({"type": "bash"}))
    assert is_scripts(kept.pod)
    assert is_scripts(PodRecord.decode(kept.raw).pod)


def test_a_manifests_pod_keeps_its_origin() -> None:
    kept = settled(record({"type": "bash"}, Origin.FILE), record(None, Origin.FILE))
    assert kept.origin is Origin.FILE
    assert kept.pod.is_static


def test_other_changes_pass_untouched() -> None:
    now = record({"type": "bash", "edgelet.io/host": "true"})
    assert settled(now, record({"type": "bash"})) is now
