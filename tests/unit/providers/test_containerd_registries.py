"""Files for containerd: where they go, whose they are, and what is said where they can't."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.config import Mirror, Registry, Settings
from agent.cri.channel import RuntimeChannel
from agent.cri.daemon_config import config_flags
from agent.cri.runtime import RuntimeClient
from agent.errors import ConfigError, Permanent
from agent.providers import containerd_registries
from agent.providers.containerd_hosts import HEADER
from agent.providers.containerd_machine import REGISTRY_FOLDERS
from agent.providers.containerd_registries import ContainerdRegistries, check_files, config_path
from hack.pki import Authority
from tests.fakes.cri import FakeRuntime, serving
from tests.fakes.skipped_time import SkippedTime, quiet, with_skipped_time
from tests.fakes.store import MemoryStore
from tests.unit.pods.scene import FakeEvents

PLAIN = Registry("r.example:5000", plain_http=True)
MIRRORED = Registry("docker.io", mirrors=(Mirror("http://cache:5000"),))


def containerd(version: str, **config: Any) -> FakeRuntime:
    """Until 1.7 it tells its settings for registries itself."""
    made = FakeRuntime()
    made.name, made.version, made.config = "containerd", version, json.dumps(config)
    return made


class Lab:
    def __init__(self, folder: Path, runtime: RuntimeClient, world: FakeRuntime) -> None:
        self.certs = folder / "certs.d"
        self.root = folder / "root"
        self.store = MemoryStore()
        self.events = FakeEvents()
        self._runtime = runtime
        self.world = world

    def registries(self, *registries: Registry) -> ContainerdRegistries:
        settings = Settings(node_name="n", root_dir=self.root, registries=registries)
        return ContainerdRegistries(settings, self.store, self._runtime, self.events)

    async def apply(self, *registries: Registry) -> None:
        await self.registries(*registries).first()

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.certs)) for path in self.certs.glob("**/*") if path.is_file()}


@asynccontextmanager
async def lab(folder: Path, *more: str) -> AsyncIterator[Lab]:
    paths = ":".join((str(folder / "certs.d"), *more))
    world = containerd("1.7.1", registry={"configPath": paths})
    async with serving(world) as endpoint, RuntimeChannel(endpoint) as channel:
        yield Lab(folder, RuntimeClient(channel), world)


async def test_files_are_there_for_the_first_pull_and_go_with_what_they_are_for(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        await node.apply(PLAIN, MIRRORED)
        assert node.files == {"r.example:5000/hosts.toml", "docker.io/hosts.toml"}
        await node.apply(MIRRORED)
        assert node.files == {"docker.io/hosts.toml"}
        assert not (node.certs / "r.example:5000").exists()
        # Also where the runtime's settings are of no interest any more.
        node.world.config = "{}"
        await node.apply()
        assert node.files == set()
        assert await node.store.get(REGISTRY_FOLDERS) is None
        assert node.events.reasons == []


async def test_a_file_that_says_the_same_is_not_written_again_and_one_that_was_changed_is(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        await node.apply(PLAIN)
        file = node.certs / "r.example:5000/hosts.toml"
        before = file.stat().st_ino
        await node.apply(PLAIN)
        assert file.stat().st_ino == before
        file.write_text(HEADER)
        await node.apply(PLAIN)
        assert "http://r.example:5000" in file.read_text()


async def test_what_is_somebody_elses_is_left_alone_and_said_and_the_rest_holds(tmp_path: Path) -> None:
    other = tmp_path / "docker"
    async with lab(tmp_path, str(other)) as node:
        theirs = {
            node.certs / "a.example/hosts.toml": "is somebody else's",
            node.certs / "b.example/ca.crt": "has somebody else's certificates, which hosts.toml would hide",
            node.certs / "c.example_5_/hosts.toml": "is somebody else's, for the same registry",
            other / "d.example/ca.crt": "is somebody else's, for the same registry",
        }
        for path in theirs:
            path.parent.mkdir(parents=True)
            path.write_text("theirs")
        wrong = [Registry(host, skip_verify=True) for host in ("a.example", "b.example", "c.example:5", "d.example")]
        await node.apply(*wrong, PLAIN)
        [said] = node.events.messages("RegistriesNotApplied")
        for path, words in theirs.items():
            assert f"{path if path.name == 'hosts.toml' and 'c.ex' not in str(path) else path.parent} {words}" in said
            assert path.read_text() == "theirs"
        assert "r.example:5000/hosts.toml" in node.files
        assert not node.files & {"b.example/hosts.toml", "c.example:5/hosts.toml", "d.example/hosts.toml"}


async def test_a_runtime_without_a_folder_is_an_event_of_the_node(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.world.config = json.dumps({"registry": {"configPath": ""}})
        await node.apply(PLAIN)
        [said] = node.events.messages("RegistriesNotApplied")
        assert said.startswith("containerd has no folder for them: set config_path in its settings")


@with_skipped_time
async def test_it_is_tried_again_and_said_once_until_it_is_done(tmp_path: Path) -> None:
    async with lab(tmp_path) as node, asyncio.TaskGroup() as tasks:
        told = node.world.config
        node.world.config = json.dumps({"registry": {"configPath": ""}})
        await node.store.put(REGISTRY_FOLDERS, b"{")
        registries = node.registries(PLAIN)
        await registries.first()
        task = tasks.create_task(registries.run())
        time = SkippedTime()
        for _ in range(3):
            time.skip(60)
            await quiet()
        assert node.events.reasons == ["RegistriesNotApplied"]
        node.world.config = told
        time.skip(60)
        await task
        assert node.files == {"r.example:5000/hosts.toml"}


async def test_an_authority_in_the_settings_is_a_file_of_the_agents_own(tmp_path: Path) -> None:
    pem = Authority("a").pair.certificate.decode()
    async with lab(tmp_path) as node:
        await node.apply(
            Registry("r.example:5000", ca=pem), Registry("docker.io", mirrors=(Mirror("https://r.example:5000"),))
        )
        file = node.root / "registries/r.example_5000.crt"
        assert file.read_text() == pem
        for name in ("r.example:5000", "docker.io"):
            assert f'ca = "{file}"' in (node.certs / name / "hosts.toml").read_text()
        await node.apply(PLAIN)
        assert not file.exists()


# ------------------------------------------------------------ where containerd looks


async def found(world: FakeRuntime) -> list[str]:
    async with serving(world) as endpoint, RuntimeChannel(endpoint) as channel:
        return [str(path) for path in await config_path(RuntimeClient(channel), endpoint)]


async def test_an_older_containerd_tells_its_folders_itself() -> None:
    assert await found(containerd("1.6.20", registry={"configPath": "/a:/b"})) == ["/a", "/b"]
    assert await found(containerd("1.6.20", registry={"mirrors": {}})) == []


@pytest.mark.parametrize(
    ("version", "registry", "folders"),
    [
        ("2.0.1", {"config_path": "/a"}, ["/a"]),
        ("v2.2.0", {"config_path": ""}, []),
        ("v2.3.0", {"config_path": ""}, ["/etc/containerd/certs.d", "/etc/docker/certs.d"]),
        ("2.10.0", {}, ["/etc/containerd/certs.d", "/etc/docker/certs.d"]),
        ("2.4.0", {"mirrors": {"docker.io": {}}}, []),
    ],
)
async def test_of_a_newer_one_its_program_tells_them(
    monkeypatch: pytest.MonkeyPatch, version: str, registry: dict[str, Any], folders: list[str]
) -> None:
    dump = {"plugins": {"io.containerd.cri.v1.images": {"registry": registry}}}
    monkeypatch.setattr(containerd_registries, "effective_config", lambda endpoint: dump)
    assert await found(containerd(version, containerd={})) == folders


async def test_another_runtime_is_left_alone() -> None:
    with pytest.raises(Permanent, match="fake is not containerd"):
        await found(FakeRuntime())


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], []),
        (["--log-level", "debug"], []),
        (["-c", "/a", "--log-level=debug"], ["--config", "/a"]),
        (["--log-level=debug", "--config=/a"], ["--config", "/a"]),
        (["-config", "/a"], ["--config", "/a"]),
    ],
)
def test_its_file_is_the_one_that_it_was_started_with(words: list[str], flags: list[str]) -> None:
    assert config_flags(words) == flags


# ------------------------------------------------------------ certificates


def test_certificates_are_looked_at_before_the_start(tmp_path: Path) -> None:
    authority = Authority("a")
    pair = authority.client("edge")
    files = {name: tmp_path / name for name in ("ca", "cert", "key", "both", "junk")}
    files["ca"].write_bytes(authority.pair.certificate)
    files["cert"].write_bytes(pair.certificate)
    files["key"].write_bytes(pair.key)
    files["both"].write_bytes(pair.certificate + pair.key)
    files["junk"].write_text("junk")
    ca = authority.pair.certificate.decode()
    check_files([Registry("a", ca=str(files["ca"]), client_cert=files["cert"], client_key=files["key"])])
    check_files([Registry("a", ca=ca, client_cert=files["both"])])
    for wrong, message in (
        (Registry("a", ca="/nope"), "registries: a: ca: /nope can't be used: No such file"),
        (Registry("a", ca=str(files["junk"])), f"registries: a: ca: {files['junk']} can't be used: "),
        (Registry("a", ca=ca[:99]), "registries: a: ca: the certificate in it can't be used: "),
        (Registry("a", client_cert=files["cert"]), f"registries: a: clientCert: {files['cert']} can't be used: "),
    ):
        with pytest.raises(ConfigError) as caught:
            check_files([wrong])
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
