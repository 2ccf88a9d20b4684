"""A link that is cut in whatever manner is known soon, nothing waits for it, and its return is used at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.agent.edge import Object, container_ids, is_ready, pod, restarts
from tests.integration.autonomy.conftest import Outpost, put_static
from tests.integration.autonomy.relay import Cut
from tests.integration.support.waiting import wait_until

KNOWN_WITHIN_S = 15.0
STATUS_WITHIN_S = 3.0


def says(outpost: Outpost, what: str, count: int = 1) -> bool:
    return outpost.agent_log().count(what) >= count


def runs(outpost: Outpost, name: str) -> Object | None:
    found = [c for c in outpost.containers() if c["labels"]["io.kubernetes.pod.name"] == name]
    return next((c for c in found if c["state"] == "CONTAINER_RUNNING"), None)


@pytest.mark.parametrize("how", list(Cut))
def test_a_dead_link_is_known_within_15_s_and_after_its_return_the_status_is_true_within_3_s(
    outpost: Outpost, manifests: Path, how: Cut
) -> None:
    outpost.run(pod("steady"), pod("ends"), pod("late", restartPolicy="Never"))
    outpost.wait_ready("steady", "ends", "late")
    before = container_ids(outpost.pod("ends"))["main"]

    outpost.cut(how)
    cut_at = time.monotonic()
    # On the way of a pod nothing waits for it, known or not.
    outpost.runtime.crictl("stop", "--timeout=0", before)
    put_static(outpost, manifests, "static")
    wait_until(lambda: (found := runs(outpost, "ends")) and found["id"] != before, 5, what="started again")
    wait_until(lambda: runs(outpost, f"static-{outpost.node}"), 5, what="a new pod runs")
    wait_until(lambda: says(outpost, "does not answer"), KNOWN_WITHIN_S)
    assert time.monotonic() - cut_at <= KNOWN_WITHIN_S
    outpost.runtime.crictl("stop", "--timeout=0", container_ids(outpost.pod("late"))["main"])
    time.sleep(2)  # the agent's tries come less often by now

    outpost.heal()
    back_at = time.monotonic()
    wait_until(lambda: restarts(outpost.pod("ends")) == 1 and outpost.pod("late")["status"]["phase"] == "Failed", 10)
    took = time.monotonic() - back_at
    assert took <= STATUS_WITHIN_S, took
    # Also what is watched comes through again at once, and not when an old connection is given up.
    outpost.run(pod("new"))
    wait_until(lambda: is_ready(outpost.pod("new")), 5)
    assert restarts(outpost.pod("steady")) == 0


def test_a_link_that_loses_packets_is_known_also_when_nothing_is_to_be_told(outpost: Outpost) -> None:
    """Watches tell it, long before the lease is renewed."""
    outpost.run(pod("steady"))
    outpost.wait_ready("steady")
    time.sleep(5)  # what follows a start is told by now
    outpost.cut(Cut.DROPPED)
    wait_until(lambda: says(outpost, "does not answer"), KNOWN_WITHIN_S)
    outpost.heal()
    wait_until(lambda: says(outpost, "answers again"), 5)
