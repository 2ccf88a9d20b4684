"""ConfigMaps and Secrets give bytes; a reference names the pod or a part of it."""

from __future__ import annotations

import msgspec
import pytest

from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap, ObjectReference, Secret
from tests.unit.pods.pods import make_pod


def test_a_config_map_gives_text_and_binary_data() -> None:
    made = ConfigMap(metadata=ObjectMeta(), data={"a": "é"}, binaryData={"b": "AP8="})
    assert made.contents() == {"a": "é".encode(), "b": b"\x00\xff"}


def test_a_secret_is_decoded() -> None:
    assert Secret(metadata=ObjectMeta(), data={"k": "c2VjcmV0"}).contents() == {"k": b"secret"}


def test_broken_base64_is_told_by_its_key_and_not_by_its_value() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"data\['k'\] is not base64") as caught:
        Secret(metadata=ObjectMeta(), data={"k": "hunter2!"}).contents()
    assert "hunter2" not in str(caught.value)


def test_a_reference_names_the_pod_and_the_part() -> None:
    pod = make_pod(meta={"resourceVersion": "7"})
    assert ObjectReference.of(pod, "spec.containers{main}") == ObjectReference(
        kind="Pod",
        name="web",
        namespace="shop",
        uid="u-1",
        resourceVersion="7",
        fieldPath="spec.containers{main}",
    )
