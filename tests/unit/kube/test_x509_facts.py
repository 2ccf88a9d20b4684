import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from agent.kube.x509_facts import certificates, public_key_hash, validity
from tests.unit.server.authority import Authority


def test_the_life_of_the_first_certificate_in_a_file(tmp_path: Path) -> None:
    pem = Authority().issue(tmp_path / "c.pem", "edge", days=400).read_bytes()
    told = x509.load_pem_x509_certificate(pem)
    assert validity(pem).begins == told.not_valid_before_utc.timestamp()
    assert validity(pem).ends == told.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2120])
def test_both_ways_in_which_a_certificate_writes_a_year(year: int) -> None:
    authority = Authority()
    end = datetime.datetime(year, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(authority.certificate.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(authority.certificate.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1985, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(end)
        .sign(authority._key, hashes.SHA256())
    )
    assert validity(made.public_bytes(serialization.Encoding.PEM)).ends == end.timestamp()


def test_the_hash_is_kubeadms() -> None:
    authority = Authority()
    key = authority.certificate.public_key()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert public_key_hash(certificates(authority.pem)[0]) == f"sha256:{digest.finalize().hex()}"


def test_every_certificate_of_a_bundle_is_found() -> None:
    assert len(certificates(Authority().pem + b"between\n" + Authority().pem)) == 2


@given(st.binary(max_size=200))
def test_rubbish_is_a_value_error_and_nothing_else(rubbish: bytes) -> None:
    for read in (lambda: public_key_hash(rubbish), lambda: validity(rubbish)):
        with pytest.raises(ValueError):  # noqa: PT011 - any words will do
            read()
    # A certificate that was cut or changed somewhere.
    der = certificates(PEM)[0]
    cut = der[: len(rubbish)] + rubbish
    with pytest.raises(ValueError):  # noqa: PT011
        public_key_hash(cut[: len(der) - 1])


PEM = Authority().pem
