import copy
from typing import Any

import pytest

from agent.model.pod import pod_from_dict
from agent.pods.validation import api_references, faults

POD: dict[str, Any] = {
    "metadata": {
        "name": "web.v2",
        "namespace": "shop",
        "labels": {"app.example.com/part": "A_b.c", "empty": ""},
        "annotations": {"Example.com/x": "any text"},
    },
    "spec": {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 0,
        "activeDeadlineSeconds": 1,
        "hostname": "web",
        "hostAliases": [{"ip": "fd00::1", "hostnames": ["a.b"]}],
        "securityContext": {"runAsUser": 0},
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "host", "hostPath": {"path": "/x..y", "type": "Directory"}},
            {"name": "info", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ],
        "initContainers": [
            {"name": "first", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["x"]}}},
        ],
        "containers": [
            {
                "name": "main",
                "image": "registry:5000/i:1",
                "ports": [
                    {"name": "http-1", "containerPort": 80, "hostPort": 8080},
                    {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"},
                ],
                "env": [
                    {"name": "any name at all", "value": "x"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "subPath": "a/b"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": 0.1, "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http-1"}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            },
            {"name": "other", "image": "i"},
        ],
    },
}
MAIN = ("spec", "containers", 0)
VOLUME = ("spec", "volumes")


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    pod = copy.deepcopy(POD)
    place: Any = pod
    for step in path[:-1]:
        place = place[step]
    if value is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return pod


DELETED = object()


def told(raw: dict[str, Any]) -> list[str]:
    return [str(fault) for fault in faults(raw)]


def test_a_sound_pod_has_no_fault() -> None:
    assert told(POD) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("metadata",), DELETED, "metadata: Required value"),
        (("spec",), DELETED, "spec: Required value"),
        (("metadata", "name"), "", "metadata.name: Required value"),
        (("metadata", "name"), "Web", 'metadata.name: Invalid value: "Web"'),
        (("metadata", "name"), "a" * 254, "metadata.name: Invalid value"),
        (("metadata", "namespace"), "a.b", 'metadata.namespace: Invalid value: "a.b"'),
        (("metadata", "labels"), {"a b": "x"}, 'metadata.labels: Invalid value: "a b"'),
        (("metadata", "labels"), {"a": "-x"}, 'metadata.labels[a]: Invalid value: "-x"'),
        (("metadata", "labels"), {"a": 1}, "metadata.labels[...]: Invalid value: expected str, got int"),
        (("metadata", "labels"), {1: "a"}, "metadata.labels: Invalid value: expected str, got int"),
        (("metadata", "annotations"), {"x/y/z": ""}, 'metadata.annotations: Invalid value: "x/y/z"'),
        (("spec", "containers"), [], "spec.containers: Required value"),
        (("spec", "containers"), {}, "spec.containers: Invalid value: expected array, got object"),
        (("spec", "restartPolicy"), "Sometimes", 'spec.restartPolicy: Unsupported value: "Sometimes"'),
        (("spec", "dnsPolicy"), "Mine", 'spec.dnsPolicy: Unsupported value: "Mine"'),
        (("spec", "dnsPolicy"), "None", "spec.dnsConfig.nameservers: Required value"),
        (("spec", "terminationGracePeriodSeconds"), -1, "spec.terminationGracePeriodSeconds: Invalid value: -1"),
        (("spec", "activeDeadlineSeconds"), 0, "spec.activeDeadlineSeconds: Invalid value: 0"),
        (("spec", "hostname"), "a.b", 'spec.hostname: Invalid value: "a.b"'),
        (("spec", "hostAliases", 0, "ip"), "1.2.3", 'spec.hostAliases[0].ip: Invalid value: "1.2.3"'),
        (("spec", "hostAliases", 0, "hostnames"), ["_"], 'spec.hostAliases[0].hostnames[0]: Invalid value: "_"'),
        (("spec", "securityContext", "fsGroup"), -1, "spec.securityContext.fsGroup: Invalid value: -1"),
        ((*VOLUME, 1, "name"), "a.b", 'spec.volumes[1].name: Invalid value: "a.b"'),
        ((*VOLUME, 1, "name"), "tmp", 'spec.volumes[1].name: Duplicate value: "tmp"'),
        ((*VOLUME, 0, "emptyDir"), DELETED, "spec.volumes[0]: Required value: must have a volume type"),
        (
            (*VOLUME, 0, "iscsi"),
            {},
            "spec.volumes[0]: Forbidden: may not have more than one volume type (emptyDir, iscsi)",
        ),
        ((*VOLUME, 1, "hostPath", "path"), "", "spec.volumes[1].hostPath.path: Required value"),
        ((*VOLUME, 1, "hostPath", "path"), "/a/../b", 'spec.volumes[1].hostPath.path: Invalid value: "/a/../b"'),
        ((*VOLUME, 1, "hostPath", "type"), "Dir", 'spec.volumes[1].hostPath.type: Unsupported value: "Dir"'),
        (
            (*VOLUME, 2, "downwardAPI", "items", 0, "path"),
            "../a",
            'spec.volumes[2].downwardAPI.items[0].path: Invalid value: "../a"',
        ),
        (
            (*VOLUME, 2, "downwardAPI", "items", 0, "fieldRef"),
            DELETED,
            "spec.volumes[2].downwardAPI.items[0]: Required value",
        ),
        ((*MAIN, "name"), DELETED, "spec.containers[0].name: Required value"),
        ((*MAIN, "name"), "", "spec.containers[0].name: Required value"),
        ((*MAIN, "name"), "a_b", 'spec.containers[0].name: Invalid value: "a_b"'),
        ((*MAIN, "name"), "other", 'spec.containers[1].name: Duplicate value: "other"'),
        (("spec", "initContainers", 0, "name"), "main", 'spec.initContainers[0].name: Duplicate value: "main"'),
        ((*MAIN, "image"), DELETED, "spec.containers[0].image: Required value"),
        ((*MAIN, "image"), " i", 'spec.containers[0].image: Invalid value: " i"'),
        ((*MAIN, "imagePullPolicy"), "Often", 'spec.containers[0].imagePullPolicy: Unsupported value: "Often"'),
        ((*MAIN, "terminationMessagePolicy"), "X", "spec.containers[0].terminationMessagePolicy: Unsupported value"),
        ((*MAIN, "ports", 0, "containerPort"), 0, "spec.containers[0].ports[0].containerPort: Invalid value: 0"),
        ((*MAIN, "ports", 0, "containerPort"), "80", "spec.containers[0].ports[0].containerPort: Invalid value: exp"),
        ((*MAIN, "ports", 0, "hostPort"), 65536, "spec.containers[0].ports[0].hostPort: Invalid value: 65536"),
        ((*MAIN, "ports", 0, "name"), "123", 'spec.containers[0].ports[0].name: Invalid value: "123"'),
        ((*MAIN, "ports", 1, "name"), "http-1", 'spec.containers[0].ports[1].name: Duplicate value: "http-1"'),
        ((*MAIN, "ports", 1, "protocol"), "TCP", "spec.containers[0].ports[1].hostPort: Duplicate value: 8080"),
        ((*MAIN, "ports", 1, "protocol"), "IP", 'spec.containers[0].ports[1].protocol: Unsupported value: "IP"'),
        ((*MAIN, "env", 0, "name"), "", "spec.containers[0].env[0].name: Required value"),
        ((*MAIN, "env", 0, "name"), "a=b", 'spec.containers[0].env[0].name: Invalid value: "a=b"'),
        ((*MAIN, "env", 1, "value"), "x", "spec.containers[0].env[1].valueFrom: Forbidden"),
        ((*MAIN, "env", 1, "valueFrom"), {}, "spec.containers[0].env[1].valueFrom: Required value"),
        ((*MAIN, "envFrom"), [{"prefix": "X"}], "spec.containers[0].envFrom[0]: Required value"),
        ((*MAIN, "volumeMounts", 0, "name"), "none", 'spec.containers[0].volumeMounts[0].name: Not found: "none"'),
        ((*MAIN, "volumeMounts", 0, "name"), "", "spec.containers[0].volumeMounts[0].name: Required value"),
        ((*MAIN, "volumeMounts", 0, "mountPath"), "", "spec.containers[0].volumeMounts[0].mountPath: Required value"),
        ((*MAIN, "volumeMounts", 0, "subPath"), "a/../..", "spec.containers[0].volumeMounts[0].subPath: Invalid value"),
        ((*MAIN, "volumeMounts", 0, "subPathExpr"), "x", "spec.containers[0].volumeMounts[0].subPathExpr: Forbidden"),
        (
            (*MAIN, "volumeMounts", 0, "mountPropagation"),
            "Bidirectional",
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden",
        ),
        (
            (*MAIN, "volumeMounts"),
            [{"name": "tmp", "mountPath": "/a"}, {"name": "host", "mountPath": "/a"}],
            'spec.containers[0].volumeMounts[1].mountPath: Duplicate value: "/a"',
        ),
        (
            (*MAIN, "resources", "limits", "memory"),
            "1 GB",
            "spec.containers[0].resources.limits[memory]: Invalid value",
        ),
        ((*MAIN, "resources", "limits", "memory"), "-1", "spec.containers[0].resources.limits[memory]: Invalid value"),
        (
            (*MAIN, "resources", "requests", "cpu"),
            "101m",
            'spec.containers[0].resources.requests[cpu]: Invalid value: "101m": must be less than',
        ),
        ((*MAIN, "securityContext"), {"runAsUser": -1}, "spec.containers[0].securityContext.runAsUser: Invalid value"),
        (
            (*MAIN, "securityContext"),
            {"privileged": True, "allowPrivilegeEscalation": False},
            "spec.containers[0].securityContext.allowPrivilegeEscalation: Invalid value: false",
        ),
        ((*MAIN, "livenessProbe"), {}, "spec.containers[0].livenessProbe: Required value"),
        ((*MAIN, "livenessProbe", "successThreshold"), 2, "spec.containers[0].livenessProbe.successThreshold: Invalid"),
        ((*MAIN, "livenessProbe", "periodSeconds"), 0, "spec.containers[0].livenessProbe.periodSeconds: Invalid value"),
        ((*MAIN, "livenessProbe", "httpGet", "port"), 0, "spec.containers[0].livenessProbe.httpGet.port: Invalid"),
        ((*MAIN, "lifecycle"), {"preStop": {"exec": {}}}, "spec.containers[0].lifecycle.preStop.exec.command: Requ"),
        (
            ("spec", "initContainers", 0, "livenessProbe"),
            {"exec": {"command": ["x"]}},
            "spec.initContainers[0].livenessProbe: Forbidden",
        ),
    ],
)
def test_a_fault_is_told_by_its_field(path: tuple[str | int, ...], value: object, fault: str) -> None:
    found = told(changed(path, value))
    assert len(found) == 1, found
    assert found[0].startswith(fault)


