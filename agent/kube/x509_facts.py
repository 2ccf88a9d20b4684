"""The few facts of a certificate that decisions need, read from its DER: how long it is good, and whose key it has.

In: PEM. Out: a `Validity` in Unix seconds, or the hash of the public key by which kubeadm pins a CA. Nothing is
verified here. Python's ssl shows neither of the two for a certificate that is no peer's, and `cryptography` costs
11 MiB for as long as the agent lives. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


class Validity(msgspec.Struct, frozen=True):
    """Unix seconds."""

    begins: float
    ends: float


def certificates(pem: bytes) -> list[bytes]:
    """The DER of each certificate in it, in order. Raises ValueError."""
    try:
        return [base64.b64decode(b"".join(block.split()), validate=True) for block in _BLOCK.findall(pem)]
    except binascii.Error as error:
        raise ValueError(f"not a PEM certificate: {error}") from error


def validity(pem: bytes) -> Validity:
    """Of the first certificate. Raises ValueError where there is none that can be read."""
    found = certificates(pem)
    if not found:
        raise ValueError("no PEM certificate in it")
    times = [_time(tag, content) for tag, content, _ in _parts(_fields(found[0])[3][1])]
    if len(times) != 2:
        raise ValueError("the certificate has no validity")
    return Validity(*times)


def public_key_hash(der: bytes) -> str:
    """`sha256:HEX` over the certificate's SubjectPublicKeyInfo. Raises ValueError."""
    return f"sha256:{hashlib.sha256(_fields(der)[5][2]).hexdigest()}"


def _fields(der: bytes) -> list[tuple[int, bytes, bytes]]:
    """The TBSCertificate's fields from serialNumber on: issuer is [2], validity [3], subject [4], public key [5]."""
    outer = list(_parts(der))
    inner = list(_parts(outer[0][1])) if outer and outer[0][0] == _SEQUENCE else []
    fields = list(_parts(inner[0][1])) if inner else []
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    if len(fields) < 6:
        raise ValueError("not an X.509 certificate")
    return fields


def _parts(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, content and the whole of each element (RFC 5280 needs no tags above 30)."""
    place = 0
    while place < len(content):
        if place + 2 > len(content):
            raise ValueError("the certificate is cut short")
        tag, length, start = content[place], content[place + 1], place + 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(content[start : start + octets], "big")
            start += octets
        end = start + length
        if end > len(content):
            raise ValueError("the certificate is cut short")
        yield tag, content[start:end], content[place:end]
        place = end


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("the certificate's validity is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
