"""Static pods of a node in a cluster: what the API server shows of them, and that nothing done there harms them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import SLEEP, Edge, Object, container, container_ids, is_ready, pod, restarts
from tests.integration.autonomy.conftest import through
from tests.integration.autonomy.relay import Cut, Relay
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

MIRROR = "kubernetes.io/config.mirror"


def write(folder: Path, made: Object) -> Path:
    file = folder / f"{made['metadata']['name']}.yaml"
    draft = folder / f".{file.name}"
    draft.write_text(yaml.safe_dump(made))
    return draft.rename(file)


def ready(edge: Edge, name: str) -> Object:
    """The mirror, once it says that the pod is Ready."""

    def found() -> Object | None:
        mirror = edge.pod(name)
        return mirror if is_ready(mirror) else None

    return wait_until(found, what=f"{name} is Ready")


def static(edge_namespace: str, name: str, *containers: Object, **spec: object) -> Object:
    return pod(name, *containers, metadata={"namespace": edge_namespace, "labels": {"app": name}}, **spec)


def test_a_mirror_pod_follows_its_manifest_and_its_deletion_harms_nothing(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, manifests: Path
) -> None:
    file = write(manifests, static(namespace, "web", container(f"echo here; {SLEEP}")))
    edge = Edge(agent(manifests=manifests), one_containerd, control_plane, namespace)
    name = f"web-{edge.node}"
    mirror = ready(edge, name)
    meta = mirror["metadata"]
    annotations = meta["annotations"]
    assert annotations[MIRROR] == annotations["kubernetes.io/config.hash"]
    assert annotations["kubernetes.io/config.source"] == "file"
    node = edge.agent.node_object()
    owner = {"apiVersion": "v1", "kind": "Node", "name": edge.node, "uid": node["metadata"]["uid"], "controller": True}
    assert meta["ownerReferences"] == [owner]
    assert (meta["labels"], mirror["spec"]["nodeName"]) == ({"app": "web"}, edge.node)
    assert edge.log(name).strip() == "here"
    (running,) = edge.containers()
    assert running["labels"]["io.kubernetes.pod.uid"] == annotations[MIRROR]

    shown = [meta["uid"]]
    for how in ((), ("--grace-period=0", "--force")):
        edge.kubectl("delete", "pod", name, "--wait=false", *how)
        wait_until(lambda: edge.pod(name)["metadata"]["uid"] not in shown, what="it is there again")
        again = ready(edge, name)
        assert container_ids(again) == container_ids(mirror)
        shown.append(again["metadata"]["uid"])

    # Another agent finds its mirror, and leaves it.
    edge.agent.terminate()
    edge.agent.start()
    edge.agent.wait_ready()
    assert edge.pod(name)["metadata"]["uid"] == shown[-1]

    write(manifests, static(namespace, "web", container(f"echo changed; {SLEEP}"), terminationGracePeriodSeconds=5))
    changed = wait_until(
        lambda: (found := ready(edge, name))["metadata"]["annotations"][MIRROR] != annotations[MIRROR] and found
    )
    assert changed["metadata"]["uid"] not in shown
    assert edge.log(name).strip() == "changed"

    # The same manifest, deleted and written anew, is the same pod, run again.
    text, kept = file.read_text(), edge.pod(name)["metadata"]["uid"]
    file.unlink()
    file.write_text(text)
    wait_until(lambda: restarts(edge.pod(name)) == 1 and is_ready(edge.pod(name)))
    assert edge.pod(name)["metadata"]["uid"] == kept

    file.unlink()
    edge.wait_gone(name)
    wait_until(lambda: not edge.sandboxes())


def test_a_mirror_that_nobody_made_here_goes_and_is_never_run(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, manifests: Path
) -> None:
    edge = Edge(agent(manifests=manifests), one_containerd, control_plane, namespace)
    edge.run(pod("feigned", metadata={"annotations": {MIRROR: "0" * 32}}), pod("ordinary"))
    edge.wait_gone("feigned")
    edge.wait_ready("ordinary")
    assert {found["metadata"]["name"] for found in edge.sandboxes()} == {"ordinary"}


def test_static_pods_of_a_url_run_cut_off_and_their_mirrors_catch_up(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    relay: Relay,
    fleet: Fleet,
) -> None:
    fleet.pods = [static(namespace, "first")]
    node = "edge-by-url"
    flags = [
        f"--kubeconfig={through(relay, control_plane, node)}",
        f"--manifest-url={fleet.url}",
        "--manifest-url-header=X-Site:42",
        "--http-check-frequency=500ms",
    ]
    edge = Edge(agent(node, flags=flags), one_containerd, control_plane, namespace)
    first, second = f"first-{edge.node}", f"second-{edge.node}"
    assert ready(edge, first)["metadata"]["annotations"]["kubernetes.io/config.source"] == "http"
    assert fleet.site == "42"

    relay.cut(Cut.REFUSED)
    fleet.pods = [static(namespace, "second")]
    wait_until(lambda: [c["labels"]["io.kubernetes.pod.name"] for c in edge.containers()] == [second])
    fleet.broken = True
    assert edge.exists(first)
    assert not edge.exists(second)
    relay.heal()
    ready(edge, second)
    edge.wait_gone(first)


class Fleet:
    """A server of manifests on loopback."""

    def __init__(self) -> None:
        self.pods: list[Object] = []
        self.site = ""
        self.broken = False
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fleet.site = self.headers.get("X-Site", "")
                self.send_response(500 if fleet.broken else 200)
                self.end_headers()
                self.wfile.write(yaml.safe_dump({"apiVersion": "v1", "kind": "PodList", "items": fleet.pods}).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/pods.yaml"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.close()
