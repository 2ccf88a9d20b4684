"""Credentials from programs: real executables, asked as a kubelet asks them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.errors import ConfigError
from agent.pods.credential_config import read_providers
from agent.pods.credential_plugins import CredentialPlugins
from tests.fakes.skipped_time import with_skipped_time
from tests.fakes.waiting import eventually
from tests.unit.pods.scene import record, scene
from tests.unit.pods.test_image_pull import pull_secret

V1 = "credentialprovider.kubelet.k8s.io/v1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Node:
    """A folder of programs, their configuration, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.config = folder / "config.yaml"
        self.clock = Clock()
        self._asked = folder / "asked"
        self._providers: list[dict[str, Any]] = []

    def add(self, name: str = "login", answer: dict[str, Any] | None = None, script: str = "", **fields: Any) -> None:
        """A program that notes its request, does `script` and prints `answer`."""
        program = self.programs / name
        said = json.dumps({"apiVersion": V1, "kind": "CredentialProviderResponse", **(answer or {})})
        program.write_text(f"#!/bin/sh\n(cat; echo) >>{self._asked}\n{script}\necho '{said}'\n")
        program.chmod(0o755)
        self._providers.append(
            {
                "name": name,
                "matchImages": ["registry.example"],
                "defaultCacheDuration": "10m",
                "apiVersion": V1,
                **fields,
            }
        )
        head = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig"}
        self.config.write_text(json.dumps({**head, "providers": self._providers}))

    def plugins(self, timeout_s: float = 30) -> CredentialPlugins:
        return CredentialPlugins(read_providers(self.config, self.programs), self.clock, timeout_s)

    @property
    def asked(self) -> list[str]:
        return [line for line in self._asked.read_text().splitlines() if line] if self._asked.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def answer(cache_key: str = "Image", user: str = "robot", **fields: Any) -> dict[str, Any]:
    return {"cacheKeyType": cache_key, "auth": {"registry.example": {"username": user, "password": "pw"}}, **fields}


async def users(plugins: CredentialPlugins, image: str = "registry.example/shop/web:1") -> list[str]:
    return [found.auth.username for found in await plugins.credentials(image)]


async def test_a_program_is_asked_for_the_repository_and_its_answer_is_used(node: Node) -> None:
    node.add(answer=answer())
    (found,) = await node.plugins().credentials("registry.example/shop/web:1")
    assert (found.auth.username, found.auth.password, found.source) == ("robot", "pw", None)
    (request,) = node.asked
    assert json.loads(request) == {
        "apiVersion": V1,
        "kind": "CredentialProviderRequest",
        "image": "registry.example/shop/web",
    }


async def test_an_image_of_another_registry_asks_nobody(node: Node) -> None:
    node.add(answer=answer())
    assert await users(node.plugins(), "busybox") == []
    assert node.asked == []


async def test_arguments_and_variables_reach_the_program(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "a")
    monkeypatch.setenv("OWN", "not this")
    node.add(
        answer=answer(), script='[ "$*" = "get --now" ] && [ $INHERITED$OWN = ab ] || exit 3',
        args=["get", "--now"], env=[{"name": "OWN", "value": "b"}],
    )  # fmt: skip
    assert await users(node.plugins()) == ["robot"]


@pytest.mark.parametrize(
    ("cache_key", "other", "asked"),
    [
        ("Image", "registry.example/shop/web:2", 1),
        ("Image", "registry.example/shop/db", 2),
        ("Registry", "registry.example/shop/db", 1),
        ("Registry", "a.example/shop", 2),
        ("Global", "a.example/shop", 1),
    ],
)
async def test_an_answer_is_kept_for_what_it_says_that_it_is_for(
    node: Node, cache_key: str, other: str, asked: int
) -> None:
    node.add(answer=answer(cache_key), matchImages=["registry.example", "a.example"])
    plugins = node.plugins()
    await plugins.credentials("registry.example/shop/web:1")
    await plugins.credentials(other)
    assert len(node.asked) == asked


@pytest.mark.parametrize(
    ("lasts", "default", "fresh_s", "stale_s"), [("1m30s", "10m", 89, 91), (None, "10m", 599, 601), ("5s", "0s", 4, 6)]
)
async def test_an_answer_is_kept_as_long_as_it_says_else_as_configured(
    node: Node, lasts: str | None, default: str, fresh_s: float, stale_s: float
) -> None:
    node.add(answer=answer(**({"cacheDuration": lasts} if lasts else {})), defaultCacheDuration=default)
    plugins = node.plugins()
    await users(plugins)
    node.clock.now = 100 + fresh_s
    assert await users(plugins) == ["robot"]
    assert len(node.asked) == 1
    node.clock.now = 100 + stale_s
    assert await users(plugins) == ["robot"]
    assert len(node.asked) == 2


