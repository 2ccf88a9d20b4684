"""Logs that are shipped: over an outage of their sink, a rotation, a crash of the agent and the end of their pod."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import END_ON_TERM, SLEEP, Edge, Object, container, pod
from tests.integration.agent.log_sinks import HttpSink, Sink, SyslogSink
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

OUTAGE_S = float(os.environ.get("EDGELET_TEST_SINK_AWAY_S", "30"))
GROWTH_BYTES = 12 * 2**20
SPOOL = 100 * 2**20
ROTATING = ("--container-log-max-size=100Ki", "--container-log-max-files=2", "--container-log-monitor-interval=1s")
PADDING = "x" * 60
COUNTS = (
    "trap 'echo $i end; exit 0' TERM; i=0; while :; do j=0;"
    f" while [ $j -lt 12 ]; do echo $i {PADDING}; i=$((i+1)); j=$((j+1)); done; sleep 0.1; done"
)
"""A hundred lines a second and some more; the last one says `end`."""


@pytest.fixture
def sinks() -> Iterator[tuple[HttpSink, SyslogSink]]:
    made = (HttpSink(), SyslogSink())
    for sink in made:
        sink.up()
    yield made
    for sink in made:
        sink.down()


def talking(name: str, sink: Sink, *containers: Object, **spec: object) -> Object:
    return pod(name, *containers, metadata={"annotations": {"edgelet.io/logs": sink.url}}, **spec)


def spooled(agent: Agent) -> int:
    """Bytes on disk that nothing but the spool keeps."""
    found = 0
    for path in (agent.pod_logs_dir / ".edgelet-spool").rglob("*.*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found += stat.st_blocks * 512 if stat.st_nlink == 1 else 0
    return found


def numbers(lines: list[str]) -> list[int]:
    """In the order in which each came first."""
    return list(dict.fromkeys(int(line.split()[0]) for line in lines))


def is_complete(lines: list[str]) -> bool:
    return bool(lines) and lines[-1].endswith(" end") and numbers(lines) == list(range(int(lines[-1].split()[0]) + 1))


def test_every_line_of_an_outage_arrives_in_order_while_memory_and_disk_stay_bounded(
    sinks: tuple[HttpSink, SyslogSink],
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
) -> None:
    edge = Edge(agent(flags=ROTATING), one_containerd, control_plane, namespace)
    pods = ("to-http", "to-syslog")
    setup = container("for i in 1 2 3; do echo $i; done", "setup")
    for name, sink in zip(pods, sinks, strict=True):
        counting = (container(COUNTS, "a"), container(COUNTS, "b"))
        short = container(f"trap 'echo 3 end; exit 0' TERM; echo 0; echo 1; echo 2; {SLEEP.partition(';')[2]}")
        edge.run(talking(name, sink, *counting, initContainers=[setup]), talking(f"short-{name}", sink, short))
    edge.wait_ready(*pods, *(f"short-{name}" for name in pods))
    for name, sink in zip(pods, sinks, strict=True):
        wait_until(lambda name=name, sink=sink: len(sink.lines[name, "a"]) > 500)  # type: ignore[misc]
        assert sink.lines[name, "setup"] == ["1", "2", "3"]
    first_pid = edge.agent.pid
    before = psutil.Process(first_pid).memory_info().rss

    for sink in sinks:
        sink.down()
    began, came = time.monotonic(), {key: len(lines) for sink in sinks for key, lines in sink.lines.items()}
    edge.delete("pod", *(f"short-{name}" for name in pods))
    edge.wait_gone(*(f"short-{name}" for name in pods))
    largest = 0
    early: list[int] = []  # after a crash in the outage, once the start is over
    while (away_s := time.monotonic() - began) < OUTAGE_S:
        time.sleep(1)
        largest = max(largest, spooled(edge.agent))
        if away_s > OUTAGE_S / 4 and edge.agent.pid == first_pid:
            edge.agent.kill9()
            edge.agent.start()
            edge.agent.wait_ready()
        if away_s > OUTAGE_S / 2:
            early.append(psutil.Process(edge.agent.pid).memory_info().rss)
    away = psutil.Process(edge.agent.pid)
    used_s = sum(away.cpu_times()[:2]) / (time.time() - away.create_time())
    assert {key: len(lines) for sink in sinks for key, lines in sink.lines.items() if key in came} == came
    assert 0 < largest <= SPOOL

    for sink in sinks:
        sink.up()
    returned = time.monotonic()
    edge.delete("pod", *pods)
    wanted = [(sink, name, one) for name, sink in zip(pods, sinks, strict=True) for one in ("a", "b")]
    wanted += [(sink, f"short-{name}", "main") for name, sink in zip(pods, sinks, strict=True)]
    for sink, name, one in wanted:
        wait_until(
            lambda sink=sink, name=name, one=one: is_complete(sink.lines[name, one]),  # type: ignore[misc]
            timeout=120,
            what=f"every line of {name}/{one}",
        )
    caught_up = time.monotonic() - returned
    after = psutil.Process(edge.agent.pid).memory_info().rss
    for sink, name, one in wanted:
        seen = sink.lines[name, one]
        print(f"{name}/{one}: {len(numbers(seen))} lines, {len(seen) - len(numbers(seen))} of them twice")
    mib = 2**20
    print(
        f"away {OUTAGE_S:g} s, all there {caught_up:.1f} s after; spool {largest / mib:.2f} MiB at most;"
        f" agent {before / mib:.1f} MiB before, {early[0] / mib:.1f} in the middle, {early[-1] / mib:.1f} at the end of"
        f" the outage, {after / mib:.1f} after; {used_s:.1%} of a CPU"
    )
    assert max(*early, after) - early[0] < GROWTH_BYTES
    wait_until(lambda: not list((edge.agent.pod_logs_dir / ".edgelet-spool").rglob("*.*")), what="an empty spool")


def test_a_full_spool_drops_its_oldest_and_says_how_many_lines(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    limit = 600 * 1024
    flags = (*ROTATING, f"--log-spool-size={limit}")
    edge, sink = Edge(agent(flags=flags), one_containerd, control_plane, namespace), HttpSink()
    total = 12_000
    burst = f"while [ $i -lt $n ]; do echo $i {PADDING}; i=$((i+1)); done"
    lines = f"i=0; n=0; while [ $n -lt {total} ]; do n=$((n+200)); {burst}; sleep 0.1; done"
    edge.run(talking("talks", sink, container(f"{END_ON_TERM}; {lines}; {SLEEP}")))
    edge.wait_ready("talks")
    wait_until(lambda: str(total - 1) in edge.log("talks", "--tail=1"), timeout=60)
    edge.delete("pod", "talks")
    edge.wait_gone("talks")
    wait_until(lambda: any(reason == "LogsLost" for reason, _ in edge.events("talks")))
    wait_until(lambda: spooled(edge.agent) <= limit)
    sink.up()
    try:
        wait_until(lambda: numbers(sink.lines["talks", "main"])[-1] == total - 1, timeout=60)
    finally:
        sink.down()
    came = numbers(sink.lines["talks", "main"])
    lost = sum(int(text.split()[0]) for text in sink.said["talks", "main"])
    assert came == list(range(total - len(came), total))
    assert lost == total - len(came) > 0


def test_what_is_no_sink_or_not_allowed_is_said_on_the_pod(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    edge = Edge(agent(), one_containerd, control_plane, namespace)
    path = tmp_path / "all.log"
    wanted = {"wrong": "htp://me:secret@logs", "file": f"file://{path}"}
    for name, value in wanted.items():
        edge.run(pod(name, container(f"echo hello; {SLEEP}"), metadata={"annotations": {"edgelet.io/logs": value}}))
    edge.wait_ready(*wanted)
    for name in wanted:
        wait_until(lambda name=name: any(reason == "InvalidPolicy" for reason, _ in edge.events(name)))  # type: ignore[misc]
        (message,) = [text for reason, text in edge.events(name) if reason == "InvalidPolicy"]
        assert "edgelet.io/logs" in message
        assert ("htp://" if name == "wrong" else str(path)) in message
        assert "secret" not in message
    assert not path.exists()
    assert "secret" not in edge.agent_log()


def test_a_file_is_written_where_the_node_allows_it_to_the_namespace(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    flags = [f"--policy-host-namespaces={namespace}"]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    path = tmp_path / "all.log"
    annotations = {"annotations": {"edgelet.io/logs": f"file://{path}"}}
    edge.run(pod("talks", container(f"echo hello; echo oops >&2; {SLEEP}"), metadata=annotations))
    wait_until(lambda: '"log":"hello"' in path.read_text() and '"stream":"stderr","log":"oops"' in path.read_text())
