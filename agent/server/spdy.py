"""SPDY/3.1 framing, as far as Kubernetes' streaming uses it. Pure: bytes to frames and back, no I/O.

In: bytes as they come, cut anywhere. Out: frames; a data frame's payload is handed on in the pieces in which it came,
so nothing large is ever held. Flow control is not part of it: Kubernetes' clients and servers know no windows.
No maintained library speaks SPDY any more; the format is fixed for ever (draft-mbelshe-httpbis-spdy-00 and its 3.1).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from enum import IntEnum

import msgspec

CONTROL_LIMIT = 64 * 1024
"""Of one control frame, and of its headers when inflated."""
DATA_LIMIT = 2**24 - 1
_FIN = 0x01
_CONTROL = 0x80000000
_ID = 0x7FFFFFFF
_VERSION = 3

_DICTIONARY_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base content-encoding "
    "content-language content-length content-location content-md5 content-range content-type date etag "
    "expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since "
    "last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer "
    "retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate "
    "method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
_DICTIONARY_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Au"
    "thoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidd"
    "en404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr Ma"
    "y Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,imag"
    "e/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicpri"
    "vatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


DICTIONARY = (
    b"".join(_sized(word.replace("_", " ").encode()) for word in _DICTIONARY_WORDS.split()) + _DICTIONARY_REST.encode()
)
"""What both sides' header compression starts from; its Adler-32, 0xE3C6A7C2, is on the wire."""


class ProtocolError(Exception):
    """These bytes are not SPDY: the connection cannot go on."""


class ResetStatus(IntEnum):
    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


class _Kind(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    PING = 6
    GO_AWAY = 7
    HEADERS = 8


class SynStream(msgspec.Struct, frozen=True):
    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


class SynReply(msgspec.Struct, frozen=True):
    stream_id: int
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    fin: bool = False


class Headers(msgspec.Struct, frozen=True):
    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


class RstStream(msgspec.Struct, frozen=True):
    stream_id: int
    status: int


class Ping(msgspec.Struct, frozen=True):
    ping_id: int


class GoAway(msgspec.Struct, frozen=True):
    last_stream_id: int
    status: int = 0


class Data(msgspec.Struct, frozen=True):
    stream_id: int
    payload: bytes
    fin: bool = False


Frame = SynStream | SynReply | Headers | RstStream | Ping | GoAway | Data


class Encoder:
    """One for each connection: header compression remembers what went before, so frames must be sent in order."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream_id, payload, fin):
                if len(payload) > DATA_LIMIT:
                    raise ValueError(f"{len(payload)} bytes do not fit a data frame")
                return struct.pack(">II", stream_id, _flags(fin) | len(payload)) + payload
            case SynStream(stream_id, headers, fin):
                body = struct.pack(">IIH", stream_id, 0, 0) + self._block(headers)
                return _control(_Kind.SYN_STREAM, body, fin)
            case SynReply(stream_id, headers, fin):
                return _control(_Kind.SYN_REPLY, struct.pack(">I", stream_id) + self._block(headers), fin)
            case Headers(stream_id, headers, fin):
                return _control(_Kind.HEADERS, struct.pack(">I", stream_id) + self._block(headers), fin)
            case RstStream(stream_id, status):
                return _control(_Kind.RST_STREAM, struct.pack(">II", stream_id, status))
            case Ping(ping_id):
                return _control(_Kind.PING, struct.pack(">I", ping_id))
            case GoAway(last_stream_id, status):
                return _control(_Kind.GO_AWAY, struct.pack(">II", last_stream_id, status))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            parts += (_sized(name.lower().encode()), _sized(value.encode()))
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


class Decoder:
    """One for each connection. After a ProtocolError it is of no more use."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._data: tuple[int, bool] | None = None
        self._data_left = 0

    def feed(self, received: bytes) -> Iterator[Frame]:
        """The frames that are complete now; consume them all before feeding more. Raises ProtocolError."""
        self._buffer += received
        while (frame := self._next()) is not None:
            if not isinstance(frame, _Skipped):
                yield frame

    def _next(self) -> Frame | _Skipped | None:
        if self._data is not None:
            return self._payload(*self._data)
        if len(self._buffer) < 8:
            return None
        first, second = struct.unpack_from(">II", self._buffer)
        is_fin, length = bool(second >> 24 & _FIN), second & DATA_LIMIT
        if not first & _CONTROL:
            del self._buffer[:8]
            self._data, self._data_left = (first, is_fin), length
            return self._payload(first, is_fin)
        if first >> 16 & 0x7FFF != _VERSION:
            raise ProtocolError(f"version {first >> 16 & 0x7FFF}, not {_VERSION}")
        if length > CONTROL_LIMIT:
            raise ProtocolError(f"a control frame of {length} bytes")
        if len(self._buffer) < 8 + length:
            return None
        body = bytes(self._buffer[8 : 8 + length])
        del self._buffer[: 8 + length]
        try:
            return self._control(first & 0xFFFF, body, is_fin)
        except struct.error as error:
            raise ProtocolError(f"a control frame of kind {first & 0xFFFF} is too short") from error

    def _payload(self, stream_id: int, fin: bool) -> Frame | None:
        if not self._buffer and self._data_left:
            return None
        piece = bytes(self._buffer[: self._data_left])
        del self._buffer[: len(piece)]
        self._data_left -= len(piece)
        if self._data_left:
            return Data(stream_id, piece)
        self._data = None
        return Data(stream_id, piece, fin)

    def _control(self, kind: int, body: bytes, fin: bool) -> Frame | _Skipped:
        match kind:
            case _Kind.SYN_STREAM:
                (stream_id,) = struct.unpack_from(">I6x", body)
                return SynStream(stream_id & _ID, self._headers(body[10:]), fin)
            case _Kind.SYN_REPLY:
                return SynReply(*self._with_headers(body), fin)
            case _Kind.HEADERS:
                return Headers(*self._with_headers(body), fin)
            case _Kind.RST_STREAM:
                stream_id, status = struct.unpack_from(">II", body)
                return RstStream(stream_id & _ID, status)
            case _Kind.PING:
                return Ping(*struct.unpack_from(">I", body))
            case _Kind.GO_AWAY:
                last, status = struct.unpack_from(">II", body)
                return GoAway(last & _ID, status)
            case _:
                return _Skipped()  # SETTINGS, WINDOW_UPDATE and what is newer ask nothing of us

    def _with_headers(self, body: bytes) -> tuple[int, Mapping[str, str]]:
        (stream_id,) = struct.unpack_from(">I", body)
        return stream_id & _ID, self._headers(body[4:])

    def _headers(self, block: bytes) -> Mapping[str, str]:
        try:
            plain = self._inflate.decompress(block, CONTROL_LIMIT)
        except zlib.error as error:
            raise ProtocolError("headers cannot be inflated") from error
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"headers of more than {CONTROL_LIMIT} bytes")
        try:
            return _pairs(plain)
        except (struct.error, UnicodeDecodeError) as error:
            raise ProtocolError("headers are cut off") from error


class _Skipped:
    pass


def _pairs(plain: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", plain)
    at, texts = 4, list[str]()
    for _ in range(2 * count):
        (size,) = struct.unpack_from(">I", plain, at)
        at += 4 + size
        if at > len(plain):
            raise struct.error
        texts.append(plain[at - size : at].decode())
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _flags(fin: bool) -> int:
    return _FIN << 24 if fin else 0


def _control(kind: _Kind, body: bytes, fin: bool = False) -> bytes:
    return struct.pack(">II", _CONTROL | _VERSION << 16 | kind, _flags(fin) | len(body)) + body
