import json
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.model.record import Origin, PodRecord
from agent.pods.static_pods import ManifestSource, static_pods

FILE = Path("/etc/edgelet/manifests/web.yaml")
NOW = 1767323045.5
WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: main, image: nginx}
"""


def made(text: str | bytes, node: str = "Edge-1", file: Path = FILE) -> tuple[PodRecord, ...]:
    content = text.encode() if isinstance(text, str) else text
    return static_pods(content, ManifestSource(file), node, NOW)


def one(text: str | bytes, node: str = "Edge-1", file: Path = FILE) -> PodRecord:
    (record,) = made(text, node, file)
    return record


def refusal(text: str | bytes) -> str:
    with pytest.raises(Permanent) as refused:
        made(text)
    assert refused.value.reason == "InvalidManifest"
    assert "\n" not in str(refused.value)
    return str(refused.value)


def spec(**fields: object) -> str:
    pod = {"containers": [{"name": "main", "image": "nginx"}], **fields}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": pod})


def test_a_static_pod_has_the_kubelets_name_annotations_and_node() -> None:
    record = one(WEB)
    raw = json.loads(record.raw)
    uid = raw["metadata"]["uid"]
    assert len(uid) == 32
    assert raw == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-edge-1",
            "namespace": "default",
            "uid": uid,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": {
                "kubernetes.io/config.hash": uid,
                "kubernetes.io/config.source": "file",
                "kubernetes.io/config.seen": "2026-01-02T03:04:05Z",
                "io.edgelet.manifest": str(FILE),
            },
        },
        "spec": {
            "containers": [{"name": "main", "image": "nginx"}],
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "nodeName": "Edge-1",
        },
    }
    assert record == PodRecord.decode(record.raw, Origin.FILE)
    assert record.pod.is_static


def test_the_same_pod_in_the_same_file_has_the_same_uid_however_it_is_written() -> None:
    written_differently = "# a comment\n" + json.dumps(
        {
            "spec": {"containers": [{"image": "nginx", "name": "main"}], "volumes": None},
            "metadata": {"name": "web", "creationTimestamp": None},
            "kind": "Pod",
            "apiVersion": "v1",
        },
        indent=1,
    )
    assert one(written_differently).uid == one(WEB).uid


def test_another_content_file_or_node_is_another_pod() -> None:
    uids = {
        one(WEB).uid,
        one(WEB.replace("nginx", "nginx:2")).uid,
        one(WEB, file=FILE.with_name("b.yaml")).uid,
        one(WEB, node="edge-2").uid,
    }
    assert len(uids) == 4


def test_what_a_cluster_wrote_into_a_copied_manifest_is_left_out() -> None:
    copied = """
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  uid: 11111111-2222-3333-4444-555555555555
  resourceVersion: "7"
  deletionTimestamp: 2026-01-01T00:00:00Z
  ownerReferences: [{kind: ReplicaSet, name: x, uid: y, apiVersion: apps/v1}]
  labels: {app: web}
  annotations: {kubernetes.io/config.mirror: x, mine: y}
spec:
  nodeName: elsewhere
  containers: [{name: main, image: nginx}]
