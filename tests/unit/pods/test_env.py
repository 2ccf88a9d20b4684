import base64
from typing import Any

import pytest

from agent.errors import Permanent
from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap, Secret, Service, ServicePort, ServiceSpec
from agent.pods.downward import NodeContext
from agent.pods.env import EnvResult, build_env, service_env
from agent.pods.ports import ObjectKey
from agent.pods.references import MISSING, Missing, Referenced
from tests.unit.pods.pods import container_pod

NODE = NodeContext(node_name="edge-1", host_ips=("10.0.0.1",), pod_ips=("10.1.0.2",), allocatable={"memory": "8Gi"})


def config_map(**data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="conf", namespace="shop"), data=data)


def secret(**data: bytes) -> Secret:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return Secret(metadata=ObjectMeta(name="key", namespace="shop"), data=encoded)


def service(name: str, namespace: str, ip: str, *ports: ServicePort) -> Service:
    return Service(metadata=ObjectMeta(name=name, namespace=namespace), spec=ServiceSpec(clusterIP=ip, ports=ports))


def build(
    conf: ConfigMap | None = None,
    key: Secret | None = None,
    services: tuple[Service, ...] = (),
    **fields: Any,
) -> EnvResult:
    objects: dict[ObjectKey, ConfigMap | Secret | Missing] = {
        ObjectKey("configmaps", "shop", "conf"): conf or MISSING,
        ObjectKey("secrets", "shop", "key"): key or MISSING,
    }
    pod = container_pod(**fields)
    return build_env(pod, pod.spec.containers[0], Referenced(objects=objects, services=services), NODE)


def test_later_variables_see_earlier_ones_and_undefined_references_stay_as_written() -> None:
    env = [
        {"name": "LATE", "value": "$(HOST)"},
        {"name": "HOST", "value": "db"},
        {"name": "URL", "value": "http://$(HOST):$(PORT)/$$(HOST)"},
        {"name": "NONE"},
    ]
    assert build(env=env).env == (
        ("LATE", "$(HOST)"),
        ("HOST", "db"),
        ("URL", "http://db:$(PORT)/$(HOST)"),
        ("NONE", ""),
    )


def test_env_wins_over_env_from_and_a_later_source_over_an_earlier() -> None:
    result = build(
        config_map(a="conf", b="conf", c="conf"),
        secret(b=b"key"),
        envFrom=[{"configMapRef": {"name": "conf"}}, {"secretRef": {"name": "key"}}],
        env=[{"name": "c", "value": "$(c)+env"}],
    )
    assert dict(result.env) == {"a": "conf", "b": "key", "c": "conf+env"}


def test_a_prefix_goes_before_every_key_and_references_use_it() -> None:
    result = build(
        config_map(one="1", two="2"),
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "conf"}}],
        env=[{"name": "X", "value": "$(P_one)$(one)"}],
    )
    assert result.env == (("P_one", "1"), ("P_two", "2"), ("X", "1$(one)"))


@pytest.mark.parametrize("ref", ["configMapRef", "secretRef"])
def test_names_that_no_process_can_have_are_skipped_and_told(ref: str) -> None:
    name = "conf" if ref == "configMapRef" else "key"
    result = build(
        config_map(ok="1", **{"1st.name-ok": "2"}),
        secret(ok=b"1", **{"1st.name-ok": b"2"}),
        envFrom=[{ref: {"name": name}}, {"prefix": "a=", ref: {"name": name}}],
    )
    assert dict(result.env) == {"ok": "1", "1st.name-ok": "2"}
    (notice,) = result.notices
    assert notice.reason == "InvalidEnvironmentVariableNames"
    kind = "ConfigMap" if ref == "configMapRef" else "Secret"
    assert f"[a=1st.name-ok, a=ok] from the EnvFrom {kind} shop/{name}" in notice.message


