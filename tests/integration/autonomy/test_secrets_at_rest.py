"""Secrets and tokens are found by nobody who greps: not on a disk, not in a log, not in an export or its memory."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.control_plane import ControlPlane
from hack.images import BUSYBOX
from hack.paths import REPOSITORY
from hack.processes import free_port
from hack.runtime import Containerd
from hack.store_servers import MAKERS
from tests.integration.agent.edge import Edge, container, pod
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

IN_ENV, IN_VOLUME, OF_REGISTRY = "word-of-the-env-7f3a", "word-of-the-volume-91bc", "word-of-the-registry-c04d"


def traces(word: str) -> list[bytes]:
    """The word, and what it becomes wherever it begins inside of something in base64."""
    found = [word.encode()]
    for before in range(3):
        text = base64.b64encode(b"\0" * before + word.encode()).decode()
        # The first and the last characters also depend on what is beside the word.
        found.append(text[4 if before else 0 : -4].encode())
    return found


def found_in(content: bytes, words: list[str]) -> list[str]:
    return [word for word in words if any(trace in content for trace in traces(word))]


def content_of(folder: Path, pattern: str = "*") -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file())


def export(edge: Edge, store: str, *flags: str) -> list[str]:
    command = [sys.executable, "-m", "agent", "store", "export", f"--root-dir={edge.agent.root_dir}"]
    return [*command, f"--nodename={edge.node}", *([f"--store={store}"] if store else []), *flags]


def memory_of(pid: int) -> Iterator[bytes]:
    """What a core would have: everything that is mapped and was written to."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights = line.split()[:2]
            if "w" in rights:
                start, end = (int(side, 16) for side in where.split("-"))
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    yield memory.read(end - start)


def exported(command: list[str], words: list[str]) -> tuple[bytes, set[str]]:
    """The export, and the words that were in its process' memory at any of many moments of its work."""
    seen: set[str] = set()
    output = b""
    reading, writing = os.pipe()
    # The smallest there is: it works as far as its own buffer and this take, and stands still while it is looked at.
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    looks = 0
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=writing) as process, os.fdopen(reading, "rb", 0) as pipe:
        os.close(writing)
        while piece := pipe.read(2048):
            output += piece
            with contextlib.suppress(OSError):  # it has ended
                for part in memory_of(process.pid):
                    seen |= set(found_in(part, words))
                looks += 1
    assert process.returncode == 0
    assert looks >= 3
    return output, seen


def tokens_of(edge: Edge) -> list[str]:
    (pod_container,) = [one["id"] for one in edge.containers() if one["labels"]["io.kubernetes.pod.name"] == "reads"]
    files = ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/tokens/token"]
    tokens = [edge.runtime.crictl("exec", pod_container, "cat", file).strip() for file in files]
    assert all(token.count(".") == 2 for token in tokens)
    assert edge.runtime.crictl("exec", pod_container, "sh", "-c", "echo $WORD; cat /keys/word").split() == [
        IN_ENV,
        IN_VOLUME,
    ]
    # All of a token is in the signed parts; its head is no secret.
    return [part for token in tokens for part in token.split(".")[1:]]


@pytest.mark.parametrize("kind", ["sqlite", "redis", "etcd"])
def test_secrets_and_tokens_are_not_in_the_record_the_log_an_export_or_its_memory(
    kind: str,
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
) -> None:
    server = MAKERS[kind](tmp_path / "server") if kind in MAKERS else None
    store = server.url if server else ""
    image = f"127.0.0.1:{free_port()}/private:1"  # its registry is away, and the image is there
    one_containerd.ctr("images", "tag", BUSYBOX, image)
    try:
        if server is not None:
            server.start()
        edge = Edge(agent(flags=[f"--store={store}"] if store else []), one_containerd, control_plane, namespace)
        words = [IN_ENV, IN_VOLUME, OF_REGISTRY, *run_pods(edge, image)]

        def everywhere() -> dict[str, bytes]:
            places = {"record": content_of(edge.agent.root_dir, "record.db*"), "log": edge.agent_log().encode()}
            return places | ({kind: content_of(server.folder)} if server else {})

        rows = {b"objects/secrets/", b"tokens/"}
        wait_until(lambda: all(row in everywhere().get(kind, everywhere()["record"]) for row in rows), what="recorded")
        assert {place: found for place, content in everywhere().items() if (found := found_in(content, words))} == {}
        for flags in ([], ["--with-secrets"]):
            output, in_memory = exported(export(edge, store, *flags), words)
            assert (b"objects/secrets/" in output) is bool(flags)
            assert (found_in(output, words), in_memory) == ([], set())
        # The same looks find them where they are wanted in the open.
        output, in_memory = exported(export(edge, store, "--with-secrets", "--unsealed"), words)
        assert found_in(output, words) == words
        assert in_memory
        edge.agent.stop()
    finally:
        if server is not None:
            server.stop()
        one_containerd.ctr("images", "remove", "--sync", image)


def run_pods(edge: Edge, image: str) -> list[str]:
    """A pod that gets its secrets in every way, running; its tokens."""
    login = {"auths": {image.partition("/")[0]: {"username": "edge", "password": OF_REGISTRY}}}
    edge.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env"}, "stringData": {"word": IN_ENV}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"word": IN_VOLUME}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps(login)},
        },
    )
    mounts = [{"name": "keys", "mountPath": "/keys"}, {"name": "tokens", "mountPath": "/tokens"}]
    wants = [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "env", "key": "word"}}}]
    projected = {"sources": [{"serviceAccountToken": {"path": "token", "audience": "vault"}}]}
    main = container(env=wants, envFrom=[{"secretRef": {"name": "env"}}], volumeMounts=mounts)
    edge.run(
        pod(
            "reads",
            {**main, "image": image, "imagePullPolicy": "Always"},
            volumes=[{"name": "keys", "secret": {"secretName": "keys"}}, {"name": "tokens", "projected": projected}],
            imagePullSecrets=[{"name": "login"}],
        )
    )
    edge.wait_ready("reads")
    return tokens_of(edge)
