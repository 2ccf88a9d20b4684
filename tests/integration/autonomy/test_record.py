"""A record whose disk is full, read-only or broken: pods run on, the Node says so, nobody has to mend it by hand."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.store.address import parse
from agent.store.remote import connect
from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.runtime import Containerd
from hack.store_servers import MAKERS, Server
from hack.workspace import Workspace
from tests.integration.agent.edge import Edge, container, container_ids, pod, restarts
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

CONDITION = "RecordUnavailable"


@pytest.fixture
def disk(workspace: Workspace) -> Iterator[Path]:
    """A small file system of the record's own."""
    folder = workspace.folder / "record-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "record", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


@pytest.fixture
def edge(
    disk: Path, agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> Iterator[Edge]:
    made = agent(flags=[f"--store=sqlite://{disk}/record.db"])
    yield Edge(made, one_containerd, control_plane, namespace)
    made.stop()  # before its disk goes


def run_store(edge: Edge, disk: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "store", *arguments, f"--store=sqlite://{disk}/record.db"]
    flags = [f"--root-dir={edge.agent.root_dir}", f"--nodename={edge.node}"]
    return subprocess.run([*command, *flags], cwd=REPOSITORY, check=False, capture_output=True, text=True)


def recorded(edge: Edge, disk: Path) -> set[str]:
    """The names of the pods that are on the disk; nothing while it can't be read."""
    done = run_store(edge, disk, "export")
    if done.returncode:
        return set()
    rows = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    return {json.loads(row["value"])["metadata"]["name"] for row in rows if row["key"].startswith("pods/")}


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    return filler


def test_a_full_disk_stops_nothing_and_gets_what_it_lacks_when_there_is_room(edge: Edge, disk: Path) -> None:
    edge.run(pod("before"))
    edge.wait_ready("before")
    before = container_ids(edge.pod("before"))
    filler = fill(disk)

    edge.run(pod("meanwhile", metadata={"annotations": {"large": "x" * 50_000}}))
    edge.wait_ready("meanwhile")
    wait_until(lambda: edge.agent.condition(CONDITION).get("status") == "True", 20)
    told = edge.agent.condition(CONDITION)
    assert told["reason"] == "RecordNotWritable"
    assert "full" in told["message"]
    assert edge.agent.condition("Ready")["status"] == "True"
    assert "meanwhile" not in recorded(edge, disk)

    # Started again while it is full, it knows what it knew, and has the rest from the API server.
    edge.agent.kill9()
    edge.agent.start()
    edge.run(pod("later"))
    edge.wait_ready("before", "meanwhile", "later")

    filler.unlink()
    wait_until(lambda: edge.agent.condition(CONDITION).get("status") == "False", 30)
    assert recorded(edge, disk) == {"before", "meanwhile", "later"}
    assert (container_ids(edge.pod("before")), restarts(edge.pod("before"))) == (before, 0)
    assert "Traceback" not in edge.agent_log()


def test_an_agent_that_finds_its_record_read_only_starts_from_it_and_writes_it_later(edge: Edge, disk: Path) -> None:
    edge.run(pod("before"))
    edge.wait_ready("before")
    before = container_ids(edge.pod("before"))
    edge.agent.terminate()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    edge.agent.start()
    edge.run(pod("meanwhile"))
    edge.wait_ready("before", "meanwhile")
    wait_until(lambda: edge.agent.condition(CONDITION).get("status") == "True", 20)

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    wait_until(lambda: edge.agent.condition(CONDITION).get("status") == "False", 30)
    assert recorded(edge, disk) == {"before", "meanwhile"}
    assert (container_ids(edge.pod("before")), restarts(edge.pod("before"))) == (before, 0)
    assert "Traceback" not in edge.agent_log()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
@pytest.mark.parametrize("running", [True, False], ids=["under-the-agent", "while-it-is-down"])
def test_a_broken_record_is_made_anew_and_complete(edge: Edge, disk: Path, damage: str, running: bool) -> None:
    edge.run(pod("before"))
    edge.wait_ready("before")
    before = container_ids(edge.pod("before"))
    if not running:
        edge.agent.kill9()
    harm(disk / "record.db", damage)
    if not running:
        edge.agent.start()

    edge.run(pod("after"))
    edge.wait_ready("before", "after")
    if not (running and damage == "flipped"):  # SQLite has the pages in memory: found by a later look, or a start
        wait_until(lambda: recorded(edge, disk) == {"before", "after"}, 20)
    assert (container_ids(edge.pod("before")), restarts(edge.pod("before"))) == (before, 0)
    # Whatever it had to do, another start finds a good record.
    edge.agent.terminate()
    edge.agent.start()
    edge.wait_ready("before", "after")
    assert container_ids(edge.pod("before")) == before
    wait_until(lambda: recorded(edge, disk) == {"before", "after"}, 20)
    assert "Traceback" not in edge.agent_log()


def test_without_its_key_the_agent_has_secrets_and_tokens_again_from_the_api_server(edge: Edge, disk: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "hunter2"}}
    mounted = container(volumeMounts=[{"name": "keys", "mountPath": "/keys"}])
    edge.apply(secret)
    edge.run(pod("reads", mounted, volumes=[{"name": "keys", "secret": {"secretName": "keys"}}]))
    edge.wait_ready("reads")
    assert run_store(edge, disk, "check").returncode == 0

    edge.agent.terminate()
    edge.agent.root_dir.with_name("root.key").unlink()
    assert run_store(edge, disk, "check").returncode == 1
    edge.agent.start()
    edge.run(pod("reads-too", mounted, volumes=[{"name": "keys", "secret": {"secretName": "keys"}}]))
    edge.wait_ready("reads", "reads-too")
    assert "set aside, to be had from the API server again" in edge.agent_log()
    assert restarts(edge.pod("reads")) == 0


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_a_record_on_a_server_is_written_through_and_its_outage_ridden_out(
    kind: str,
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
) -> None:
    server = MAKERS[kind](tmp_path / "server")
    server.start()
    try:
        edge = Edge(agent(flags=[f"--store={server.url}"]), one_containerd, control_plane, namespace)
        edge.run(pod("before"))
        edge.wait_ready("before")
        server.kill()
        edge.run(pod("meanwhile"))
        edge.wait_ready("meanwhile")
        edge.agent.kill9()
        edge.agent.start()
        edge.run(pod("later"))
        edge.wait_ready("before", "meanwhile", "later")
        server.start()
        wait_until(lambda: names_on(server, edge.node) == {"before", "meanwhile", "later"}, 30)
        for name in ("before", "meanwhile", "later"):
            assert restarts(edge.pod(name)) == 0
        assert "Traceback" not in edge.agent_log()
        edge.agent.stop()
    finally:
        server.stop()


def names_on(server: Server, node: str) -> set[str]:
    async def read() -> set[str]:
        remote = await connect(parse(server.url), node, {})
        try:
            return {json.loads(row.value)["metadata"]["name"] for row in await remote.list("pods/")}
        except Retryable:
            return set()
        finally:
            await remote.close()

    return asyncio.run(read())


def harm(path: Path, damage: str) -> None:
    log = path.with_name(path.name + "-wal")
    match damage:
        case "gone":
            for part in (path, log, path.with_name(path.name + "-shm")):
                part.unlink(missing_ok=True)
        case "truncated":
            for part in (path, log):
                if part.exists():
                    os.truncate(part, min(part.stat().st_size, 5000))
        case "flipped":
            for part in (path, log):
                if part.exists():
                    content = bytearray(part.read_bytes())
                    for place in range(200, len(content), 97):
                        content[place] ^= 0x10
                    with part.open("r+b") as file:
                        file.write(content)
