"""Images from two registries of the test's own: a plain one, and one with its own authority and a password."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack import images, oci
from hack.control_plane import ControlPlane
from hack.pki import Authority
from hack.registry import PASSWORD, USER, Registry
from hack.runtime import Containerd
from hack.token_server import TokenServer
from hack.workspace import Workspace
from tests.integration.agent.edge import Edge, Object, container, container_ids, pod, restarts, status_of
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

NOBODY = "images.invalid:5000"
OTHERS = "others.invalid:5000"
"""Registries that there are not."""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority("registries")
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(authority.pair.certificate)
        self.password = folder / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(f"{PASSWORD}\n")
        self.plain = Registry(folder / "plain")
        pair = authority.server("registry", ["127.0.0.1"])
        self.secure = Registry(folder / "secure", pair=pair, password=True)
        self.settings = folder / "edgelet.yaml"

    def say(self, **settings: Any) -> str:
        """Write the settings file; the flag that names it."""
        self.settings.write_text(yaml.safe_dump(settings))
        return f"--config={self.settings}"

    @property
    def login(self) -> dict[str, str]:
        return {"ca": str(self.ca), "username": USER, "passwordFile": str(self.password)}


def program(word: str) -> oci.Image:
    """busybox and a file of its own: another image than any other."""
    return oci.Image((), (oci.layer(images.busybox_files()), oci.layer({"word": oci.File(0o644, word.encode())})))


@pytest.fixture(autouse=True)
def own_hosts(workspace: Workspace) -> Iterator[None]:
    """The runtimes are other tests' too: what an agent has left, a mirror of all say, must not send them elsewhere."""
    yield
    for folder in workspace.folder.glob("containerd-*/certs.d"):
        shutil.rmtree(folder)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    for registry in (made.plain, made.secure):
        registry.start()
    yield made
    for registry in (made.plain, made.secure):
        registry.stop()


