"""A recorded pod: typed beside raw, and its origin is the source's word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.model.labels import CONFIG_SOURCE
from agent.model.record import Origin, PodRecord


def raw(**meta: Any) -> bytes:
    names = {"name": "web", "namespace": "shop", "uid": "u-1", **meta}
    return msgspec.json.encode({"metadata": names, "spec": {"unknown": {"kept": True}}})


def test_the_raw_object_is_kept_as_it_came() -> None:
    record = PodRecord.decode(raw())
    assert record.raw == raw()
    assert (record.uid, record.origin, record.is_terminating, record.pod.is_static) == ("u-1", Origin.API, False, False)


def test_a_pod_whose_deletion_was_asked_for_is_terminating() -> None:
    assert PodRecord.decode(raw(deletionTimestamp="2024-01-01T00:00:00Z")).is_terminating


@pytest.mark.parametrize("said", [None, "api", "file", "http"])
@pytest.mark.parametrize("origin", list(Origin))
def test_only_the_source_decides_whether_a_pod_is_static(said: str | None, origin: Origin) -> None:
    annotations = {"other": "kept"} | ({} if said is None else {CONFIG_SOURCE: said})
    record = PodRecord.decode(raw(annotations=annotations), origin)
    assert record.pod.is_static is (origin is not Origin.API)
    assert record.pod.metadata.annotations is not None
    assert record.pod.metadata.annotations["other"] == "kept"


def test_what_is_no_pod_is_refused_by_its_field() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.metadata\.name"):
        PodRecord.decode(b'{"metadata": {"name": 1}, "spec": {}}')
