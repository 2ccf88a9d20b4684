from pathlib import Path

import pytest

from agent.config import Settings
from agent.kube.pki import CLIENT, Issued, IssuedPair, folder_of
from tests.unit.server.authority import Authority

NOW = 1_800_000_000.0


def issued(folder: Path) -> Issued:
    pem = Authority().issue(folder / "made.pem", "edge").read_bytes()
    start = pem.index(b"-----BEGIN PRIVATE")
    return Issued(pem[:start], pem[start:])


@pytest.fixture
def pair(tmp_path: Path) -> IssuedPair:
    return IssuedPair(tmp_path / "pki", CLIENT)


def test_the_layout_is_a_kubelets(pair: IssuedPair, tmp_path: Path) -> None:
    pair.put(issued(tmp_path), NOW)
    assert pair.current == tmp_path / "pki" / "kubelet-client-current.pem"
    assert pair.current.is_symlink()
    assert pair.current.readlink().name.startswith("kubelet-client-2027-01-15-08-00-00")
    assert pair.current.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700


def test_the_newest_is_the_current_one_and_old_keys_go(pair: IssuedPair, tmp_path: Path) -> None:
    for number in range(5):
        last = issued(tmp_path)
        pair.put(last, NOW - number * 86400)  # whatever the clock says
        assert last.certificate.strip() in pair.current.read_bytes()
    assert len(list((tmp_path / "pki").iterdir())) == 3


def test_a_certificate_for_another_key_leaves_the_present_one_alone(pair: IssuedPair, tmp_path: Path) -> None:
    one, other = issued(tmp_path), issued(tmp_path)
    pair.put(one, NOW)
    with pytest.raises(ValueError, match="not for the key"):
        pair.put(Issued(other.certificate, one.key), NOW + 1)
    assert one.certificate.strip() in pair.current.read_bytes()
    assert len(list((tmp_path / "pki").iterdir())) == 2


def test_a_key_is_in_no_log(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(issued(tmp_path))


def test_certificates_lie_below_the_root_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert folder_of(Settings(node_name="n", root_dir=tmp_path)) == tmp_path / "pki"
    assert folder_of(Settings(node_name="n", root_dir=tmp_path, cert_dir=Path("/other"))) == Path("/other")
