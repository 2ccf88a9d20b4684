import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.server.spdy import (
    CONTROL_LIMIT,
    DICTIONARY,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    ProtocolError,
    RstStream,
    SynReply,
    SynStream,
)

ids = st.integers(1, 2**31 - 1)
words = st.integers(0, 2**32 - 1)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(str.lower)
headers = st.dictionaries(names, st.text(max_size=40), max_size=5)
frames = st.one_of(
    st.builds(SynStream, ids, headers, st.booleans()),
    st.builds(SynReply, ids, headers, st.booleans()),
    st.builds(Headers, ids, headers, st.booleans()),
    st.builds(RstStream, ids, words),
    st.builds(Ping, words),
    st.builds(GoAway, ids, words),
    st.builds(Data, ids, st.binary(max_size=300), st.booleans()),
)


def joined(read: list[Frame]) -> list[Frame]:
    """With the pieces of each data frame put together."""
    whole: list[Frame] = []
    in_parts = False
    for frame in read:
        last = whole[-1] if whole else None
        if in_parts and isinstance(frame, Data) and isinstance(last, Data):
            whole[-1] = Data(frame.stream_id, last.payload + frame.payload, frame.fin)
        else:
            whole.append(frame)
        in_parts = isinstance(frame, Data) and not frame.fin
    return whole


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 60), min_size=1))
def test_frames_survive_the_wire_cut_anywhere(sent: list[Frame], cuts: list[int]) -> None:
    sent = [Data(f.stream_id, f.payload, fin=True) if isinstance(f, Data) else f for f in sent]
    encoder, decoder = Encoder(), Decoder()
    wire = b"".join(encoder.encode(frame) for frame in sent)
    read: list[Frame] = []
    at, turn = 0, 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        read += decoder.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    assert joined(read) == sent


@given(st.binary(max_size=200))
def test_noise_is_frames_or_a_protocol_error_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(Decoder().feed(noise))


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_damaged_wire_is_frames_or_a_protocol_error_and_nothing_else(sent: list[Frame], data: st.DataObject) -> None:
    encoder = Encoder()
    wire = bytearray(b"".join(encoder.encode(frame) for frame in sent))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        list(Decoder().feed(bytes(wire)))


def test_the_dictionary_is_the_one_that_every_other_implementation_has() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_an_unfinished_data_frame_is_handed_on_in_pieces() -> None:
    wire = Encoder().encode(Data(1, b"x" * 1000, fin=True))
    decoder = Decoder()
    assert list(decoder.feed(wire[:500])) == [Data(1, b"x" * 492)]
    assert list(decoder.feed(wire[500:])) == [Data(1, b"x" * 508, fin=True)]


def test_headers_that_inflate_without_end_are_refused() -> None:
    wire = Encoder().encode(SynStream(1, {"a": "x" * 10 * CONTROL_LIMIT}))
    assert len(wire) < CONTROL_LIMIT
    with pytest.raises(ProtocolError, match="more than 65536 bytes"):
        list(Decoder().feed(wire))


def test_settings_and_window_updates_are_passed_over() -> None:
    settings = bytes.fromhex("80030004 00000004 00000000")
    window = bytes.fromhex("80030009 00000008 00000001 00010000")
    ping = Encoder().encode(Ping(7))
    assert list(Decoder().feed(settings + window + ping)) == [Ping(7)]


def test_a_frame_as_another_implementation_made_it_is_understood() -> None:
    """SYN_STREAM of stream 1 with streamtype: error, compressed by plain zlib from the dictionary."""
    deflate = zlib.compressobj(zdict=DICTIONARY)
    plain = bytes.fromhex("00000001 0000000a") + b"streamtype" + bytes.fromhex("00000005") + b"error"
    block = deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
    length = (10 + len(block)).to_bytes(3, "big")
    wire = bytes.fromhex("80030001 01") + length + bytes.fromhex("00000001 00000000 0000") + block
    assert list(Decoder().feed(wire)) == [SynStream(1, {"streamtype": "error"}, fin=True)]