@pytest.mark.parametrize(("lasts", "default"), [("0s", "10m"), (None, "0s")])
async def test_what_must_not_be_kept_is_asked_for_again(node: Node, lasts: str | None, default: str) -> None:
    node.add(answer=answer(**({"cacheDuration": lasts} if lasts else {})), defaultCacheDuration=default)
    plugins = node.plugins()
    await users(plugins)
    await users(plugins)
    assert len(node.asked) == 2


async def test_many_pods_of_one_image_ask_once(node: Node) -> None:
    node.add(answer=answer())
    plugins = node.plugins()
    assert await asyncio.gather(*(users(plugins) for _ in range(5))) == [["robot"]] * 5
    assert len(node.asked) == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no such account >&2; exit 4", {}),
        ("echo '{hunter2'; exit 0", {}),
        ("", {"cacheKeyType": "Image", "apiVersion": "credentialprovider.kubelet.k8s.io/v1beta1"}),
        ("", {"cacheKeyType": "Planet"}),
        ("", {"cacheKeyType": "Image", "kind": "Other"}),
        ("", {"cacheKeyType": "Image", "cacheDuration": "soon"}),
    ],
)
async def test_a_program_that_fails_is_ridden_out_and_asked_again(
    node: Node, script: str, said: dict[str, Any]
) -> None:
    node.add("broken", said, script)
    node.add("login", answer())
    plugins = node.plugins()
    assert await users(plugins) == ["robot"]
    assert await users(plugins) == ["robot"]
    assert len(node.asked) == 3


@pytest.mark.parametrize("script", ["exec sleep 600", "sleep 600", "sleep 600 & exit 0"])
async def test_a_program_that_hangs_is_killed_with_its_children(node: Node, tmp_path: Path, script: str) -> None:
    node.add(answer=answer(), script=f"echo $$ >{tmp_path}/pid; {script}")
    assert await users(node.plugins(timeout_s=0.3)) == []
    group = int((tmp_path / "pid").read_text())
    await eventually(lambda: not _alive(group))


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_program_that_goes_away_is_ridden_out(node: Node) -> None:
    node.add(answer=answer())
    plugins = node.plugins()
    (node.programs / "login").unlink()
    assert await users(plugins) == []


async def test_the_most_specific_of_all_answers_comes_first(node: Node) -> None:
    node.add("one", answer(user="host"))
    node.add("two", {"cacheKeyType": "Image", "auth": {"registry.example/shop": {"username": "path", "password": ""}}})
    assert await users(node.plugins()) == ["path", "host"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "a/b"}, "a name is that of a program"),
        ({"name": "absent"}, "absent is no program"),
        ({"matchImages": []}, "matchImages: at least one"),
        ({"apiVersion": "v1"}, "apiVersion 'v1' is not one of"),
        ({"defaultCacheDuration": "soon"}, "defaultCacheDuration: 'soon' is no duration"),
        ({"tokenAttributes": {"cacheType": "Token"}}, "tokenAttributes is not supported by this node"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_a_wrong_configuration_is_told_at_the_start(node: Node, fields: dict[str, Any], why: str) -> None:
    node.add(answer=answer())
    config = json.loads(node.config.read_text())
    config["providers"][0].update(fields)
    node.config.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        node.plugins()
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: [", "config.yaml: "),
        ("{}", "missing required field"),
        ("apiVersion: kubelet.config.k8s.io/v9\nkind: CredentialProviderConfig\n", "is no CredentialProviderConfig"),
        ("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n", "providers: at least one"),
    ],
)
def test_a_file_that_is_something_else_is_told_at_the_start(node: Node, content: str, why: str) -> None:
    node.config.write_text(content)
    with pytest.raises(ConfigError) as caught:
        node.plugins()
    assert why in str(caught.value)


def test_a_folder_of_files_is_read_in_the_order_of_names_and_a_name_counts_once(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "config.d"
    folder.mkdir()
    with pytest.raises(ConfigError, match="holds no file"):
        read_providers(folder, node.programs)
    node.add("b")
    (folder / "1.yaml").write_text(node.config.read_text())
    node._providers.clear()
    node.add("a")
    (folder / "2.json").write_text(node.config.read_text())
    assert [provider.name for provider in read_providers(folder, node.programs)] == ["b", "a"]
    (folder / "3.yml").write_text(node.config.read_text())
    with pytest.raises(ConfigError, match="'a' is there twice"):
        read_providers(folder, node.programs)


@with_skipped_time
async def test_a_pods_own_secrets_come_before_the_nodes_plugins(tmp_path: Path) -> None:
    made = Node(tmp_path)
    made.add(answer=answer())
    async with scene(tmp_path) as s:
        s.machine.plugins = made.plugins()
        pull_secret(s, "own", "registry.example", "somebody")
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "401 Unauthorized")
        containers = [{"name": "main", "image": "registry.example/web:1"}]
        await s.running(record(imagePullSecrets=[{"name": "own"}], containers=containers))
        assert [request.auth.username for request in s.cri.called("PullImage")] == ["somebody", "robot"]
