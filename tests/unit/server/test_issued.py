import json
from pathlib import Path

import pytest

from agent.config import Settings
from agent.kube.pki import SERVING, Issued, IssuedPair
from agent.kube.x509_facts import Validity
from agent.server.certificate import server_certificate
from agent.server.issued import Held, is_due, read_held, wants_issued
from tests.unit.server.authority import Authority

NAMES = ("10.0.0.7", "edge-1")
HELD = Held(NAMES, Validity(1000.0, 2000.0))


def put(pair: IssuedPair, folder: Path) -> bytes:
    pem = Authority().issue(folder / "made.pem", "edge-1").read_bytes()
    start = pem.index(b"-----BEGIN PRIVATE")
    pair.put(Issued(pem[:start], pem[start:]), 0.0, json.dumps({"names": NAMES}))
    return pem[:start]


@pytest.mark.parametrize(
    ("held", "names", "server_time", "expected"),
    [
        (None, NAMES, 0.0, True),
        (HELD, NAMES, 1799.0, False),
        (HELD, NAMES, 1800.0, True),
        (HELD, ("10.0.0.8", "edge-1"), 1000.0, True),
    ],
    ids=["none yet", "good", "late in its life", "another address"],
)
def test_when_another_is_asked_for(
    held: Held | None, names: tuple[str, ...], server_time: float, expected: bool
) -> None:
    assert is_due(held, names, 1800.0, server_time) is expected


def test_the_server_takes_the_issued_one_and_its_own_until_then(tmp_path: Path) -> None:
    settings = Settings(node_name="edge-1", root_dir=tmp_path / "root", rotate_server_certificates=True)
    pair = IssuedPair(tmp_path / "root" / "pki", SERVING)
    assert server_certificate(settings, ["10.0.0.7"], 0.0).certificate.name == "server.pem"
    assert read_held(pair.current) is None
    certificate = put(pair, tmp_path)
    files = server_certificate(settings, ["10.0.0.7"], 0.0)
    assert files.certificate == files.key == pair.current
    assert certificate.strip() in files.certificate.read_bytes()
    held = read_held(pair.current)
    assert held is not None
    assert held.names == NAMES
    # A damaged one is no reason to be without any.
    pair.current.write_bytes(b"rubbish")
    assert server_certificate(settings, ["10.0.0.7"], 0.0).certificate.name == "server.pem"
    assert read_held(pair.current) is None


def test_it_is_not_asked_for_unless_wanted_nor_beside_a_given_one() -> None:
    wanted = Settings(node_name="n", rotate_server_certificates=True)
    assert wants_issued(wanted)
    assert not wants_issued(Settings(node_name="n"))
    assert not wants_issued(Settings(node_name="n", rotate_server_certificates=True, port=0))
    given = Settings(node_name="n", rotate_server_certificates=True, tls_cert_file=Path("/c"))
    assert not wants_issued(given)