def test_every_kind_of_value_from_is_read() -> None:
    env = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CONF", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "b"}}},
    ]
    result = build(config_map(a="$(NODE)"), secret(b=b"\xff\x00ok"), env=env)
    values = dict(result.env)
    assert values["KEY"].encode("utf-8", "surrogateescape") == b"\xff\x00ok"
    assert {name: value for name, value in values.items() if name != "KEY"} == {
        "NODE": "edge-1",
        "IP": "10.1.0.2",
        "MEM": "8192",
        "CONF": "$(NODE)",  # a value from elsewhere is data, not a text to expand
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "conf"}}]}, 'configmap "conf" not found'),
        ({"envFrom": [{"secretRef": {"name": "key"}}]}, 'secret "key" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "k"}}}]},
            'configmap "conf" not found',
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]},
            'secret "key" not found',
        ),
    ],
)
def test_a_missing_object_is_a_config_error_unless_it_is_optional(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Permanent, match=message) as caught:
        build(**fields)
    assert caught.value.reason == "CreateContainerConfigError"
    assert build(**_optional(fields)).env == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "conf", "key": "k"}}, "couldn't find key k in ConfigMap shop/conf"),
        ({"secretKeyRef": {"name": "key", "key": "k"}}, "couldn't find key k in Secret shop/key"),
    ],
)
def test_a_missing_key_is_a_config_error_unless_it_is_optional(source: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"env": [{"name": "X", "valueFrom": source}]}
    with pytest.raises(Permanent, match=message):
        build(config_map(a="1"), secret(a=b"1"), **fields)
    assert build(config_map(a="1"), secret(a=b"1"), **_optional(fields)).env == ()


@pytest.mark.parametrize("source", [{"fieldRef": {"fieldPath": "spec.nothing"}}, {}])
def test_a_source_that_the_api_does_not_offer_is_a_config_error(source: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="env X: ") as caught:
        build(env=[{"name": "X", "valueFrom": source}])
    assert caught.value.reason == "CreateContainerConfigError"


SERVICES = (
    service("kubernetes", "default", "10.96.0.1", ServicePort(name="https", port=443)),
    service("my-db", "shop", "10.96.0.9", ServicePort(port=5432), ServicePort(name="m-x", port=53, protocol="UDP")),
    service("headless", "shop", "None", ServicePort(port=1)),
    service("outside", "shop", "", ServicePort(port=1)),
    service("bare", "shop", "10.96.0.10"),
    service("other", "elsewhere", "10.96.0.11", ServicePort(port=1)),
)


def test_service_links_name_the_namespace_services_and_the_api_server() -> None:
    assert service_env(SERVICES, "shop", links=True) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_M_X": "53",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
    }


def test_without_links_only_the_api_server_is_left() -> None:
    assert {name.partition("_")[0] for name in service_env(SERVICES, "shop", links=False)} == {"KUBERNETES"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_service_of_the_namespace_called_kubernetes_wins(order: int) -> None:
    own = service("kubernetes", "shop", "10.9.9.9", ServicePort(port=1))
    env = service_env((SERVICES[0], own)[::order], "shop", links=True)
    assert env["KUBERNETES_SERVICE_HOST"] == "10.9.9.9"


def test_an_ipv6_service_is_bracketed_in_urls_only() -> None:
    env = service_env((service("six", "shop", "fd00::9", ServicePort(port=80)),), "shop", links=True)
    assert env["SIX_PORT"] == "tcp://[fd00::9]:80"
    assert env["SIX_SERVICE_HOST"] == "fd00::9"


def test_the_pods_own_variables_win_over_service_links_but_may_refer_to_them() -> None:
    result = build(
        services=SERVICES,
        env=[
            {"name": "DB", "value": "$(MY_DB_SERVICE_HOST)"},
            {"name": "MY_DB_SERVICE_PORT", "value": "mine"},
            {"name": "PORT", "value": "$(MY_DB_SERVICE_PORT)"},
        ],
    )
    assert dict(result.env)["PORT"] == "mine"
    assert dict(result.env)["DB"] == "10.96.0.9"
    assert [value for name, value in result.env if name == "MY_DB_SERVICE_PORT"] == ["mine"]


def _optional(value: Any) -> Any:
    """The same with every reference made optional."""
    if isinstance(value, list):
        return [_optional(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _optional(item) for key, item in value.items()}
    return {**inner, "optional": True} if value.get("name") in ("conf", "key") else inner
