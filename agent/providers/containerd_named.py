"""The containerd provider's pods as people ask for them: by name, for what runs in them now, for their logs.

In: the workers of all pods. Out: a worker, a container's id, a log. Two pods may have one name for a while: the one
that is to stay is meant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from agent.errors import NotFound, Permanent
from agent.model.logs import LogOptions
from agent.pods.logfiles import LogFiles
from agent.pods.logs import logged_container, read_log
from agent.pods.worker import PodWorker


class NamedPods:
    def __init__(self, workers: Mapping[str, PodWorker], log_files: LogFiles) -> None:
        self._workers = workers
        self._log_files = log_files

    def find(self, namespace: str, name: str) -> PodWorker:
        """The newest pod of that name, and of those first one that is to stay: an old one may be ended later.

        Raises NotFound.
        """
        if not (named := self.all_of(namespace, name)):
            raise NotFound(f'pod "{name}" not found')
        return next((worker for worker in reversed(named) if not worker.is_ending), named[-1])

    def all_of(self, namespace: str, name: str) -> tuple[PodWorker, ...]:
        """The workers of all pods of that name, in the order in which they came."""
        metas = ((worker, worker.record.pod.metadata) for worker in self._workers.values())
        return tuple(worker for worker, meta in metas if (meta.namespace, meta.name) == (namespace, name))

    def running_container(self, namespace: str, pod: str, container: str) -> str:
        """The id of that container. Raises Permanent where it does not run now, NotFound where there is no such pod."""
        running = self.find(namespace, pod).observed.running
        if (found := next((c for c in running if c.name == container), None)) is None:
            raise Permanent("", f'container "{container}" in pod "{pod}" is not running')
        return found.id

    def ready_sandbox(self, namespace: str, pod: str) -> str:
        """The id of the pod's sandbox. Raises as `running_container` does."""
        sandbox = self.find(namespace, pod).observed.sandbox
        if sandbox is None or not sandbox.ready:
            raise Permanent("", f'pod "{pod}" is not running')
        return sandbox.id

    def log(self, namespace: str, pod: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Raises NotFound, and Permanent with a reason of the API."""
        worker = self.find(namespace, pod)
        status = worker.status
        if status is None:
            raise Permanent(
                "BadRequest", f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating'
            )
        container_id = logged_container(pod, container, status, options.previous)
        seen = next((c for c in worker.observed.containers if c.id == container_id), None)
        if seen is None:
            raise NotFound(f'the log of container "{container}" in pod "{pod}" is gone')

        def is_running() -> bool:
            return any(c.id == container_id for c in worker.observed.running)

        return read_log(self._log_files.file(worker.record.pod, container, seen.attempt), options, is_running)
