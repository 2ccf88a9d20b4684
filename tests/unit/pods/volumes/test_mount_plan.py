from pathlib import Path
from typing import Any

import pytest

from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap
from agent.model.pod import Pod, pod_from_dict
from agent.pods.downward import NodeContext
from agent.pods.ports import ObjectKey
from agent.pods.references import Referenced
from agent.pods.volumes.mount_plan import (
    nested_mount_points,
    plan_mounts,
    pod_memory_limit,
    tmpfs_bytes,
)
from agent.pods.volumes.payload import PayloadFile
from agent.pods.volumes.steps import CheckHostPath, MakeFolder, MakeHugetlbfs, MakeTmpfs, WritePayload

ROOT = Path("/var/lib/edgelet")
NODE = NodeContext("n", allocatable={"memory": "1Gi"})
REFERENCED = Referenced(
    objects={ObjectKey("configmaps", "ns", "cm"): ConfigMap(metadata=ObjectMeta(name="cm"), data={"a": "1"})}
)


def pod(*volumes: dict[str, Any], **spec: Any) -> Pod:
    return pod_from_dict(
        {"metadata": {"namespace": "ns", "uid": "u"}, "spec": {"containers": [], "volumes": volumes, **spec}}
    )


def test_every_kind_has_its_step_in_the_kubelets_folder() -> None:
    plan = plan_mounts(
        pod(
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "h", "hostPath": {"path": "/srv", "type": "Directory"}},
            {"name": "c", "configMap": {"name": "cm"}},
            securityContext={"fsGroup": 7},
        ),
        REFERENCED,
        NODE,
        ROOT,
    )
    volumes = ROOT / "pods/u/volumes"
    assert plan.problems == ()
    assert plan.steps == (
        MakeFolder("e", volumes / "kubernetes.io~empty-dir/e", 7),
        MakeTmpfs("m", volumes / "kubernetes.io~empty-dir/m", 7, 1 << 20),
        CheckHostPath("h", Path("/srv"), "Directory"),
        WritePayload(
            "c", volumes / "kubernetes.io~configmap/c", 7, {"a": PayloadFile(b"1", 0o644)}, False, 1 << 30, ()
        ),
    )


def test_secrets_and_what_may_hold_one_stay_in_memory() -> None:
    plan = plan_mounts(
        pod(
            {"name": "s", "secret": {"secretName": "x", "optional": True}},
            {"name": "d", "downwardAPI": {}},
            {"name": "p", "projected": {}},
        ),
        REFERENCED,
        NODE,
        ROOT,
    )
    assert [(step.path.parent.name, step.in_memory) for step in plan.steps if isinstance(step, WritePayload)] == [
        ("kubernetes.io~secret", True),
        ("kubernetes.io~downward-api", True),
        ("kubernetes.io~projected", True),
    ]


def test_every_problem_is_told_with_its_volume() -> None:
    plan = plan_mounts(
        pod(
            {"name": "c", "configMap": {"name": "gone"}},
            {"name": "h", "emptyDir": {"medium": "Tape"}},
            {"name": "x"},
            {"name": "../up", "emptyDir": {}},
        ),
        REFERENCED,
        NODE,
        ROOT,
    )
    assert plan.problems == (
        'MountVolume.SetUp failed for volume "c" : configmap "gone" not found',
        'MountVolume.SetUp failed for volume "h" : unsupported emptyDir medium "Tape"',
        'MountVolume.SetUp failed for volume "x" : the volume is of no kind that this agent supports',
        "MountVolume.SetUp failed for volume \"../up\" : volume name '../up' is not a plain file name",
    )


def test_a_refresh_looks_at_payloads_only() -> None:
    plan = plan_mounts(
        pod({"name": "e", "emptyDir": {}}, {"name": "x"}, {"name": "c", "configMap": {"name": "cm"}}),
        REFERENCED,
        NODE,
        ROOT,
        payloads_only=True,
    )
    assert [step.name for step in plan.steps] == ["c"]
    assert plan.problems == ()


