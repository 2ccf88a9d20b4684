from typing import Any

import pytest

from agent.pods.support import NOT_YET, unsupported


def refused(**spec: Any) -> list[str]:
    return [refusal.path for refusal in unsupported({"metadata": {"unknown": 1}, "spec": spec})]


FULL: dict[str, Any] = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [1]}, "podAffinity": {"any": 1}},
    "tolerations": [{"key": "x", "operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "schedulingGates": [],
    "priority": 0,
    "preemptionPolicy": "PreemptLowerPriority",
    "overhead": {"cpu": "1m"},
    "hostUsers": True,
    "os": {"name": "linux"},
    "securityContext": {"fsGroup": 1, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {
            "name": "token",
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}]}},
                ],
            },
        },
    ],
    "initContainers": [{"name": "s", "restartPolicy": "Always", "resizePolicy": [{"resourceName": "cpu"}]}],
    "containers": [
        {
            "name": "main",
            "resources": {"limits": {"cpu": "1", "example.com/dongle": "1"}, "claims": []},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x"}],
            "volumeDevices": None,
            "livenessProbe": {"httpGet": {"port": "web", "httpHeaders": [{"name": "a", "value": "b"}]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "stopSignal": "SIGINT"},
            "envFrom": [{"prefix": "p", "secretRef": {"name": "s", "optional": True}}],
            "env": [{"name": "n", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        }
    ],
    "ephemeralContainers": [],
}


def test_a_pod_as_the_api_server_writes_it_is_accepted() -> None:
    assert refused(**FULL) == []
    assert unsupported({}) == ()


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "iscsi": {}}]}, "spec.volumes[1].iscsi"),
        ({"volumes": [{"name": "b", "projected": {"sources": [{}, {"podCertificate": {"keyType": "x"}}]}}]},
         "spec.volumes[0].projected.sources[1].podCertificate"),
        ({"ephemeralContainers": [{"name": "debug", "resources": {"claims": [{"name": "gpu"}]}}]},
         "spec.ephemeralContainers[0].resources.claims"),
        ({"os": {"name": "windows"}}, "spec.os.name"),
        ({"resources": {"limits": {"cpu": 1}, "claims": [{"name": "gpu"}]}}, "spec.resources.claims"),
        ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims"),
        ({"dnsPolicy": "Odd"}, "spec.dnsPolicy"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "spec.securityContext.windowsOptions"),
        ({"containers": [{"name": "a", "resources": {"claims": [{"name": "gpu"}]}}]},
         "spec.containers[0].resources.claims"),
        ({"containers": [{"name": "a"}, {"name": "b", "volumeDevices": [{"name": "x"}]}]},
         "spec.containers[1].volumeDevices"),
        ({"containers": [{"name": "a", "restartPolicyRules": [{"action": "Reboot"}]}]},
         "spec.containers[0].restartPolicyRules[0].action"),
        ({"initContainers": [{"name": "a", "restartPolicyRules": [{"exitCodes": {"operator": "Above"}}]}]},
         "spec.initContainers[0].restartPolicyRules[0].exitCodes.operator"),
        ({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "ICMP"}]}]},
         "spec.containers[0].ports[0].protocol"),
        ({"initContainers": [{"name": "a", "restartPolicy": "Rarely"}]}, "spec.initContainers[0].restartPolicy"),
    ],
)  # fmt: skip
def test_what_this_node_cannot_do_is_refused_by_its_path(spec: dict[str, Any], path: str) -> None:
    assert refused(**spec) == [path]


def test_every_refusal_is_reported_at_once_in_a_readable_line() -> None:
    found = unsupported({"spec": {"dnsPolicy": "Odd", "volumes": [{"name": "a", "iscsi": {"iqn": "x"}}]}})
    assert [str(refusal) for refusal in found] == [
        "spec.dnsPolicy: 'Odd' is not supported",
        "spec.volumes[0].iscsi: is not supported by this node",
    ]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"containers": [{"name": "a", "volumeDevices": [{"name": "x"}]}]}, "spec.containers[0].volumeDevices"),
    ],
)
def test_a_known_field_that_nothing_performs_yet_is_refused_with_its_reason(spec: dict[str, Any], path: str) -> None:
    (found,) = unsupported({"spec": spec})
    assert (found.path, found.why) == (path, NOT_YET[path.replace("[0]", "")])