def test_every_fault_is_told_at_once() -> None:
    pod = changed(("metadata", "name"), "")
    pod["spec"]["containers"][0]["image"] = ""
    pod["spec"]["containers"][1]["image"] = ""
    assert told(pod) == [
        "metadata.name: Required value",
        "spec.containers[0].image: Required value",
        "spec.containers[1].image: Required value",
    ]


def test_a_host_port_on_the_hosts_network_is_the_containers() -> None:
    pod = changed(("spec", "hostNetwork"), True)
    pod["spec"]["shareProcessNamespace"] = pod["spec"]["hostPID"] = True
    assert [fault.split(": ")[0] for fault in told(pod)] == [
        "spec.containers[0].ports[0].hostPort",
        "spec.containers[0].ports[1].hostPort",
        "spec.shareProcessNamespace",
    ]


def test_every_field_that_names_an_api_object_is_found() -> None:
    container = {
        "name": "c",
        "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "x"}}, {"secretRef": {"name": "x"}}],
    }
    spec = {
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "x"}],
        "volumes": [
            {"name": "a", "configMap": {"name": "x"}},
            {"name": "b", "secret": {"secretName": "x"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"downwardAPI": {}},
                        {"configMap": {"name": "x"}},
                        {"secret": {"name": "x"}},
                        {"serviceAccountToken": {"path": "t"}},
                    ]
                },
            },
        ],
        "initContainers": [container],
        "containers": [{"name": "d"}],
    }
    assert [r.path for r in api_references(pod_from_dict({"metadata": {}, "spec": spec}))] == [
        "spec.serviceAccountName",
        "spec.imagePullSecrets[0]",
        "spec.volumes[0].configMap",
        "spec.volumes[1].secret",
        "spec.volumes[2].projected.sources[1].configMap",
        "spec.volumes[2].projected.sources[2].secret",
        "spec.volumes[2].projected.sources[3].serviceAccountToken",
        "spec.initContainers[0].env[0].valueFrom.configMapKeyRef",
        "spec.initContainers[0].env[1].valueFrom.secretKeyRef",
        "spec.initContainers[0].envFrom[0].configMapRef",
        "spec.initContainers[0].envFrom[1].secretRef",
    ]
    assert api_references(pod_from_dict(POD)) == ()
