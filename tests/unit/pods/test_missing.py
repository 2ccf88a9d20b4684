"""Which absent objects are told, and in virtual-kubelet's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model.objects import ObjectKey
from agent.model.pod import Pod, pod_from_dict
from agent.pods.missing import missing_objects
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.scene import record, scene

MAP, SECRET = ObjectKey("configmaps", "ns", "one"), ObjectKey("secrets", "ns", "one")


def pod(**spec: object) -> Pod:
    return pod_from_dict({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})


def container(**fields: object) -> dict[str, object]:
    return {"name": "c", "image": "i", **fields}


def env(kind: str, optional: bool) -> dict[str, object]:
    return {"name": "A", "valueFrom": {f"{kind}KeyRef": {"name": "one", "key": "k", "optional": optional}}}


REFERENCES = [
    lambda kind, optional: {"containers": [container(env=[env(kind, optional)])]},
    lambda kind, optional: {"containers": [container(envFrom=[{f"{kind}Ref": {"name": "one", "optional": optional}}])]},
    lambda kind, optional: {"initContainers": [container(env=[env(kind, optional)])]},
    lambda kind, optional: {
        "volumes": [{"name": "v", kind: {("secretName" if kind == "secret" else "name"): "one", "optional": optional}}]
    },
    lambda kind, optional: {
        "volumes": [{"name": "v", "projected": {"sources": [{kind: {"name": "one", "optional": optional}}]}}]
    },
]


@pytest.mark.parametrize("reference", REFERENCES, ids=["env", "envFrom", "init", "volume", "projected"])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize(("kind", "key"), [("configMap", MAP), ("secret", SECRET)])
def test_every_way_to_name_an_object_is_told_by_kind_and_need(
    reference: object, optional: bool, kind: str, key: ObjectKey
) -> None:
    assert callable(reference)
    (found,) = missing_objects(pod(**reference(kind, optional)), {key, ObjectKey(key.kind, "ns", "other")})
    word = "ConfigMap" if kind == "configMap" else "Secret"
    assert found.reason == f"{'Optional' if optional else 'Mandatory'}{word}NotFound"
    assert found.message == f'{word.lower()} "one" not found'


def test_one_reference_that_needs_the_object_makes_it_mandatory_and_it_is_told_once() -> None:
    both = pod(containers=[container(env=[env("secret", True), env("secret", False), env("secret", True)])])
    (found,) = missing_objects(both, {SECRET})
    assert found.reason == "MandatorySecretNotFound"


def test_what_exists_and_pull_secrets_are_not_told() -> None:
    named = pod(imagePullSecrets=[{"name": "one"}], containers=[container(env=[env("configMap", False)])])
    assert missing_objects(named, {SECRET}) == ()


@with_skipped_time
async def test_a_pod_in_containerd_tells_of_each_absent_object_once_while_it_waits_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        volumes = [
            {"name": "needed", "secret": {"secretName": "one"}},
            {"name": "spare", "configMap": {"name": "two", "optional": True}},
        ]
        s.start(record(volumes=volumes))
        for tries in (1, 2, 3):
            await s.until(lambda: len(s.events.messages("FailedMount")) == tries)  # noqa: B023
            s.skip(10)
        assert s.events.messages("MandatorySecretNotFound") == ['secret "one" not found']
        assert s.events.messages("OptionalConfigMapNotFound") == ['configmap "two" not found']
