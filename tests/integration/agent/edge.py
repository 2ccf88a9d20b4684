"""One node with its agent, its runtime and a namespace of the test's own, and what tests ask of them.

What is polled goes over HTTP, not through kubectl: a process for every look would be the load that the test measures.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from hack import binaries
from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.images import BUSYBOX
from hack.runtime import Containerd
from tests.integration.support.waiting import wait_until

Object = dict[str, Any]

END_ON_TERM = "trap 'exit 0' TERM"
"""First in a script that works before it sleeps: PID 1 without a trap doesn't hear TERM, and uses up its grace."""
SLEEP = f"{END_ON_TERM}; sleep 3600 & wait"
"""Runs until it is told to stop, and then ends at once."""


def container(script: str = SLEEP, name: str = "main", **more: Any) -> Object:
    return {
        "name": name,
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        **more,
    }


def pod(name: str, *containers: Object, metadata: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """A Pod manifest; without containers it sleeps."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


@dataclass(frozen=True)
class Edge:
    """`node` is where pods go that `run` makes; controllers' pods go there because no other node is Ready."""

    agent: Agent
    runtime: Containerd
    plane: ControlPlane
    namespace: str

    @property
    def node(self) -> str:
        return self.agent.node

    # ------------------------------------------------------------ the API server

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        return self.plane.kubectl(*args, "--namespace", self.namespace, stdin=stdin, check=check)

    def apply(self, *objects: Object) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(listed))

    def run(self, *pods: Object) -> None:
        """Create pods on this node, past the scheduler."""
        self.apply(*({**made, "spec": {"nodeName": self.node, **made["spec"]}} for made in pods))

    def delete(self, *what: str) -> None:
        """Ask for the end and don't wait for it."""
        self.kubectl("delete", *what, "--wait=false")

    def get(self, path: str) -> Object:
        """An object or a list below /api/v1/namespaces/NAMESPACE/ (or an absolute path)."""
        full = path if path.startswith("/") else f"/api/v1/namespaces/{self.namespace}/{path}"
        return self.plane.get(full)

    def pods(self) -> list[Object]:
        return list(self.get("pods")["items"])

    def pod(self, name: str) -> Object:
        return self.get(f"pods/{name}")

    def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the events on an object of this name, oldest first."""
        items = self.get(f"events?fieldSelector=involvedObject.name={name}")["items"]
        items.sort(key=lambda event: event["metadata"]["creationTimestamp"])
        return [(event["reason"], event["message"]) for event in items]

    def node_events(self) -> list[tuple[str, str]]:
        """(reason, message) of the events on this node."""
        path = f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={self.node}"
        return [(event["reason"], event["message"]) for event in self.get(path)["items"]]

    def exists(self, name: str) -> bool:
        return any(found["metadata"]["name"] == name for found in self.pods())

    def wait_ready(self, *names: str, timeout: float = 30) -> None:
        """Until pods of these names are Ready."""

        def missing() -> set[str]:
            return set(names) - {found["metadata"]["name"] for found in self.pods() if is_ready(found)}

        wait_until(lambda: not missing(), timeout, what=f"Ready: {', '.join(names)}")

    def wait_phase(self, name: str, phase: str, timeout: float = 30) -> Object:
        def reached() -> Object:
            found = self.pod(name)
            assert found["status"].get("phase") == phase, found["status"]
            return found

        return wait_until(reached, timeout, what=f"{name} {phase}")

    def wait_gone(self, *names: str, timeout: float = 30) -> None:
        """Until the API server has no pods of these names; none given: no pods at all."""

        def left() -> set[str]:
            found = {found["metadata"]["name"] for found in self.pods()}
            return found & set(names) if names else found

        wait_until(lambda: not left(), timeout, what=f"gone: {names or 'all pods'}")

    def log(self, name: str, *flags: str) -> str:
        return self.kubectl("logs", name, *flags)

    @contextmanager
    def following(self, name: str) -> Iterator[IO[str]]:
        """The pod's log as kubectl shows it, line by line until its container ends."""
        command = [str(binaries.find("kubectl")), "--kubeconfig", str(self.plane.admin_kubeconfig)]
        command += ["logs", "--follow", name, "--namespace", self.namespace]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            yield follower.stdout
            assert follower.wait(10) == 0

    # ------------------------------------------------------------ the runtime

    def sandboxes(self, namespace: str = "") -> list[Object]:
        """Of this test's namespace."""
        return [
            found
            for found in json.loads(self.runtime.crictl("pods", "--output=json"))["items"]
            if found["metadata"]["namespace"] == (namespace or self.namespace)
        ]

    def containers(self) -> list[Object]:
        """Of this test's namespace, running or not."""
        return [
            found
            for found in json.loads(self.runtime.crictl("ps", "--all", "--output=json"))["containers"]
            if found["labels"].get("io.kubernetes.pod.namespace") == self.namespace
        ]

    # ------------------------------------------------------------ the agent

    def agent_log(self) -> str:
        return self.agent.log.read_text(errors="replace")


def is_ready(found: Object) -> bool:
    return condition(found, "Ready").get("status") == "True" and "deletionTimestamp" not in found["metadata"]


def condition(found: Object, kind: str) -> Object:
    """Empty where the object has none of the kind."""
    conditions: Sequence[Object] = found.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), {})


def status_of(found: Object, name: str = "main") -> Object:
    """One container's status; init containers too. Raises ValueError where there is none yet."""
    status = found["status"]
    every: list[Object] = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    (own,) = [one for one in every if one["name"] == name]
    return own


def container_ids(found: Object) -> dict[str, str]:
    """By container's name, bare."""
    return {
        one["name"]: one["containerID"].rpartition("/")[2]
        for one in found["status"].get("containerStatuses", [])
        if one.get("containerID")
    }


def restarts(found: Object) -> int:
    return sum(one["restartCount"] for one in found["status"].get("containerStatuses", []))