def pull_secret(registry: str, user: str, password: str) -> Object:
    """`login`, for pods."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": docker_config(registry, user, password)},
    }


def docker_config(registry: str, user: str, password: str) -> str:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


def hosts_files(runtime: Containerd) -> list[Path]:
    return sorted((runtime.folder / "certs.d").glob("*/hosts.toml"))


def test_images_come_from_where_the_settings_say_and_keep_the_names_that_users_wrote(
    lab: Lab, agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    of_plain = lab.plain.push(program("plain"), "shop/web", "1")
    of_secure = lab.secure.push(program("secure"), "lib/app", "1")
    config = lab.say(
        registries={NOBODY: {"mirrors": [lab.plain.url], "fallback": False}, lab.secure.address: lab.login},
        imageRewrites={"docker.io/library/": f"{lab.secure.address}/lib/"},
    )
    pid = containerd.pid
    process = agent(flags=[config])
    edge = Edge(process, containerd, control_plane, namespace)
    always = {"imagePullPolicy": "Always"}
    edge.run(
        pod("mirrored", {**container(), **always, "image": f"{NOBODY}/shop/web:1"}),
        pod("rewritten", {**container(), **always, "image": "app:1"}),
    )
    edge.wait_ready("mirrored", "rewritten")

    assert containerd.pid == pid
    assert (lab.plain.pulled(), lab.secure.pulled()) == ({"shop/web"}, {"lib/app"})
    for name, word, image, digest in (
        ("mirrored", "plain", f"{NOBODY}/shop/web:1", of_plain),
        ("rewritten", "secure", "app:1", of_secure),
    ):
        status = status_of(edge.pod(name))
        assert status["image"] == image
        assert status["imageID"].endswith(f"@{digest}")
        (container_id,) = container_ids(edge.pod(name)).values()
        assert containerd.crictl("exec", container_id, "cat", "/word") == word
    of_node = wait_until(
        lambda: [
            one["names"]
            for one in edge.get(f"/api/v1/nodes/{edge.node}")["status"].get("images", [])
            if f"{lab.secure.address}/lib/app:1" in one["names"]
        ],
        60,  # they are read every 30 s
    )
    assert "docker.io/library/app:1" in of_node[0]

    # Another start is no reason to touch a container, and what the settings no longer say is gone.
    before = {name: container_ids(edge.pod(name)) for name in ("mirrored", "rewritten")}
    assert [path.parent.name for path in hosts_files(containerd)] == sorted((NOBODY, lab.secure.address))
    process.stop()
    lab.say()
    process.start()
    wait_until(lambda: not hosts_files(containerd))
    edge.run(pod("after"))
    edge.wait_ready("after")
    assert {name: container_ids(edge.pod(name)) for name in before} == before
    assert [restarts(edge.pod(name)) for name in before] == [0, 0]
    assert containerd.pid == pid
    assert PASSWORD not in edge.agent_log()


def test_a_mirror_with_an_authority_and_a_password_is_asked_with_the_nodes_login_whatever_the_pod_brings(
    lab: Lab, agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    lab.secure.push(program("mirrored"), "other/web", "1")
    config = lab.say(
        registries={
            NOBODY: {"mirrors": [lab.plain.url, lab.secure.url], "fallback": False},
            lab.secure.address: {**lab.login, "ca": lab.ca.read_text()},
        }
    )
    edge = Edge(agent(flags=[config]), containerd, control_plane, namespace)
    edge.apply(pull_secret(NOBODY, "somebody", "else"))
    image = f"{NOBODY}/other/web:1"
    edge.run(pod("web", {**container(), "image": image}, imagePullSecrets=[{"name": "login"}]))
    edge.wait_ready("web")
    assert lab.secure.pulled() == {"other/web"}
    assert status_of(edge.pod("web"))["image"] == image
    assert "somebody" not in lab.secure.daemon.log.read_text()


def test_a_registry_that_wants_tokens_is_asked_with_one_that_a_login_was_given_for(
    lab: Lab, agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    authority = Authority("tokens")
    server = TokenServer(authority.client("token server"), f"{USER}:{PASSWORD}")
    registry = Registry(lab.folder / "tokens", tokens=(authority.pair.certificate, server))
    try:
        registry.start()
        for repository in ("mirrored/web", "secret/web"):
            registry.push(program(repository), repository, "1")
        login = {"username": USER, "passwordFile": str(lab.password)}
        config = lab.say(
            registries={NOBODY: {"mirrors": [registry.url], "fallback": False}, registry.address: login},
        )
        edge = Edge(agent(flags=[config]), containerd, control_plane, namespace)
        edge.run(pod("by-node", {**container(), "image": f"{NOBODY}/mirrored/web:1"}))
        edge.wait_ready("by-node")
        assert set(server.given) == {"repository:mirrored/web:pull"}
        edge.agent.stop()
        lab.say()
        edge.agent.start()
        edge.apply(pull_secret(registry.address, USER, PASSWORD))
        edge.run(
            pod(
                "by-secret",
                {**container(), "image": f"{registry.address}/secret/web:1"},
                imagePullSecrets=[{"name": "login"}],
            ),
            pod("without", {**container(), "image": f"{registry.address}/secret/web:1"}),
        )
        edge.wait_ready("by-secret")
        wait_until(lambda: status_of(edge.pod("without"))["state"]["waiting"]["reason"] == "ImagePullBackOff")
        assert registry.pulled() == {"mirrored/web", "secret/web"}
    finally:
        registry.stop()
        server.close()


def test_what_a_mirror_lacks_is_asked_of_the_registry_with_what_the_pod_brings(
    lab: Lab, agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    authority = Authority("upstream")
    ca = authority.pair.certificate.decode()
    upstream = Registry(lab.folder / "upstream", pair=authority.server("registry", ["127.0.0.1"]), password=True)
    upstream.start()
    try:
        upstream.push(program("upstream"), "web", "1")
        config = lab.say(
            registries={
                upstream.address: {"ca": ca, "mirrors": [lab.secure.url]},
                lab.secure.address: lab.login,
            }
        )
        edge = Edge(agent(flags=[config]), containerd, control_plane, namespace)
        edge.apply(pull_secret(upstream.address, USER, PASSWORD))
        edge.run(
            pod("web", {**container(), "image": f"{upstream.address}/web:1"}, imagePullSecrets=[{"name": "login"}])
        )
        edge.wait_ready("web")
        assert (upstream.pulled(), lab.secure.pulled()) == ({"web"}, set())
        # And what the mirror has comes from there alone.
        lab.secure.push(program("both"), "both", "1")
        upstream.stop()
        edge.run(pod("both", {**container(), "image": f"{upstream.address}/both:1"}))
        edge.wait_ready("both")
    finally:
        upstream.stop()


def test_a_registry_may_want_a_certificate_or_be_believed_and_what_has_no_entry_has_the_mirror_of_all(
    lab: Lab, agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    clients = Authority("clients")
    pair = Authority("unknown").server("registry", ["127.0.0.1"])
    strict = Registry(lab.folder / "strict", pair=pair, client=(clients.pair.certificate, clients.client("edge")))
    strict.start()
    try:
        strict.push(program("strict"), "strict", "1")
        lab.secure.push(program("believed"), "believed", "1")
        lab.plain.push(program("all"), "of/all", "1")
        logins = lab.folder / "docker.json"
        logins.touch(mode=0o600)
        logins.write_text(docker_config(lab.secure.address, USER, PASSWORD))
        config = lab.say(
            registries={
                strict.address: {
                    "skipVerify": True,
                    "clientCert": str(lab.folder / "strict/client.crt"),
                    "clientKey": str(lab.folder / "strict/client.key"),
                },
                lab.secure.address: {"skipVerify": True},
                "*": {"mirrors": [lab.plain.url], "fallback": False},
            },
            registryAuthFile=str(logins),
        )
        edge = Edge(agent(flags=[config]), containerd, control_plane, namespace)
        wanted = {
            "strict": f"{strict.address}/strict:1",
            "believed": f"{lab.secure.address}/believed:1",
            "all": f"{lab.folder.name.replace('_', '-').lower()}.invalid/of/all:1",
        }
        edge.run(*(pod(name, {**container(), "image": image}) for name, image in wanted.items()))
        edge.wait_ready(*wanted)
        assert [registry.pulled() for registry in (strict, lab.secure, lab.plain)] == [
            {"strict"},
            {"believed"},
            {"of/all"},
        ]
        assert {name: status_of(edge.pod(name))["image"] for name in wanted} == wanted
    finally:
        strict.stop()


def test_a_file_of_somebody_else_is_left_alone_and_the_node_says_so(
    lab: Lab, agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    theirs = one_containerd.folder / "certs.d" / OTHERS / "hosts.toml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('server = "https://elsewhere.invalid"\n')
    try:
        config = lab.say(registries={OTHERS: {"mirrors": [lab.plain.url]}, lab.plain.address: {"plainHttp": True}})
        edge = Edge(agent(flags=[config]), one_containerd, control_plane, namespace)
        wait_until(lambda: ("RegistriesNotApplied", f"{theirs} is somebody else's") in edge.node_events())
        assert "elsewhere" in theirs.read_text()
        # What is in nobody's way holds all the same.
        lab.plain.push(program("direct"), "direct", "1")
        edge.run(pod("direct", {**container(), "image": f"{lab.plain.address}/direct:1"}))
        edge.wait_ready("direct")
    finally:
        theirs.unlink()
        theirs.parent.rmdir()
