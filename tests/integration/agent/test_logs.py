"""`kubectl logs` through a real API server, which is the kubelet API's client here."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime

import pytest

from tests.integration.agent.edge import SLEEP, Edge, container, pod, restarts
from tests.integration.support.waiting import wait_until


def test_logs_are_cut_as_asked(every_guest: Edge) -> None:
    every_guest.run(
        pod("talks", container(f"for n in 1 2 3 4 5; do echo line $n; done; sleep 0.2; echo oops >&2; {SLEEP}"))
    )
    every_guest.wait_ready("talks")
    every = [*(f"line {n}" for n in range(1, 6)), "oops"]
    wait_until(lambda: sorted(every_guest.log("talks").splitlines()) == sorted(every))
    assert every_guest.log("talks", "--tail=0") == ""
    assert len(every_guest.log("talks", "--tail=2").splitlines()) == 2
    assert every_guest.log("talks", "--limit-bytes=9") == "line 1\nli"
    stamp, _, text = every_guest.log("talks", "--timestamps").splitlines()[0].partition(" ")
    assert text == "line 1"
    written = datetime.fromisoformat(stamp)
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60
    assert every_guest.log("talks", "--since=1h").count("line") == 5
    assert every_guest.log("talks", f"--since-time={stamp}").count("line") == 5


def test_since_leaves_out_what_is_older(guest: Edge) -> None:
    guest.run(pod("talks", container(f"echo old; sleep 4; echo new; {SLEEP}")))
    guest.wait_ready("talks")
    wait_until(lambda: guest.log("talks") == "old\nnew\n")
    at = datetime.fromisoformat(guest.log("talks", "--timestamps", "--tail=1").partition(" ")[0])

    def since_between() -> str:
        return guest.log("talks", f"--since={int((datetime.now(UTC) - at).total_seconds()) + 3}s")

    wait_until(lambda: since_between() == "new\n")


def test_a_followed_log_shows_lines_as_they_come_and_ends_with_the_container(every_guest: Edge) -> None:
    script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo second; sleep 0.3; echo last"
    every_guest.run(pod("talks", container(script), restartPolicy="Never"))
    every_guest.wait_ready("talks")
    with every_guest.following("talks") as log:
        assert log.readline() == "first\n"
        (running,) = every_guest.containers()
        every_guest.runtime.crictl("exec", running["id"], "touch", "/tmp/go")
        asked = time.monotonic()
        assert log.readline() == "second\n"
        assert time.monotonic() - asked < 2
        assert log.read() == "last\n"


def test_a_restarted_container_has_its_previous_log(guest: Edge) -> None:
    script = f"if [ -e /seen/it ]; then echo second; {SLEEP}; fi; echo first; touch /seen/it; exit 1"
    mounted = container(script, volumeMounts=[{"name": "seen", "mountPath": "/seen"}])
    guest.run(pod("talks", mounted, volumes=[{"name": "seen", "emptyDir": {}}]))
    guest.wait_ready("talks")
    wait_until(lambda: restarts(guest.pod("talks")) == 1)
    wait_until(lambda: guest.log("talks") == "second\n")
    assert guest.log("talks", "--previous") == "first\n"


def test_what_has_no_log_says_why(guest: Edge) -> None:
    mains = (container(f"echo a; {SLEEP}", "a"), container(SLEEP, "b"))
    guest.run(pod("two", *mains), pod("pulls", container(image="127.0.0.1:1/none:1")))
    guest.wait_ready("two")

    def refusal(*arguments: str) -> str:
        with pytest.raises(subprocess.CalledProcessError) as refused:
            guest.log(*arguments)
        return str(refused.value.stderr)

    assert 'previous terminated container "a" in pod "two" not found' in refusal("two", "--container=a", "--previous")
    assert "container none is not valid for pod two" in refusal("two", "--container=none")
    wait_until(lambda: "trying and failing to pull image" in refusal("pulls"))
    assert guest.log("two", "--all-containers", "--prefix") == "[pod/two/a] a\n"
