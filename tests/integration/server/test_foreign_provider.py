"""The same kubectl on a provider that takes plain byte streams: the agent itself speaks the protocols."""

from __future__ import annotations

import hashlib
import os
import socket

import psutil

from tests.integration.agent.edge import Edge, pod
from tests.integration.server.client import Kubectl
from tests.integration.support.waiting import wait_until

MB = 1024 * 1024
GROWTH_LIMIT_BYTES = 10 * MB


def start(edge: Edge) -> None:
    edge.run(pod("web"))
    edge.wait_phase("web", "Running")


def test_a_command_tells_its_output_and_exit_code(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    done = kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert b"err\n" in done.stderr
    assert kubectl("exec", "web", "--", "true").returncode == 0


def test_100_mb_pass_both_ways_unchanged_and_the_agent_does_not_grow(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    kubectl("exec", "-i", "web", "--", "cat", stdin=b"x" * MB)
    process = psutil.Process(foreign_edge.agent.pid)
    before = process.memory_info().rss
    sent = os.urandom(100 * MB)
    done = kubectl("exec", "-i", "web", "--", "cat", stdin=sent)
    assert done.returncode == 0, done.stderr.decode()
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(sent).hexdigest()
    assert process.memory_info().rss - before < GROWTH_LIMIT_BYTES


def test_the_exit_code_arrives_although_stdin_was_never_read(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    for _ in range(3):
        assert kubectl("exec", "-i", "web", "--", "sh", "-c", "exit 3", stdin=b"x" * 20 * MB).returncode == 3


def test_a_terminals_sizes_are_told_and_attach_is_served(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    with kubectl.terminal("exec", "-it", "web", "--", "sizes", rows=33, columns=99) as terminal:
        terminal.read_until("33 99")
        terminal.resize(44, 120)
        terminal.read_until("44 120")
    done = kubectl("attach", "-i", "web", stdin=b"hello\n")
    assert done.stdout == b"HELLO\n"


def test_connections_are_forwarded_side_by_side(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    with kubectl.port_forward("web", 7) as port:
        connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%02d" % number * 50_000)
            connection.shutdown(socket.SHUT_WR)
        for number, connection in enumerate(connections):
            with connection:
                received = b""
                while block := connection.recv(65536):
                    received += block
                assert received == b"%02d" % number * 50_000


def test_a_client_that_is_killed_ends_the_command(foreign_edge: Edge, kubectl: Kubectl) -> None:
    start(foreign_edge)
    agent = psutil.Process(foreign_edge.agent.pid)
    process = kubectl.start("exec", "-i", "web", "--", "sleep", "1000")
    wait_until(agent.children)
    process.kill()
    process.communicate()
    wait_until(lambda: not agent.children(), timeout=10)
