"""The containerd provider's pods as a shutdown ends them. In: the workers and the gate. Out: orders to both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.model.pod import Pod
from agent.pods.admission.gate import Gate, Verdict
from agent.pods.knowledge import StopCause
from agent.pods.worker import PodWorker

REJECTED = Verdict("NodeShutdown", "Pod was rejected as the node is shutting down.")
REASON = "Terminated"
MESSAGE = "Pod was terminated in response to imminent node shutdown."


class ContainerdShutdown:
    """Fits `agent.node.shutdown.PodsToEnd`."""

    def __init__(self, workers: Mapping[str, PodWorker], gate: Gate) -> None:
        self._workers = workers
        self._gate = gate

    def active(self) -> Sequence[Pod]:
        return tuple(worker.record.pod for worker in self._workers.values() if not _has_ended(worker))

    def end(self, uid: str, grace_s: int, *, final: bool) -> None:
        if (worker := self._workers.get(uid)) is None:
            return
        if final:
            worker.stop(StopCause.FAILED, grace_s, REASON, MESSAGE, MESSAGE)
        else:
            worker.pause(grace_s)

    def has_ended(self, uid: str) -> bool:
        worker = self._workers.get(uid)
        return worker is None or worker.has_stopped

    def close(self) -> None:
        self._gate.close(REJECTED)

    def open(self) -> None:
        self._gate.open()
        for worker in self._workers.values():
            worker.resume()


def _has_ended(worker: PodWorker) -> bool:
    return worker.status is not None and worker.status.phase.is_terminal