status: {phase: Running}
"""
    raw = json.loads(one(copied).raw)
    assert set(raw) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(raw["metadata"]) == {"name", "namespace", "uid", "creationTimestamp", "labels", "annotations"}
    assert (raw["metadata"]["uid"][0:8], raw["spec"]["nodeName"]) != ("11111111", "elsewhere")
    assert "kubernetes.io/config.mirror" not in raw["metadata"]["annotations"]
    assert raw["metadata"]["annotations"]["mine"] == "y"


def test_documents_lists_and_json_are_all_read() -> None:
    several = WEB + "---\n# nothing here\n---\n" + WEB.replace("name: web", "name: db")
    assert [r.pod.metadata.name for r in made(several)] == ["web-edge-1", "db-edge-1"]
    for kind in ("PodList", "List"):
        pod = json.loads(spec())
        items = [pod, {"metadata": {"name": "db"}, "spec": pod["spec"]}]
        names = [r.pod.metadata.name for r in made(json.dumps({"apiVersion": "v1", "kind": kind, "items": items}))]
        assert names == ["web-edge-1", "db-edge-1"]
    flow = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: a, image: b}]}}"
    assert one("\ufeff" + flow)
    assert one(spec().replace("{", "{\t"))


def test_a_file_of_comments_holds_no_pod() -> None:
    assert made("# " + WEB.replace("\n", "\n# ")) == ()
    assert made("---\n---\n") == ()


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: main
    image: nginx
    args: [8080:80, 2026-01-02, 12:30:45]
    env: [{name: A, value: "yes"}]
  volumes:
  - {name: bare}
  - {name: null-kind, emptyDir: }
  - name: info
    downwardAPI: {defaultMode: 0o640, items: [{path: a, mode: 0600, fieldRef: {fieldPath: metadata.name}}]}
"""
    pod = one(text).pod.spec
    assert pod.containers[0].args == ("8080:80", "2026-01-02", "12:30:45")
    assert pod.volumes[0].emptyDir is not None
    assert pod.volumes[1].emptyDir is not None
    info = pod.volumes[2].downwardAPI
    assert info is not None
    assert (info.defaultMode, info.items[0].mode) == (0o640, 0o600)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the manifest is empty"),
        (b"\0" * 4096, "the manifest is empty"),
        (b"\xff\xfe", "not UTF-8 text"),
        ("a: [1", "line 2: not YAML: "),
        ("a: b\n  c: d", "line 2: not YAML: "),
        ("a: \0", "not YAML: "),
        ("a: !!python/object:os.system x", "line 1: not YAML: "),
        ("&a [*a]", "nested too deeply"),
        ("just text", "a document is not an object"),
        ("{}", 'apiVersion: Unsupported value: "": must be "v1"'),
        ("{apiVersion: apps/v1, kind: Deployment}", 'apiVersion: Unsupported value: "apps/v1"'),
        ("{apiVersion: v1, kind: Service}", 'kind: Unsupported value: "Service": must be "Pod"'),
        ("{apiVersion: v1, kind: List, items: {}}", "items: Invalid value: must be a list"),
        ("{apiVersion: v1, kind: List, items: [{kind: Service}]}", "items[0]: Unsupported value"),
        ("{apiVersion: v1, kind: Pod, spec: {}}", "metadata: Required value"),
        ("{apiVersion: v1, kind: Pod, metadata: [], spec: {}}", "metadata: Invalid value: expected object"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {volumes: [1]}}", "spec.volumes[0]: Invalid value"),
        (WEB.replace(", image: nginx", ""), "spec.containers[0].image: Required value"),
        (WEB.replace("web", "a" * 250), "metadata.name: Invalid value: "),
        (WEB + "---\n" + WEB, 'metadata.name: Duplicate value: "default/web-edge-1"'),
        (WEB + "---\n" + WEB.replace("image", "imgae").replace("web", "b"), "pod 2: spec.containers[0].image: Requ"),
        (spec(serviceAccountName="robot"), "spec.serviceAccountName: Forbidden: static pods may not refer"),
        (spec(volumes=[{"name": "v", "configMap": {"name": "x"}}]), "spec.volumes[0].configMap: Forbidden"),
        (spec(volumes=[{"name": "v", "iscsi": {"lun": 0}}]), "spec.volumes[0].iscsi: is not supported"),
        (spec(nodeNmae="x"), "spec.nodeNmae: is not supported"),
    ],
)
def test_what_is_not_a_pod_is_refused_in_one_line(text: str | bytes, told: str) -> None:
    assert refusal(text).startswith(told)


def test_a_file_that_is_far_too_long_is_not_parsed() -> None:
    assert refusal(b"#" * (10 * 2**20 + 1)) == "longer than 10485760 bytes"
