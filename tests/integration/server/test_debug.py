"""kubectl debug: a container in a pod that runs, in its own terminal, with the processes of another container."""

from __future__ import annotations

from typing import Any

from hack.images import BUSYBOX
from tests.integration.agent.edge import Edge, container, pod, status_of
from tests.integration.server.client import Kubectl
from tests.integration.support.waiting import wait_until


def debuggers(edge: Edge, name: str) -> list[Any]:
    found: list[Any] = edge.pod(name)["status"].get("ephemeralContainerStatuses", [])
    return found


def test_kubectl_debug_opens_a_terminal_among_the_processes_of_its_target(every_edge: Edge, kubectl: Kubectl) -> None:
    edge = every_edge
    edge.run(pod("web", container("trap 'exit 0' TERM; sleep 4321 & wait")))
    edge.wait_ready("web")
    flags = (f"--image={BUSYBOX}", "--target=main", "--container=debug", "--profile=general")
    with kubectl.terminal("debug", "-it", "web", *flags, "--", "sh", rows=24, columns=120) as terminal:
        terminal.read_until("command prompt")
        terminal.type("ps -o args | grep -c '[s]leep 4321'; echo so-$?\n")
        terminal.read_until("so-0")
        assert debuggers(edge, "web")[0]["state"]["running"]
        assert kubectl("exec", "web", "-c", "debug", "--", "true").returncode == 0
        terminal.type("exit 7\n")
        terminal.wait()
    ended = wait_until(lambda: debuggers(edge, "web")[0]["state"].get("terminated"))
    assert ended["exitCode"] == 7
    assert "so-0" in edge.log("web", "--container=debug")
    # The pod did not notice, and a new agent does not start the debugger again.
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    assert status_of(edge.pod("web"))["restartCount"] == 0
    assert [c["metadata"]["name"] for c in edge.containers()].count("debug") == 1
    edge.delete("pod/web")
    edge.wait_gone("web")


def test_kubectl_attach_reaches_a_debugger_that_waits(edge: Edge, kubectl: Kubectl) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    flags = (f"--image={BUSYBOX}", "--container=debug", "--attach=false", "--profile=general")
    talks = 'while read line; do echo "heard $line"; done'
    done = kubectl("debug", "-it", "web", *flags, "--", "sh", "-c", talks)
    assert done.returncode == 0, done.stderr.decode()
    wait_until(lambda: debuggers(edge, "web") and "running" in debuggers(edge, "web")[0]["state"])
    with kubectl.terminal("attach", "-it", "web", "-c", "debug", rows=24, columns=80) as terminal:
        terminal.read_until("attach|prompt|$")
        terminal.type("hello\n")
        terminal.read_until("heard hello")
