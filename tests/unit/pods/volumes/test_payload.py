import base64
import re
from typing import Any

import pytest

from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap, Secret
from agent.model.pod import Pod, pod_from_dict
from agent.pods.downward import NodeContext
from agent.pods.ports import ObjectKey, Token
from agent.pods.references import MISSING, Referenced
from agent.pods.volumes.payload import Payload, PayloadFile, common_user, payload

CONFIG = ConfigMap(metadata=ObjectMeta(name="cm"), data={"a": "1"}, binaryData={"b": base64.b64encode(b"\0").decode()})
SECRET = Secret(metadata=ObjectMeta(name="s"), data={"key": base64.b64encode(b"hush").decode()})
REFERENCED = Referenced(
    objects={
        ObjectKey("configmaps", "ns", "cm"): CONFIG,
        ObjectKey("secrets", "ns", "s"): SECRET,
        ObjectKey("secrets", "ns", "gone"): MISSING,
        ObjectKey("secrets", "ns", "bad"): Secret(metadata=ObjectMeta(name="bad"), data={"k": "%%"}),
    },
    tokens={("v", "token"): Token("jwt", 1.0)},
)
NODE = NodeContext("n", allocatable={"cpu": "4"})


def pod_with(volume: dict[str, Any], **spec: Any) -> Pod:
    return pod_from_dict(
        {
            "metadata": {"name": "p", "namespace": "ns", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", **volume}], **spec},
        }
    )


def contents(volume: dict[str, Any], **spec: Any) -> Payload:
    pod = pod_with(volume, **spec)
    return payload(pod, pod.spec.volumes[0], REFERENCED, NODE)


def test_a_whole_config_map_has_a_file_for_every_text_and_binary_key() -> None:
    assert contents({"configMap": {"name": "cm", "defaultMode": 0o400}}) == {
        "a": PayloadFile(b"1", 0o400),
        "b": PayloadFile(b"\0", 0o400),
    }


def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "a", "path": "sub/dir/a.txt", "mode": 0o600}]
    assert contents({"configMap": {"name": "cm", "items": items}}) == {"sub/dir/a.txt": PayloadFile(b"1", 0o600)}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "nope"}}, 'configmap "nope" not found'),
        ({"secret": {"secretName": "gone"}}, 'secret "gone" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}},
            "configmap references non-existent config key: z",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent secret key: z",
        ),
        ({"secret": {"secretName": "bad"}}, "bad: data"),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "status.podIP"}}]}},
            "unsupported fieldPath: status.podIP",
        ),
        ({"downwardAPI": {"items": [{"path": "p"}]}}, "p: neither fieldRef nor resourceFieldRef"),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "other"}}]}},
            'failed to fetch token: serviceaccounts "default" not found',
        ),
        ({"projected": {"sources": [{}]}}, "unsupported kind"),
    ],
)
def test_what_cannot_be_had_is_said_in_the_kubelets_words(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        contents(volume)


def test_what_is_optional_may_be_absent_as_an_object_or_as_a_key() -> None:
    assert contents({"secret": {"secretName": "gone", "optional": True}}) == {}
    assert contents({"secret": {"secretName": "s", "optional": True, "items": [{"key": "z", "path": "z"}]}}) == {}
    assert contents({"configMap": {"name": "nope", "optional": True}}) == {}


API_ACCESS = {
    "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            {"secret": {"name": "s"}},
        ],
    }
}


def test_a_projected_volume_is_the_sum_of_its_sources() -> None:
    assert contents(API_ACCESS) == {
        "token": PayloadFile(b"jwt", 0o644),
        "ca.crt": PayloadFile(b"1", 0o644),
        "namespace": PayloadFile(b"ns", 0o644),
        "key": PayloadFile(b"hush", 0o644),
    }


def test_all_problems_of_a_projected_volume_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r'\[configmap "x" not found, secret "y" not found\]'):
        contents({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "y"}}]}})


def test_a_token_belongs_to_the_one_user_of_the_pod() -> None:
    files = contents(API_ACCESS, securityContext={"runAsUser": 1000})
    assert files["token"] == PayloadFile(b"jwt", 0o600, owner=1000)
    assert files["ca.crt"].mode == 0o644


def test_a_token_is_private_where_an_fs_group_will_open_it() -> None:
    assert contents(API_ACCESS, securityContext={"fsGroup": 5})["token"] == PayloadFile(b"jwt", 0o600)


def test_containers_that_differ_have_no_common_user() -> None:
    assert common_user(pod_with({}, containers=[{"name": "a", "securityContext": {"runAsUser": 1}}])) == 1
    mixed = [{"name": "a", "securityContext": {"runAsUser": 1}}, {"name": "b"}]
    assert common_user(pod_with({}, containers=mixed)) is None
    assert common_user(pod_with({}, containers=mixed, securityContext={"runAsUser": 1})) == 1


def test_downward_files_take_resources_from_the_container_that_they_name() -> None:
    reference = {"resource": "limits.cpu", "containerName": "c", "divisor": "1m"}
    items = [{"path": "./cpu", "mode": 0o440, "resourceFieldRef": reference}]
    assert contents({"downwardAPI": {"items": items}}) == {"cpu": PayloadFile(b"4000", 0o440)}
