"""exec, attach, cp and port-forward by kubectl, through a real API server, into containers of a real runtime."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import urllib.request
from pathlib import Path

import psutil

from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from hack.processes import free_port
from tests.integration.agent.edge import SLEEP, Edge, container, pod
from tests.integration.server.client import Kubectl
from tests.integration.support.waiting import wait_until

MB = 1024 * 1024
GROWTH_LIMIT_BYTES = 10 * MB
CONNECTIONS = 20


def rss(edge: Edge) -> int:
    return int(psutil.Process(edge.agent.pid).memory_info().rss)


def runtime_sessions(edge: Edge) -> int:
    """The agent's connections to the runtime's streaming server."""
    listening = {
        connection.laddr.port
        for connection in psutil.Process(edge.runtime.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    ours = psutil.Process(edge.agent.pid).net_connections("tcp")
    return sum(1 for connection in ours if connection.raddr and connection.raddr.port in listening)


def test_a_command_tells_its_output_and_exit_code(every_edge: Edge, kubectl: Kubectl) -> None:
    every_edge.run(pod("web"))
    every_edge.wait_ready("web")
    done = kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert b"err\n" in done.stderr
    assert kubectl("exec", "web", "--", "true").returncode == 0
    missing = kubectl("exec", "web", "--", "no-such-program")
    assert missing.returncode != 0
    assert b"no-such-program" in missing.stderr
    wait_until(lambda: runtime_sessions(every_edge) == 0)


def test_100_mb_pass_both_ways_unchanged_and_the_agent_does_not_grow(every_edge: Edge, kubectl: Kubectl) -> None:
    every_edge.run(pod("web"))
    every_edge.wait_ready("web")
    kubectl("exec", "-i", "web", "--", "cat", stdin=b"x" * MB)
    before = rss(every_edge)
    sent = os.urandom(100 * MB)
    done = kubectl("exec", "-i", "web", "--", "cat", stdin=sent)
    assert done.returncode == 0, done.stderr.decode()
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(sent).hexdigest()
    assert rss(every_edge) - before < GROWTH_LIMIT_BYTES


def test_a_terminal_is_resized_and_tells_the_exit_code(every_edge: Edge, kubectl: Kubectl) -> None:
    every_edge.run(pod("web"))
    every_edge.wait_ready("web")
    with kubectl.terminal("exec", "-it", "web", "--", "sh", rows=33, columns=99) as terminal:
        terminal.read_until("# ")
        terminal.type("while :; do stty size; sleep 0.2; done\n")
        terminal.read_until("33 99")
        terminal.resize(44, 120)
        terminal.read_until("44 120")
        terminal.type("\x03")
        terminal.read_until("# ")
        terminal.type("exit 7\n")
        assert terminal.wait() == 7


def test_attach_reaches_the_containers_own_process(every_edge: Edge, kubectl: Kubectl) -> None:
    every_edge.run(pod("web", container('while read line; do echo "heard $line"; done', stdin=True, tty=True)))
    every_edge.wait_ready("web")
    with kubectl.terminal("attach", "-it", "web", rows=24, columns=80) as terminal:
        terminal.read_until("attach|prompt|$")
        terminal.type("hello\n")
        terminal.read_until("heard hello")
    wait_until(lambda: "heard hello" in every_edge.log("web"))


def test_files_are_copied_both_ways(edge: Edge, kubectl: Kubectl, tmp_path: Path) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(5 * MB))
    there = kubectl("cp", str(sent), "web:/tmp/there")
    assert there.returncode == 0, there.stderr.decode()
    assert kubectl("cp", "web:/tmp/there", str(back)).returncode == 0
    assert back.read_bytes() == sent.read_bytes()


def test_20_connections_are_forwarded_side_by_side(every_edge: Edge, kubectl: Kubectl) -> None:
    serve = f"head -c {5 * MB} /dev/urandom >/tmp/blob && exec httpd -f -p 8080 -h /tmp"
    every_edge.run(pod("web", container(serve)))
    every_edge.wait_ready("web")
    wanted = wait_until(lambda: kubectl("exec", "web", "--", "sha256sum", "/tmp/blob").stdout.split()[0].decode())
    got: list[str] = []
    with kubectl.port_forward("web", 8080) as port:

        def fetch() -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/blob", timeout=30) as answer:
                got.append(hashlib.sha256(answer.read()).hexdigest())

        fetch()
        before = rss(every_edge)
        threads = [threading.Thread(target=fetch) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert rss(every_edge) - before < GROWTH_LIMIT_BYTES
    assert got == [wanted] * (CONNECTIONS + 1)
    wait_until(lambda: runtime_sessions(every_edge) == 0)


def test_a_port_that_nobody_listens_on_is_an_error(edge: Edge, kubectl: Kubectl) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    process = kubectl.start("port-forward", "pod/web", f"{(local := free_port())}:81")
    try:
        assert process.stdout is not None
        assert b"Forwarding from" in process.stdout.readline()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=10)
    finally:
        process.terminate()
    assert b"81" in process.communicate()[1]


def test_a_client_that_is_killed_leaves_no_session_behind(edge: Edge, kubectl: Kubectl) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    process = kubectl.start("exec", "-i", "web", "--", "cat")
    wait_until(lambda: runtime_sessions(edge) == 1)
    process.kill()
    process.communicate()
    wait_until(lambda: runtime_sessions(edge) == 0, timeout=10)
    wait_until(lambda: kubectl("exec", "web", "--", "pidof", "cat").stdout == b"", timeout=10)


async def reopen_log(edge: Edge, container_id: str) -> None:
    async with RuntimeChannel(edge.runtime.endpoint) as channel:
        await RuntimeClient(channel).reopen_container_log(container_id)


def test_a_followed_log_goes_on_over_rotations(edge: Edge, kubectl: Kubectl) -> None:
    count = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"
    edge.run(pod("web", container(count), restartPolicy="Never"))
    wait_until(lambda: "running" in str(edge.pod("web").get("status", {}).get("containerStatuses")))
    (found,) = edge.containers()
    (log,) = edge.agent.pod_logs_dir.glob(f"{edge.namespace}_web_*/main/0.log")
    following = kubectl.start("logs", "-f", "web")
    assert following.stdout is not None
    first = following.stdout.readline()
    for number in range(3):
        wait_until(lambda: log.exists() and log.stat().st_size > 0)
        log.rename(log.with_name(f"0.log.{number}"))
        asyncio.run(reopen_log(edge, found["id"]))
    shown = following.stdout.read()  # not `communicate`, which passes over what was read ahead
    following.communicate(timeout=30)
    assert (first + shown).decode().split("\n")[:-1] == [f"line {number}" for number in range(400)]


def test_what_does_not_run_cannot_be_entered(edge: Edge, kubectl: Kubectl) -> None:
    edge.run(pod("web", container(SLEEP), container("exit 0", name="done"), restartPolicy="Never"))
    edge.wait_phase("web", "Running")
    wait_until(lambda: "terminated" in edge.pod("web")["status"]["containerStatuses"][1]["state"])
    refused = kubectl("exec", "web", "--container=done", "--", "true")
    assert refused.returncode != 0
    assert b'container "done" in pod "web" is not running' in refused.stderr


def test_a_runtime_that_is_away_is_told(edge: Edge, kubectl: Kubectl) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    edge.runtime.stop()
    refused = kubectl("exec", "web", "--", "true")
    edge.runtime.start()
    assert refused.returncode != 0
    assert b"unavailable" in refused.stderr
    wait_until(lambda: kubectl("exec", "web", "--", "true").returncode == 0)
