from pathlib import Path

import pytest

from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap, Service, ServicePort, ServiceSpec
from agent.model.pod import Pod, pod_from_dict
from agent.pods.downward import NodeContext
from agent.pods.env import build_env
from agent.pods.injected_api import InjectedApi
from agent.pods.ports import ObjectKey
from agent.pods.references import Referenced
from agent.pods.volumes.payload import payload

KUBERNETES = Service(
    metadata=ObjectMeta(name="kubernetes", namespace="default"),
    spec=ServiceSpec(clusterIP="10.96.0.1", ports=(ServicePort(port=443, name="https"),)),
)
ROOT_CA = ConfigMap(metadata=ObjectMeta(name="kube-root-ca.crt", namespace="ns"), data={"ca.crt": "CLUSTER"})
OTHER = ConfigMap(metadata=ObjectMeta(name="other", namespace="ns"), data={"ca.crt": "CLUSTER"})
REFERENCED = Referenced(
    objects={
        ObjectKey("configmaps", "ns", "kube-root-ca.crt"): ROOT_CA,
        ObjectKey("configmaps", "ns", "other"): OTHER,
    },
    services=(KUBERNETES,),
)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "local-api.crt"
    file.write_bytes(b"LOCAL\n")
    return file


def pod(name: str = "kube-root-ca.crt", **spec: object) -> Pod:
    container = {"name": "c", **({"env": spec.pop("env")} if "env" in spec else {})}
    volume = {"name": "v", "projected": {"sources": [{"configMap": {"name": name}}]}}
    return pod_from_dict(
        {
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [container], "volumes": [volume], **spec},
        }
    )


def node(address: str, certificate: Path) -> NodeContext:
    return NodeContext("n", api=InjectedApi(address, 10550, certificate))


def seen(made: Pod, context: NodeContext) -> tuple[str, str, bytes]:
    """Host and port of the API server, and who is trusted."""
    env = dict(build_env(made, made.spec.containers[0], REFERENCED, context).env)
    files = payload(made, made.spec.volumes[0], REFERENCED, context)
    return env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"], files["ca.crt"].data


def test_pods_find_the_local_api_and_trust_it_beside_the_cluster(certificate: Path) -> None:
    assert seen(pod(), node("192.168.1.20", certificate)) == ("192.168.1.20", "10550", b"CLUSTER\nLOCAL\n")


def test_a_listener_on_loopback_is_for_pods_on_the_hosts_network_only(certificate: Path) -> None:
    own, hosts = pod(), pod(hostNetwork=True)
    assert seen(own, node("127.0.0.1", certificate)) == ("10.96.0.1", "443", b"CLUSTER")
    assert seen(hosts, node("127.0.0.1", certificate)) == ("127.0.0.1", "10550", b"CLUSTER\nLOCAL\n")


def test_without_the_setting_nothing_is_changed() -> None:
    assert seen(pod(hostNetwork=True), NodeContext("n")) == ("10.96.0.1", "443", b"CLUSTER")


def test_what_the_pod_says_itself_wins(certificate: Path) -> None:
    made = pod(env=[{"name": "KUBERNETES_SERVICE_HOST", "value": "elsewhere"}])
    assert seen(made, node("192.168.1.20", certificate))[0] == "elsewhere"


def test_only_the_clusters_own_bundle_is_added_to(certificate: Path) -> None:
    assert seen(pod("other"), node("192.168.1.20", certificate))[2] == b"CLUSTER"


def test_a_certificate_that_is_not_there_yet_holds_the_volume_back(tmp_path: Path) -> None:
    made, context = pod(), node("192.168.1.20", tmp_path / "none")
    with pytest.raises(ValueError, match="local API's certificate"):
        payload(made, made.spec.volumes[0], REFERENCED, context)