def test_mounts_inside_a_volume_get_their_folders_unless_a_file_has_the_name() -> None:
    mounts = [
        {"name": "c", "mountPath": "/etc/app"},
        {"name": "e", "mountPath": "/etc/app/cache/x"},
        {"name": "e", "mountPath": "/etc/app/a"},
        {"name": "e", "mountPath": "/etc/apple"},
        {"name": "e", "mountPath": "/etc/app/..hidden"},
    ]
    planned = pod({"name": "c", "configMap": {"name": "cm"}}, containers=[{"name": "main", "volumeMounts": mounts}])
    assert nested_mount_points(planned, "c") == ("cache/x", "a")
    (step,) = plan_mounts(planned, REFERENCED, NODE, ROOT).steps
    assert isinstance(step, WritePayload)
    assert step.nested == ("cache/x",)


def container(memory: str | None, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"memory": memory}} if memory else {}, **more}


def limited(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> Pod:
    return pod_from_dict({"metadata": {}, "spec": {"containers": containers, "initContainers": init}})


@pytest.mark.parametrize(
    ("size_limit", "node", "size"),
    [(None, None, 1000), (500, None, 500), (2000, None, 1000), (0, 800, 800), (None, 5000, 1000)],
)
def test_the_least_bound_wins(size_limit: int | None, node: int | None, size: int) -> None:
    assert tmpfs_bytes(limited(container("1k")), size_limit, node) == size


def test_no_bound_at_all_is_the_kernels_business() -> None:
    assert tmpfs_bytes(limited(container(None)), None, None) is None


def test_a_pods_memory_limit_is_its_widest_moment() -> None:
    assert pod_memory_limit(limited(container("1k"), container("2k"))) == 3000
    assert pod_memory_limit(limited(container("1k"), container(None))) is None
    assert pod_memory_limit(limited(container("1k"), init=(container("5k"), container("2k")))) == 5000
    sidecar = container("1k", restartPolicy="Always")
    assert pod_memory_limit(limited(container("1k"), init=(sidecar, container("3k")))) == 4000
    assert pod_memory_limit(limited(container("9k"), init=(sidecar, container("3k")))) == 10000
    assert pod_memory_limit(limited(container("9k"), init=(container(None),))) is None


def on_huge_pages(medium: str, *requests: dict[str, str]) -> Pod:
    containers = [{"name": f"c{i}", "resources": {"limits": asked}} for i, asked in enumerate(requests)]
    return pod({"name": "h", "emptyDir": {"medium": medium}}, containers=containers)


@pytest.mark.parametrize(
    ("medium", "requests", "page"),
    [
        ("HugePages", [{"hugepages-2Mi": "4Mi"}, {"cpu": "1"}], 2 << 20),
        ("HugePages", [{"hugepages-1Gi": "1Gi"}], 1 << 30),
        ("HugePages-2Mi", [{"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}], 2 << 20),
    ],
)
def test_an_empty_dir_on_huge_pages_has_the_size_that_containers_ask_for(
    medium: str, requests: list[dict[str, str]], page: int
) -> None:
    plan = plan_mounts(on_huge_pages(medium, *requests), REFERENCED, NODE, ROOT)
    assert plan.steps == (MakeHugetlbfs("h", ROOT / "pods/u/volumes/kubernetes.io~empty-dir/h", None, page),)


@pytest.mark.parametrize(
    ("medium", "requests", "problem"),
    [
        ("HugePages", [{"hugepages-2Mi": "4Mi"}, {"hugepages-1Gi": "1Gi"}], "requests multiple huge page sizes"),
        ("HugePages", [{}], "medium HugePages: hugePages storage requested, but there is no resource request for huge"),
        ("HugePages-1Gi", [{"hugepages-2Mi": "4Mi"}], "there is no resource request for huge pages"),
        ("HugePages-odd", [{"hugepages-2Mi": "4Mi"}], "not a resource quantity: 'odd'"),
        ("Tape", [{}], 'unsupported emptyDir medium "Tape"'),
    ],
)
def test_huge_pages_that_nobody_asked_for_are_a_problem(
    medium: str, requests: list[dict[str, str]], problem: str
) -> None:
    (told,) = plan_mounts(on_huge_pages(medium, *requests), REFERENCED, NODE, ROOT).problems
    assert problem in told
