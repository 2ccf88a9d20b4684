"""The example manifests, as a user would apply them: this agent refuses none of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.model.pod import Pod, pod_from_dict
from agent.pods.references import references, token_requests
from agent.pods.scripts.allowed import ScriptRules
from agent.pods.scripts.host_program import refusals
from agent.pods.scripts.kind import is_scripts
from agent.pods.support import unsupported

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = sorted((REPOSITORY / "config" / "manifests").iterdir())
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
SCRIPTS_IMAGE = "edgelet.io/host"
"""Of bash scripts, which have none: nothing is pulled."""
DEMO_IMAGE = "docker.io/library/busybox:1.36"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def raw_pods(path: Path) -> Iterator[dict[str, Any]]:
    """The pods of a file, and those that its controllers would make."""
    for document in documents(path):
        match document["kind"]:
            case "Pod":
                yield document
            case "Deployment" | "Job":
                template = document["spec"]["template"]
                yield {"apiVersion": "v1", "kind": "Pod", "metadata": {}, **template}
            case "ConfigMap" | "Secret":
                continue
            case kind:
                pytest.fail(f"{path}: this test does not know where a {kind} has its pods")


def pods(path: Path) -> list[Pod]:
    return [pod_from_dict(raw) for raw in raw_pods(path)]


@pytest.mark.parametrize("path", [*MANIFESTS, *EXAMPLES], ids=lambda path: path.name)
def test_nothing_in_an_example_is_refused(path: Path) -> None:
    found = list(raw_pods(path))
    assert found, "no pod in it"
    assert [str(refusal) for raw in found for refusal in unsupported(raw)] == []
    assert all(pod.spec.containers for pod in pods(path))


@pytest.mark.parametrize("path", [*MANIFESTS, *EXAMPLES], ids=lambda path: path.name)
def test_every_example_uses_the_image_that_can_be_packed_without_a_registry(path: Path) -> None:
    containers = [c for pod in pods(path) for c in (*pod.spec.initContainers, *pod.spec.containers)]
    image = SCRIPTS_IMAGE if all(is_scripts(pod) for pod in pods(path)) else DEMO_IMAGE
    assert {container.image for container in containers} == {image}
    assert {container.pull_policy for container in containers} == {"IfNotPresent"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_goes_to_any_node(path: Path) -> None:
    for pod in pods(path):
        assert pod.spec.nodeSelector is None
        assert pod.spec.nodeName == ""
        assert pod.spec.tolerations == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_refers_to_is_in_the_same_file(path: Path) -> None:
    there = {(document["kind"], document["metadata"]["name"]) for document in documents(path)}
    kinds = {"configmaps": "ConfigMap", "secrets": "Secret"}
    named = {(kinds[key.kind], key.name) for pod in pods(path) for key in references(pod)}
    assert named <= there


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_for_a_machine_without_a_cluster_needs_no_api_server(path: Path) -> None:
    for pod in pods(path):
        assert references(pod) == ()
        assert not token_requests(pod)
        assert pod.spec.automountServiceAccountToken is False
        assert pod.spec.serviceAccountName == ""
        assert pod.spec.enableServiceLinks is False


def test_the_standalone_example_shows_an_init_container_a_sidecar_and_a_main_container_that_share_a_folder() -> None:
    (pod,) = pods(REPOSITORY / "config" / "manifests" / "hello.yaml")
    assert [container.is_sidecar for container in pod.spec.initContainers] == [False, True]
    (shared,) = (volume.name for volume in pod.spec.volumes if volume.emptyDir is not None)
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        assert shared in {mount.name for mount in container.volumeMounts}


def test_the_example_of_a_script_is_allowed_where_make_run_starts_it_without_a_cluster() -> None:
    (pod,) = pods(REPOSITORY / "config" / "manifests" / "script.yaml")
    assert is_scripts(pod)
    assert refusals(pod) == ()
    run = (REPOSITORY / "hack" / "run.sh").read_text()
    assert "--scripts-enabled --scripts-namespaces=default --scripts-service-accounts=default" in run
    assert ScriptRules(True, ("default",), ("default",)).refusal(pod) is None
