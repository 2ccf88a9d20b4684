"""Against a TLS server on loopback that shows a cluster-info."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from agent.errors import ConfigError, Permanent, Retryable
from agent.kube import discovery, x509_facts
from agent.kube.bootstrap_token import BootstrapToken
from hack.pki import Authority
from tests.unit.kube.test_bootstrap_token import TOKEN, signature

Serve = Callable[..., str]


def info(ca: bytes, server: str = "https://10.0.0.1:6443") -> str:
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("cluster-ca")


@pytest.fixture
def serve(authority: Authority, tmp_path: Path) -> Iterator[Serve]:
    servers: list[HTTPServer] = []

    def run(data: dict[str, str], status: int = 200, signer: Authority = authority) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.headers.get("Authorization") is None
                body = json.dumps({"data": data}).encode()
                self.send_response(status if self.path == discovery.CLUSTER_INFO else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        pair = signer.server("kube-apiserver", ["127.0.0.1"])
        (tmp_path / "server.pem").write_bytes(pair.certificate + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_port}"

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def signed(ca: bytes) -> dict[str, str]:
    return {"kubeconfig": info(ca), f"jws-kubeconfig-{TOKEN.id}": signature(info(ca))}


def hash_of(ca: bytes) -> str:
    return x509_facts.public_key_hash(x509_facts.certificates(ca)[0])


def test_a_cluster_that_knows_the_token_and_has_the_ca_is_found(serve: Serve, authority: Authority) -> None:
    ca = authority.pair.certificate
    server = serve(signed(ca))
    for hashes in ([hash_of(ca)], ["sha256:" + "0" * 64, hash_of(ca).upper().replace("SHA", "sha")], []):
        found = discovery.by_token(server, TOKEN, hashes)
        assert (found.server, found.ca) == (server, ca)


def test_another_ca_than_the_hash_says_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(signed(authority.pair.certificate))
    with pytest.raises(Permanent, match="not --ca-cert-hash"):
        discovery.by_token(server, TOKEN, ["sha256:" + "0" * 64])


def test_a_server_that_only_repeats_anothers_cluster_info_is_refused(serve: Serve, authority: Authority) -> None:
    ca = authority.pair.certificate
    server = serve(signed(ca), signer=Authority("somebody-else"))
    with pytest.raises(Permanent, match="not of this cluster's CA"):
        discovery.by_token(server, TOKEN, [hash_of(ca)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"jws-kubeconfig-{TOKEN.id}": None}, "does not know token abcdef"),
        ({f"jws-kubeconfig-{TOKEN.id}": signature("other")}, "not signed by token abcdef"),
        ({"kubeconfig": None}, "no kubeconfig in it"),
        ({"kubeconfig": "[]", f"jws-kubeconfig-{TOKEN.id}": signature("[]")}, "no kubeconfig with a cluster"),
    ],
)
def test_what_is_not_signed_whole_is_refused(
    serve: Serve, authority: Authority, change: dict[str, str | None], words: str
) -> None:
    data = {**signed(authority.pair.certificate), **change}
    with pytest.raises(Permanent, match=words):
        discovery.by_token(serve({name: text for name, text in data.items() if text is not None}), TOKEN, [])


@pytest.mark.parametrize(("status", "words"), [(403, "doesn't show it"), (401, "doesn't show it"), (404, "has none")])
def test_a_cluster_that_hides_its_info_says_which_other_way_there_is(serve: Serve, status: int, words: str) -> None:
    with pytest.raises(Permanent, match=words) as refusal:
        discovery.by_token(serve({}, status), TOKEN, [])
    assert "--ca-file" in str(refusal.value)


def test_a_server_that_is_away_may_come_back(serve: Serve) -> None:
    with pytest.raises(Retryable, match="does not answer"):
        discovery.by_token("https://127.0.0.1:1", TOKEN, [])
    with pytest.raises(Retryable, match="answers 503"):
        discovery.by_token(serve({}, 503), BootstrapToken("abcdef", "0" * 16), [])


def test_a_file_names_the_cluster(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(info(authority.pair.certificate))
    assert discovery.by_file(file).server == "https://10.0.0.1:6443"
    assert discovery.by_file(file, "https://other:6443").server == "https://other:6443"
    file.write_text("clusters: []")
    with pytest.raises(ConfigError, match="--discovery-file"):
        discovery.by_file(file)


def test_a_ca_file_must_have_a_ca(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "ca.crt"
    with pytest.raises(ConfigError, match="No such file"):
        discovery.by_ca_file("https://a:6443", file)
    file.write_text("nothing")
    with pytest.raises(ConfigError, match="not a CA"):
        discovery.by_ca_file("https://a:6443", file)
    file.write_bytes(authority.pair.certificate)
    assert discovery.by_ca_file("https://a:6443", file).ca == authority.pair.certificate


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("10.0.0.1:6443", "https://10.0.0.1:6443"),
        ("https://[fd00::1]:6443/", "https://[fd00::1]:6443"),
        ("a", "https://a"),
    ],
)
def test_an_address_may_lack_its_scheme(address: str, url: str) -> None:
    assert discovery.server_url(address) == url


@pytest.mark.parametrize("address", ["http://a:6443", "https://", "https://a?x=1", "ftp://a"])
def test_anything_but_https_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not the address of an API server"):
        discovery.server_url(address)
