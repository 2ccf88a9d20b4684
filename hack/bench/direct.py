"""The agent without its provider contract: desired pods go to containerd's workers by plain calls.

For comparison only (`hack.bench.contract`): no task a pod in between, no retries, no events of the contract's own.
"""

import sys

from agent import app, cli
from agent.pods.controller import PodController
from agent.pods.desired import DesiredChange
from agent.pods.knowledge import StopCause
from agent.pods.publish import PodUpdateLike
from agent.providers.containerd import ContainerdProvider


class Direct(PodController):
    """Takes the controller's place in the composition root."""

    def desired_changed(self, change: DesiredChange) -> None:
        provider = self._provider
        assert isinstance(provider, ContainerdProvider)
        record = change.record or change.was
        assert record is not None
        worker = provider._workers.get(record.uid)
        if worker is None:
            if change.record is None or record.is_terminating:
                return
            provider._work_on(record, ())
            return
        worker.update(record)
        if change.record is None or record.is_terminating:
            asked = record.pod.metadata.deletionGracePeriodSeconds
            grace_s = record.pod.spec.terminationGracePeriodSeconds if asked is None else asked
            worker.stop(StopCause.DELETED, grace_s)

    def pod_updated(self, update: PodUpdateLike) -> None:
        self._publish(update)


if __name__ == "__main__":
    vars(app)["PodController"] = Direct
    sys.exit(cli.main())
