import os
import ssl
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from agent.config import Settings
from agent.errors import ConfigError
from agent.server.certificate import server_certificate
from tests.unit.server.authority import Authority

NOW = time.time()
YEAR = 365 * 86400.0


def made(root: Path, *addresses: str, name: str = "Edge-1", at: float = NOW) -> bytes:
    files = server_certificate(Settings(node_name=name, root_dir=root), addresses, at)
    return files.certificate.read_bytes()


def test_our_own_names_the_node_and_its_addresses_for_a_year(tmp_path: Path) -> None:
    certificate = x509.load_pem_x509_certificate(made(tmp_path, "10.0.0.7", "fd00::7", ""))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge-1"]
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"10.0.0.7", "fd00::7"}
    assert certificate.not_valid_before_utc.timestamp() < NOW - 3000
    assert certificate.not_valid_after_utc.timestamp() == pytest.approx(NOW + YEAR, abs=2)


def test_our_own_is_readable_by_root_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "pki" / "server.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert [p.name for p in (tmp_path / "pki").iterdir()] == ["server.pem"]


def test_our_own_is_made_once(tmp_path: Path) -> None:
    first = made(tmp_path, "10.0.0.7", "fd00::7")
    assert made(tmp_path, "fd00::7", "10.0.0.7", at=NOW + 300 * 86400) == first


@pytest.mark.parametrize(
    ("addresses", "name", "at"),
    [
        (("10.0.0.8",), "edge-1", NOW),
        (("10.0.0.7",), "edge-2", NOW),
        (("10.0.0.7",), "edge-1", NOW + YEAR - 29 * 86400),
        (("10.0.0.7",), "edge-1", NOW - 7200),  # the clock was ahead when it was made
    ],
    ids=["another address", "another name", "nearly over", "made in the future"],
)
def test_it_is_made_anew_when_names_change_or_its_time_is_over(
    tmp_path: Path, addresses: tuple[str, ...], name: str, at: float
) -> None:
    first = made(tmp_path, "10.0.0.7", name="edge-1")
    assert made(tmp_path, *addresses, name=name, at=at) != first
    assert made(tmp_path, *addresses, name=name, at=at) == made(tmp_path, *addresses, name=name, at=at)


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 600, b"# []\n", b'# {"names": ["edge-1"], "from": 0, "renew": 9e99}\n']
)
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "pki" / "server.pem"
    made(tmp_path)
    file.write_bytes(damage)
    assert made(tmp_path).count(b"-----BEGIN") == 2


def test_a_very_long_node_name_fits(tmp_path: Path) -> None:
    assert made(tmp_path, name="n" * 63 + "." + "m" * 63)


def test_given_files_are_used_as_they_are(tmp_path: Path) -> None:
    pem = Authority().issue(tmp_path / "s.pem", "server")
    files = server_certificate(Settings(node_name="n", tls_cert_file=pem, tls_private_key_file=pem), (), NOW)
    assert (files.certificate, files.key) == (pem, pem)


def test_given_files_that_cannot_serve_are_refused_by_flag(tmp_path: Path) -> None:
    authority = Authority()
    one, other = authority.issue(tmp_path / "1.pem", "a"), authority.issue(tmp_path / "2.pem", "b")
    locked = authority.issue(tmp_path / "3.pem", "c", password=b"secret")
    junk = tmp_path / "junk"
    junk.write_text("junk")

    def refusal(certificate: Path | None, key: Path | None) -> str:
        settings = Settings(node_name="n", tls_cert_file=certificate, tls_private_key_file=key)
        with pytest.raises(ConfigError) as refused:
            server_certificate(settings, (), NOW)
        return str(refused.value)

    assert "KEY_VALUES_MISMATCH" in refusal(one, other)
    assert "No such file" in refusal(tmp_path / "none", one)
    assert refusal(junk, junk).startswith(f"--tls-cert-file {junk}, --tls-private-key-file {junk}: not a PEM")
    assert "without a password" in refusal(locked, locked)
    assert refusal(one, None).startswith("--tls-private-key-file: must be given")
    assert refusal(None, one).startswith("--tls-cert-file: must be given")


def test_ssl_loads_what_we_make(tmp_path: Path) -> None:
    made(tmp_path)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "pki" / "server.pem")


def test_a_process_of_its_own_makes_as_good_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cryptography")
    made = server_certificate(Settings(node_name="n", root_dir=tmp_path), ("10.0.0.1",), NOW)
    assert "cryptography" not in sys.modules
    version = made.version()
    again = server_certificate(Settings(node_name="n", root_dir=tmp_path), ("10.0.0.1",), NOW)
    assert again.version() == version
