"""The node's own logins: whom they are for, in which order they are tried, and files that others may read."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from agent.config import Mirror, Registry
from agent.cri._generated import api_pb2
from agent.errors import ConfigError
from agent.pods.credentials import Credential
from agent.pods.registry_credentials import RegistryCredentials
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.scene import record, scene
from tests.unit.pods.test_image_pull import pull_secret

PODS = (Credential(api_pb2.AuthConfig(username="pod", password="x")),)


def private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def login(host: str, folder: Path, user: str) -> Registry:
    return Registry(host, username=user, password_file=private(folder / user, f"{user}-word\n"))


async def tried(logins: RegistryCredentials, image: str) -> list[tuple[str, str, str]]:
    """(user, password, for whom)."""
    found = await logins.joined(image, PODS)
    return [(one.auth.username, one.auth.password, one.auth.server_address) for one in found]


async def test_a_login_is_for_its_registry_alone_and_comes_after_what_the_pod_brings(tmp_path: Path) -> None:
    logins = RegistryCredentials([login("r.example:5000", tmp_path, "edge")])
    assert await tried(logins, "r.example:5000/web") == [
        ("pod", "x", ""),
        ("edge", "edge-word", "https://r.example:5000"),
    ]
    assert await tried(logins, "r.example/web") == [("pod", "x", "")]


async def test_logins_to_mirrors_come_first_and_then_no_mirror_sees_what_the_pod_brings(tmp_path: Path) -> None:
    mirrors = (Mirror("https://m.example:5000"), Mirror("http://n.example"), Mirror("http://open.example"))
    logins = RegistryCredentials(
        [
            Registry("docker.io", mirrors=mirrors),
            login("m.example:5000", tmp_path, "m"),
            login("n.example", tmp_path, "n"),
            Registry("quay.io", mirrors=mirrors[2:]),
        ]
    )
    assert await tried(logins, "busybox") == [
        ("m", "m-word", "https://m.example:5000"),
        ("n", "n-word", "https://n.example"),
        ("pod", "x", "https://registry-1.docker.io"),
    ]
    # A mirror to which the node has no login is shown the pod's, as ever.
    assert await tried(logins, "quay.io/a/b") == [("pod", "x", "")]


async def test_the_entry_for_every_registry_holds_where_there_is_no_own_one(tmp_path: Path) -> None:
    every = Registry("*", mirrors=(Mirror("https://m.example"),))
    logins = RegistryCredentials([every, login("m.example", tmp_path, "m"), Registry("own.example", skip_verify=True)])
    assert [user for user, _, _ in await tried(logins, "quay.io/a/b")] == ["m", "pod"]
    assert [user for user, _, _ in await tried(logins, "own.example/b")] == ["pod"]


async def test_a_docker_configuration_has_logins_too_for_mirrors_as_well(tmp_path: Path) -> None:
    auth = base64.b64encode(b"hub:hub-word").decode()
    auths = {"https://index.docker.io/v1/": {"auth": auth}, "m.example": {"username": "m", "password": "m-word"}}
    file = private(tmp_path / "config.json", json.dumps({"auths": auths}))
    logins = RegistryCredentials([Registry("docker.io", mirrors=(Mirror("https://m.example"),))], file)
    assert await tried(logins, "busybox") == [
        ("m", "m-word", "https://m.example"),
        ("pod", "x", "https://registry-1.docker.io"),
        ("hub", "hub-word", "https://registry-1.docker.io"),
    ]


async def test_a_changed_password_is_used_at_once_and_a_lost_one_left_out(tmp_path: Path) -> None:
    logins = RegistryCredentials([login("r.example", tmp_path, "edge")])
    (tmp_path / "edge").write_text("another")
    assert (await tried(logins, "r.example/web"))[1][1] == "another"
    (tmp_path / "edge").unlink()
    assert await tried(logins, "r.example/web") == [("pod", "x", "")]


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [
        (
            0o644,
            "word",
            r"registries: r.example: passwordFile: .*/edge can be read by others \(mode 0644\): chmod 600 it",
        ),
        (0o600, "", r".*/edge is empty"),
    ],
)
def test_a_password_file_must_be_private_and_have_a_password(
    tmp_path: Path, mode: int, text: str, message: str
) -> None:
    registry = login("r.example", tmp_path, "edge")
    (tmp_path / "edge").write_text(text)
    (tmp_path / "edge").chmod(mode)
    with pytest.raises(ConfigError, match=message):
        RegistryCredentials([registry])


def test_a_password_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"registries: r.example: passwordFile: /nope can't be read: No such file"):
        RegistryCredentials([Registry("r.example", username="edge", password_file=Path("/nope"))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{secret", "is not a Docker configuration"),
        ("[]", "is not a Docker configuration"),
        ('{"auths": {"a": "secret"}}', "is not a Docker configuration"),
        ('{"auths": {"a": {"auth": "secret!"}}}', "a auth field is not base64"),
        ('{"credsStore": "desktop"}', "credsStore is not supported, --image-credential-provider-config is"),
    ],
)
def test_an_auth_file_that_cannot_be_used_is_named_and_not_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RegistryCredentials([], private(tmp_path / "config.json", text))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None or "secret" not in str(caught.value.__cause__)


@with_skipped_time
async def test_a_pull_tries_them_one_after_the_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        mirror = Registry("r.example", mirrors=(Mirror("https://m.example"),))
        s.machine.logins = RegistryCredentials([mirror, login("m.example", tmp_path, "m")])
        s.cri.registry = set()
        pull_secret(s, "own", "r.example", "somebody")
        s.start(record(containers=[{"name": "main", "image": "r.example/a:1"}], imagePullSecrets=[{"name": "own"}]))
        await s.until(lambda: s.waits() == "ErrImagePull")
        assert [(call.auth.username, call.auth.server_address) for call in s.cri.called("PullImage")] == [
            ("m", "https://m.example"),
            ("somebody", "https://r.example"),
        ]
