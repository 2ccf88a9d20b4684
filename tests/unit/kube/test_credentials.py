from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from agent.errors import ConfigError, Retryable
from agent.kube import credentials as module
from agent.kube.credentials import Credentials
from agent.kube.kubeconfig import read_kubeconfig
from tests.fakes.apiserver import running_api_server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate, as files."""
    folder = tmp_path_factory.mktemp("pki")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=edge"
    subprocess.run(
        [*command.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    return folder


def write(folder: Path, user: object, cluster: object = None, name: str = "kubeconfig") -> Path:
    path = folder / name
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": cluster or {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def plugin(folder: Path, script: str) -> dict[str, object]:
    path = folder / "plugin"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}}


def answer(**status: str) -> str:
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"cat <<'END'\n{json.dumps(credential)}\nEND\n"


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


async def test_a_token(tmp_path: Path) -> None:
    access = (await Credentials.load(write(tmp_path, {"token": "abc"}))).access
    assert access.headers == {"Authorization": "Bearer abc"}
    assert (access.server, access.user) == ("http://127.0.0.1:1", "u")


async def test_a_name_and_password(tmp_path: Path) -> None:
    access = (await Credentials.load(write(tmp_path, {"username": "a", "password": "b"}))).access
    assert access.headers == {"Authorization": "Basic YTpi"}


async def test_certificates_from_data_leave_no_key_on_disk(tmp_path: Path, pki: Path) -> None:
    user = {"client-certificate-data": data(pki / "cert.pem"), "client-key-data": data(pki / "key.pem")}
    cluster = {
        "server": "https://edge:6443/prefix/",
        "certificate-authority-data": data(pki / "cert.pem"),
        "tls-server-name": "kubernetes",
    }
    loaded = await Credentials.load(write(tmp_path, user, cluster))
    # Again: the official loader must not hand out the files of the first time.
    again = await loaded.renew(loaded.access)
    for access in (loaded.access, again):
        assert access.tls is not None
        assert access.cluster_ca == (pki / "cert.pem").read_bytes()
        assert access.server == "https://edge:6443/prefix"
        assert access.server_hostname == "kubernetes"
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"edgelet-{os.getpid()}-")]


async def test_certificates_from_files_beside_the_kubeconfig(tmp_path: Path, pki: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes((pki / name).read_bytes())
    user = {"client-certificate": "cert.pem", "client-key": "key.pem"}
    cluster = {"server": "https://edge:6443", "certificate-authority": "cert.pem"}
    access = (await Credentials.load(write(tmp_path, user, cluster))).access
    assert access.tls is not None
    assert access.tls.get_ca_certs()


async def test_a_process_of_its_own_reads_the_same(tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"client-certificate-data": data(pki / "cert.pem"), "client-key-data": data(pki / "key.pem")}
    cluster = {"server": "https://edge:6443", "certificate-authority-data": data(pki / "cert.pem")}
    path = str(write(tmp_path, user, cluster))
    here = await read_kubeconfig(path)
    monkeypatch.delitem(sys.modules, "kubernetes")
    apart = await read_kubeconfig(path)
    assert apart == here
    assert (apart.certificate, apart.key) == ((pki / "cert.pem").read_bytes(), (pki / "key.pem").read_bytes())
    assert "kubernetes" not in sys.modules


async def test_a_process_of_its_own_tells_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "kubernetes")
    with pytest.raises(ConfigError, match=r"^kubeconfig \S+: no such file$"):
        await read_kubeconfig(str(tmp_path / "none"))


async def test_a_plugin_that_hangs_is_ended_with_the_process_that_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        tmp_path, plugin(tmp_path, f"echo $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nsleep 99")
    )
    monkeypatch.delitem(sys.modules, "kubernetes")
    reading = asyncio.create_task(read_kubeconfig(str(path)))
    while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - a plugin sets no Event of ours
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_several_kubeconfigs_joined_by_colons(tmp_path: Path) -> None:
    first = write(tmp_path, {"token": "abc"})
    access = (await Credentials.load(f"{first}:{tmp_path / 'none'}")).access
    assert access.headers == {"Authorization": "Bearer abc"}


async def test_a_rotated_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    credentials = await Credentials.load(write(tmp_path, {"tokenFile": "token"}))
    assert (await credentials.current()).headers == {"Authorization": "Bearer old"}
    token.unlink()
    token.write_text("new")
    assert (await credentials.current()).headers == {"Authorization": "Bearer old"}
    now = time.monotonic()
    monkeypatch.setattr("agent.kube.credentials.time.monotonic", lambda: now + module.LOOK_AGAIN_S + 1)
    assert (await credentials.current()).headers == {"Authorization": "Bearer new"}


async def test_a_kubeconfig_that_breaks_later_does_not_take_what_works(tmp_path: Path) -> None:
    path = write(tmp_path, {"token": "abc"})
    credentials = await Credentials.load(path)
    path.write_text("clusters: [")
    assert await credentials.renew(credentials.access) is credentials.access
    assert (await credentials.current()).headers == {"Authorization": "Bearer abc"}


async def test_a_plugins_token_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1000))
    script = f"echo x >> {tmp_path}/calls\n" + answer(token="t", expirationTimestamp=ends)
    credentials = await Credentials.load(write(tmp_path, plugin(tmp_path, script)))
    await credentials.current()
    assert (tmp_path / "calls").read_text() == "x\n"
    now = time.time()
    credentials.wall = lambda: now + 850
    assert (await credentials.current()).headers == {"Authorization": "Bearer t"}
    assert (tmp_path / "calls").read_text() == "x\nx\n"


async def test_a_plugins_certificate(tmp_path: Path, pki: Path) -> None:
    script = answer(clientCertificateData=(pki / "cert.pem").read_text(), clientKeyData=(pki / "key.pem").read_text())
    cluster = {"server": "https://edge:6443", "certificate-authority-data": data(pki / "cert.pem")}
    access = (await Credentials.load(write(tmp_path, plugin(tmp_path, script), cluster))).access
    assert access.tls is not None
    assert not access.problem


async def test_a_plugin_that_fails_now_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"test -e {tmp_path}/network || {{ echo no network >&2; exit 7; }}\n" + answer(token="t")
    credentials = await Credentials.load(write(tmp_path, plugin(tmp_path, script)))
    assert credentials.access.server == "http://127.0.0.1:1"
    with pytest.raises(Retryable, match="no network"):
        await credentials.current()
    (tmp_path / "network").touch()
    now = time.monotonic()
    monkeypatch.setattr("agent.kube.credentials.time.monotonic", lambda: now + module.RENEWAL_PAUSE_S + 1)
    assert (await credentials.current()).headers == {"Authorization": "Bearer t"}


def id_token(expires: float) -> str:
    parts = [{"alg": "none"}, {"exp": expires}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".s"


@pytest.fixture
async def provider() -> AsyncIterator[str]:
    async with running_api_server() as server:
        url = server.url
        wanted = {"token_endpoint": f"{url}/token"}
        server.fail(200, 9, lambda r: "well-known" in r.path, body=json.dumps(wanted).encode(), headers=JSON)
        new = {"id_token": id_token(time.time() + 3600), "refresh_token": "second"}
        server.fail(200, 9, lambda r: r.path == "/token", body=json.dumps(new).encode(), headers=JSON)
        yield url


JSON = {"Content-Type": "application/json"}


def oidc(url: str, token: str) -> dict[str, object]:
    config = {
        "client-id": "c",
        "client-secret": "s",
        "idp-issuer-url": url,
        "refresh-token": "first",
        "id-token": token,
    }
    return {"auth-provider": {"name": "oidc", "config": config}}


async def test_an_oidc_token_that_ended_is_refreshed_and_the_new_refresh_token_kept(
    tmp_path: Path, provider: str
) -> None:
    path = write(tmp_path, oidc(provider, id_token(time.time() - 10)))
    access = (await Credentials.load(path)).access
    assert access.headers["Authorization"].startswith("Bearer ey")
    assert access.expires_at is not None
    assert access.renew_at is not None
    assert access.expires_at - access.renew_at == pytest.approx(module.RENEWAL_MARGIN_S)
    kept = yaml.safe_load(path.read_text())["users"][0]["user"]["auth-provider"]["config"]
    assert kept["refresh-token"] == "second"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_refreshed_token_serves_even_where_it_cannot_be_kept(tmp_path: Path, provider: str) -> None:
    path = write(tmp_path, oidc(provider, id_token(time.time() - 10)))
    (tmp_path / "kubeconfig.new").mkdir()
    access = (await Credentials.load(path)).access
    assert access.headers["Authorization"].startswith("Bearer ey")


async def test_an_oidc_provider_that_is_away_is_no_reason_not_to_start(tmp_path: Path) -> None:
    path = write(tmp_path, oidc("http://127.0.0.1:1", id_token(time.time() - 10)))
    credentials = await Credentials.load(path)
    with pytest.raises(Retryable, match="no credential"):
        await credentials.current()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("", "not a kubeconfig"),
        ("just text", "not a kubeconfig"),
        ("a: [", "kubeconfig"),
        ("apiVersion: v1\nkind: Config\n", "current-context"),
        ("current-context: c\ncontexts: [{name: d}]\nclusters: []\nusers: []\n", "name c"),
        ("current-context: c\ncontexts: 5\nclusters: []\nusers: []\n", "kubeconfig"),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
            "clusters: [{name: k, cluster: {server: 'https://x'}}]\nusers: []\n",
            "no user",
        ),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
            "clusters: [{name: k, cluster: {}}]\nusers: [{name: u, user: {token: t}}]\n",
            "no server",
        ),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
            "clusters: [{name: k, cluster: {server: 'https://x', certificate-authority: gone.pem}}]\n"
            "users: [{name: u, user: {token: t}}]\n",
            "gone.pem",
        ),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
            "clusters: [{name: k, cluster: {server: 'https://x', certificate-authority-data: bm8=}}]\n"
            "users: [{name: u, user: {token: t}}]\n",
            "kubeconfig",
        ),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
            "clusters: [{name: k, cluster: {server: 'https://x'}}]\n"
            "users: [{name: u, user: {exec: {apiVersion: v1, command: /no/such/plugin}}}]\n",
            "/no/such/plugin",
        ),
    ],
)
async def test_a_bad_kubeconfig_is_one_line_that_names_the_file(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        await Credentials.load(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
