"""What happened while cut off is told after the return: in order, with its own times, once, also by a later agent."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from tests.integration.agent.edge import Object, condition, container_ids, is_ready, pod, restarts
from tests.integration.autonomy.conftest import Outpost
from tests.integration.autonomy.relay import Cut
from tests.integration.support.waiting import wait_until


def unix(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def told(outpost: Outpost, name: str) -> list[Object]:
    """In the order in which they came to the API server."""
    items = outpost.get(f"events?fieldSelector=involvedObject.name={name}")["items"]
    return sorted(items, key=lambda event: int(event["metadata"]["resourceVersion"]))


def running(outpost: Outpost, name: str) -> str:
    listed = [c for c in outpost.containers() if c["labels"]["io.kubernetes.pod.name"] == name]
    return str(next((c["id"] for c in listed if c["state"] == "CONTAINER_RUNNING"), ""))


def end(outpost: Outpost, name: str, container_id: str) -> None:
    outpost.runtime.crictl("stop", "--timeout=0", container_id)
    wait_until(lambda: running(outpost, name) not in ("", container_id))


@pytest.mark.parametrize("how", list(Cut))
def test_events_and_transitions_of_a_cut_are_told_in_order_with_their_own_times_and_once(
    outpost: Outpost, how: Cut
) -> None:
    outpost.run(pod("busy"), pod("steady"))
    outpost.wait_ready("busy", "steady")
    wait_until(lambda: any(event["reason"] == "Started" for event in told(outpost, "busy")))
    time.sleep(1.1)  # times have whole seconds
    outpost.cut(how)
    cut_at = time.time()
    # It changes before the cut is noticed.
    end(outpost, "busy", container_ids(outpost.pod("busy"))["main"])
    wait_until(lambda: "does not answer" in outpost.agent_log(), what="the agent knows that it is cut off")
    time.sleep(1.5)
    # Another agent goes on with what this one could not tell.
    outpost.agent.kill9()
    outpost.agent.start()
    wait_until(lambda: outpost.agent_log().count("edgelet ") >= 2 and running(outpost, "busy"))
    time.sleep(1.5)
    outpost.heal()
    healed_at = time.time()

    wait_until(lambda: restarts(outpost.pod("busy")) == 1 and is_ready(outpost.pod("busy")), 5)

    def changes() -> list[str]:
        return [event["message"] for event in told(outpost, "busy") if event["reason"] == "StatusChanged"]

    wait_until(lambda: "container main running, restart 1" in changes(), 5)
    changed = changes()
    assert changed.index("Ready False (ContainersNotReady)") < changed.index("container main running, restart 1")
    meanwhile = [event for event in told(outpost, "busy") if unix(event["lastTimestamp"]) >= int(cut_at)]
    names = [event["reason"] for event in meanwhile]
    assert names.count("Started") == 1, names
    at = [unix(event["firstTimestamp"]) for event in meanwhile if event["count"] == 1]
    assert at == sorted(at)
    assert all(moment < healed_at for moment in at[:3])
    ready_since = unix(condition(outpost.pod("busy"), "Ready")["lastTransitionTime"])
    assert int(cut_at) <= ready_since < healed_at - 1
    # Told once, and not again by the next agent. Telling has a rate: it is over when nothing came for a while.
    seen: list[int] = []

    def is_over() -> bool:
        seen.append(len(told(outpost, "busy")))
        time.sleep(2)
        return seen[-1] == len(told(outpost, "busy"))

    wait_until(is_over, 30, what="the journal is told")
    count = len(told(outpost, "busy"))
    outpost.agent.kill9()
    outpost.agent.start()
    outpost.wait_ready("busy", "steady")
    time.sleep(1)
    assert len(told(outpost, "busy")) == count
    assert restarts(outpost.pod("steady")) == 0
