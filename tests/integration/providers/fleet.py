"""One node of another provider, with many pods: made and read over HTTP, for a process each would be the load."""

from __future__ import annotations

import concurrent.futures
import json
import sqlite3
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hack.agent import Agent
from hack.control_plane import ControlPlane

Object = dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    agent: Agent
    plane: ControlPlane
    namespace: str

    def create(self, names: Iterable[str], *, labels: dict[str, str] | None = None, **spec: Any) -> None:
        """All at once, past the scheduler."""
        with concurrent.futures.ThreadPoolExecutor(8) as hands:
            list(hands.map(lambda name: self._create(name, labels or {}, spec), names))

    def _create(self, name: str, labels: dict[str, str], spec: Object) -> None:
        containers = [{"name": "main", "image": "none", "command": ["sleep", "1000"]}]
        # Without a token nothing but the pod itself is asked of the API server.
        full = {"nodeName": self.agent.node, "automountServiceAccountToken": False, "containers": containers, **spec}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": full}
        self._send("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)

    def delete_all(self, grace_s: int | None = None) -> None:
        options = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_s is not None:
            options |= {"gracePeriodSeconds": grace_s}  # type: ignore[dict-item]
        self._send("DELETE", f"/api/v1/namespaces/{self.namespace}/pods", options)

    def _send(self, method: str, path: str, body: Object) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            self.plane.url + path, data=json.dumps(body).encode(), headers=headers, method=method
        )
        urllib.request.urlopen(request, context=self.plane.tls, timeout=60).close()

    def pods(self) -> list[Object]:
        return list(self.plane.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"])

    def pod(self, name: str) -> Object:
        return self.plane.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def phases(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for pod in self.pods():
            phase = pod["status"].get("phase", "")
            found[phase] = found.get(phase, 0) + 1
        return found

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """(type, reason, message), oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=involvedObject.name={name}"
        items = self.plane.get(path)["items"]
        items.sort(key=lambda event: event["firstTimestamp"])
        return [(event["type"], event["reason"], event["message"]) for event in items]

    def lives(self) -> dict[str, tuple[str, str, int]]:
        """What would change if a pod were run anew: by name its UID, its container and its start, and the restarts."""
        return {
            pod["metadata"]["name"]: (
                pod["metadata"]["uid"] + pod["status"]["podIP"],
                status["containerID"] + status["state"]["running"]["startedAt"],
                status["restartCount"],
            )
            for pod in self.pods()
            for status in pod["status"]["containerStatuses"]
        }

    def at_the_provider(self) -> set[str]:
        """UIDs of the pods that the mock provider has, whatever the API server says."""
        with closing(sqlite3.connect(f"file:{self.agent.root_dir}/record.db?mode=ro", uri=True)) as record:
            return {
                key.removeprefix("mock/") for (key,) in record.execute("SELECT key FROM rows WHERE key LIKE 'mock/%'")
            }

    def peak_rss_mib(self) -> float:
        with open(f"/proc/{self.agent.pid}/status") as lines:
            (peak,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        return peak / 1024
