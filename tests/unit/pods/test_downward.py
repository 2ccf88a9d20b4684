import pytest

from agent.model.meta import Quantity
from agent.model.pod import pod_from_dict
from agent.model.volume import ResourceFieldSelector
from agent.pods.downward import NodeContext, env_field, resource, volume_field

POD = pod_from_dict(
    {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {"b": "2", "app.kubernetes.io/name": "web", "a": 'say "hi"\n\\é\x01\u200b'},
            "annotations": {"Note[x]": "n"},
        },
        "spec": {
            "serviceAccountName": "sa",
            "initContainers": [{"name": "init", "resources": {"limits": {"memory": "1Gi"}}}],
            "containers": [
                {
                    "name": "main",
                    "resources": {
                        "limits": {"cpu": "1500m", "memory": "100Mi", "hugepages-2Mi": "4Mi"},
                        "requests": {"cpu": "0.1", "memory": "64Mi"},
                    },
                },
                {"name": "bare"},
            ],
        },
    }
)
NODE = NodeContext(
    node_name="edge-1",
    host_ips=("10.0.0.1", "fd00::1"),
    pod_ips=("10.1.0.2", "fd01::2"),
    allocatable={"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi"},
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app.kubernetes.io/name']", "web"),
        ("metadata.annotations['Note[x]']", "n"),
        ("metadata.labels['absent']", ""),
        ("spec.nodeName", "edge-1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "10.0.0.1"),
        ("status.hostIPs", "10.0.0.1,fd00::1"),
        ("status.podIP", "10.1.0.2"),
        ("status.podIPs", "10.1.0.2,fd01::2"),
    ],
)
def test_an_environment_variable_can_hold_every_field_of_the_api(path: str, value: str) -> None:
    assert env_field(POD, path, NODE) == value


def test_addresses_that_are_not_known_yet_are_empty() -> None:
    node = NodeContext("n")
    assert [env_field(POD, path, node) for path in ("status.podIP", "status.podIPs", "status.hostIP")] == ["", "", ""]


@pytest.mark.parametrize("path", ["status.podIP", "spec.nodeName", "metadata.finalizers", "spec.x['y']", ""])
def test_a_volume_offers_metadata_only(path: str) -> None:
    with pytest.raises(ValueError, match="fieldPath"):
        volume_field(POD, path)


def test_whole_label_maps_are_for_volumes_only() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        env_field(POD, "metadata.labels", NODE)


def test_labels_in_a_file_are_sorted_go_literals() -> None:
    assert volume_field(POD, "metadata.labels") == "\n".join(
        [r'a="say \"hi\"\n\\é\x01\u200b"', 'app.kubernetes.io/name="web"', 'b="2"']
    )
    assert volume_field(pod_from_dict({"metadata": {}, "spec": {}}), "metadata.annotations") == ""


@pytest.mark.parametrize(
    ("container", "name", "divisor", "value"),
    [
        ("main", "limits.cpu", "0", "2"),
        ("main", "limits.cpu", "1m", "1500"),
        ("main", "requests.cpu", "1", "1"),
        ("main", "limits.memory", "1", "104857600"),
        ("main", "limits.memory", "1Mi", "100"),
        ("main", "limits.memory", "3Mi", "34"),
        ("main", "limits.hugepages-2Mi", "1Mi", "4"),
        ("main", "limits.ephemeral-storage", "1Gi", "10"),
        ("bare", "limits.cpu", "1", "4"),
        ("bare", "limits.memory", "1Gi", "8"),
        ("bare", "requests.cpu", "1", "0"),
        ("bare", "limits.hugepages-2Mi", "1", "0"),
        ("init", "limits.memory", "1Gi", "1"),
    ],
)
def test_resources_come_in_units_of_the_divisor_rounded_up(
    container: str, name: str, divisor: Quantity, value: str
) -> None:
    selector = ResourceFieldSelector(resource=name, containerName=container, divisor=divisor)
    assert resource(POD, selector, NODE) == value


def test_a_selector_without_a_container_means_the_one_that_asks() -> None:
    assert resource(POD, ResourceFieldSelector(resource="limits.cpu", divisor="1m"), NODE, "main") == "1500"


@pytest.mark.parametrize("name", ["limits.nvidia.com/gpu", "limits", "spec.cpu", "requests.storage"])
def test_other_resources_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="unsupported container resource"):
        resource(POD, ResourceFieldSelector(resource=name, containerName="main"), NODE)


def test_an_unknown_container_is_named() -> None:
    with pytest.raises(ValueError, match="container ghost not found"):
        resource(POD, ResourceFieldSelector(resource="limits.cpu", containerName="ghost"), NODE)
