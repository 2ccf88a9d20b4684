"""A clock that jumps by years, or starts in 1970: pods go on all the same, and all else does once it is right."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from agent.known_time import KnownTime
from agent.node.timekeeper import KEY
from agent.store.sqlite import SqliteStore
from tests.integration.agent.edge import Object, container, is_ready, pod, restarts
from tests.integration.autonomy.conftest import Outpost
from tests.integration.autonomy.fake_clock import FakeClock
from tests.integration.support.waiting import wait_until

YEARS_10_S = 10 * 365.25 * 86400.0
DEADLINE_S = 3600
BRIEF_S = 25


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path)


def with_clock(outpost: Outpost, clock: FakeClock) -> None:
    outpost.agent.kill9()
    outpost.agent.daemon.env.update(clock.env)
    outpost.agent.start()
    wait_until(lambda: outpost.agent_log().count("starts as node") == 2)


def running(outpost: Outpost) -> dict[str, str]:
    """Container IDs by pod."""
    return {
        c["labels"]["io.kubernetes.pod.name"]: c["id"]
        for c in outpost.containers()
        if c["state"] == "CONTAINER_RUNNING"
    }


def renewed_at(outpost: Outpost) -> float:
    """Unix seconds of the node's lease."""
    lease = outpost.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{outpost.node}")
    return datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()


def reasons(outpost: Outpost, *names: str) -> set[str]:
    return {reason for name in names for reason, _ in outpost.events(name)}


def watched(shared: Path) -> Object:
    """Ends when its liveness probe finds a file."""
    alive = {
        "exec": {"command": ["test", "!", "-e", "/shared/ill"]},
        "initialDelaySeconds": 5,  # time for the test to see the restart and to heal before the next probe
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    main = container(livenessProbe=alive, volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
    volume = {"name": "shared", "hostPath": {"path": str(shared)}}
    return pod("watched", main, volumes=[volume], terminationGracePeriodSeconds=1)


@pytest.mark.parametrize("jump_s", [YEARS_10_S, -YEARS_10_S], ids=["forward", "back"])
def test_a_clock_that_jumps_by_ten_years_ends_and_restarts_no_pod(
    outpost: Outpost, clock: FakeClock, tmp_path: Path, jump_s: float
) -> None:
    tmp_path.chmod(0o777)
    with_clock(outpost, clock)
    outpost.run(
        watched(tmp_path),
        pod("bounded", activeDeadlineSeconds=DEADLINE_S),
        pod("brief", activeDeadlineSeconds=BRIEF_S),
    )
    outpost.wait_ready("watched", "bounded", "brief")
    before = running(outpost)
    assert before.keys() == {"watched", "bounded", "brief"}

    clock.set_off(jump_s)
    # A new connection does not take the server's certificate any more.
    outpost.cut()
    outpost.heal()
    wait_until(lambda: "certificate verify failed" in outpost.agent_log(), what="it is cut off")
    wait_until(lambda: "which can't be: going by" in outpost.agent_log(), what="it knows that the clock is wrong")
    assert running(outpost) == before
    # What is to be done for pods is done: by an agent that was there when it jumped, and by one that was not.
    (tmp_path / "ill").touch()
    first = wait_until(lambda: (found := running(outpost).get("watched")) and found != before["watched"] and found)
    (tmp_path / "ill").unlink()
    outpost.agent.kill9()
    outpost.agent.start()
    wait_until(lambda: outpost.agent_log().count("starts as node") == 3)
    # Its own deadline is an hour off by right; the other one's comes in its time.
    wait_until(lambda: "brief" not in running(outpost), BRIEF_S + 15, what="the pod's deadline passes")
    assert running(outpost) == {"watched": first, "bounded": before["bounded"]}

    right_at = time.time()
    clock.set_off(0)  # the agent may see it before this returns
    wait_until(lambda: restarts(outpost.pod("watched")) == 1 and is_ready(outpost.pod("watched")), 15)
    wait_until(lambda: renewed_at(outpost) >= right_at, 15, what="the lease is renewed")
    brief = outpost.wait_phase("brief", "Failed", 10)
    assert brief["status"]["reason"] == "DeadlineExceeded"
    (end,) = [c["state"]["terminated"] for c in brief["status"]["containerStatuses"]]
    lived = datetime.fromisoformat(end["finishedAt"]) - datetime.fromisoformat(brief["status"]["startTime"])
    assert BRIEF_S - 2 <= lived.total_seconds() <= BRIEF_S + 15
    assert outpost.pod("bounded")["status"]["phase"] == "Running"
    assert not {"DeadlineExceeded", "StaleToken"} & reasons(outpost, "watched", "bounded")
    assert running(outpost) == {"watched": first, "bounded": before["bounded"]}


async def boots_again(root: Path) -> None:
    """As if the machine had been started since: what the record knows of its start is of another one."""
    file = await SqliteStore.open(root / "record.db")
    row = await file.get(KEY)
    assert row is not None
    known = msgspec.json.decode(row.value, type=KnownTime)
    await file.put(KEY, msgspec.json.encode(msgspec.structs.replace(known, boot="the one before")))
    await file.close()


def test_a_machine_without_a_clock_starts_in_1970_without_a_network_and_runs_its_pods(
    outpost: Outpost, clock: FakeClock
) -> None:
    with_clock(outpost, clock)
    outpost.run(pod("bounded", activeDeadlineSeconds=DEADLINE_S), pod("crashing", container("sleep 2; exit 1")))
    outpost.wait_ready("bounded")
    wait_until(lambda: restarts(outpost.pod("crashing")) >= 1)
    # It is written at the latest a minute after its first word from the API server, and at the end.
    outpost.cut()
    outpost.agent.terminate()
    outpost.lose_power()
    asyncio.run(boots_again(outpost.agent.root_dir))
    clock.set_off(-time.time() + 60)
    outpost.agent.start()
    wait_until(lambda: "bounded" in running(outpost))
    assert "machine's clock shows 1970-01-01" in outpost.agent_log()
    after = running(outpost)["bounded"]

    outpost.heal()
    wait_until(lambda: "certificate verify failed" in outpost.agent_log(), what="the certificate is not valid yet")
    right_at = time.time()
    clock.set_off(0)  # the agent may see it before this returns
    wait_until(lambda: restarts(outpost.pod("bounded")) == 1 and is_ready(outpost.pod("bounded")), 15)
    wait_until(lambda: renewed_at(outpost) >= right_at, 15, what="the lease is renewed")
    assert running(outpost)["bounded"] == after
    assert not {"DeadlineExceeded", "StaleToken"} & reasons(outpost, "bounded")
