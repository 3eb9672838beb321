"""The protocol of `xe`: what is encoded is decoded, in whatever pieces; what is no protocol is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire import cli
from domzero.wire.cli import Decoder, Message, ProtocolError, encode

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
COMMANDS = st.one_of(
    st.builds(lambda tag, a: Message(cli.COMMAND, tag, a), st.sampled_from([cli.PRINT, cli.LOAD, 15, 16, 17]), TEXTS),
    st.builds(lambda tag, a, b: Message(cli.COMMAND, tag, a, b), st.sampled_from([12, 13]), TEXTS, TEXTS),
    st.builds(lambda code: Message(cli.COMMAND, cli.EXIT, code), NUMBERS),
    st.builds(lambda code, of: Message(cli.COMMAND, cli.ERROR, code, tuple(of)), TEXTS, st.lists(TEXTS, max_size=5)),
    st.just(Message(cli.COMMAND, cli.PROMPT)),
    st.builds(lambda tag: Message(cli.RESPONSE, tag), st.sampled_from([cli.OK, cli.FAILED, cli.WAIT])),
    st.just(Message(cli.BLOB, cli.END)),
)  # fmt: skip


@given(st.lists(COMMANDS, max_size=8), st.data())
def test_what_is_encoded_comes_out_again_in_whatever_pieces(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, messages))
    decoder, found = Decoder(), list[object]()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        decoder.feed(stream[:size])
        stream = stream[size:]
        found += decoder.take()
    assert found == messages
    assert decoder.idle


@given(st.binary(max_size=200))
def test_rubbish_raises_nothing_but_the_protocols_error(rubbish: bytes) -> None:
    decoder = Decoder()
    decoder.feed(rubbish)
    try:
        list(decoder.take())
    except ProtocolError:
        return
    with pytest.raises(ProtocolError):
        cli.check_hello(rubbish)


@given(COMMANDS, st.data())
def test_a_damaged_message_raises_nothing_but_the_protocols_error(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    decoder = Decoder()
    decoder.feed(bytes(raw))
    try:
        found = list(decoder.take())
    except ProtocolError:
        return
    assert found != [message]


def test_raw_bytes_follow_a_chunk() -> None:
    decoder = Decoder()
    decoder.feed(cli.chunk(5) + b"he")
    assert list(decoder.take()) == [Message(cli.BLOB, cli.CHUNK, 5), b"he"]
    assert not decoder.idle
    decoder.feed(b"llo" + cli.end())
    assert list(decoder.take()) == [b"llo", Message(cli.BLOB, cli.END)]


def test_the_layout_is_that_of_the_classic_clients() -> None:
    assert cli.command(cli.PRINT, "é") == bytes.fromhex("0e000000 09000000 00000000 02000000 c3a9")
    assert cli.hello() == b"XenSource thin CLI protocol" + struct.pack("<ii", 0, 2)


def test_a_name_of_bytes_that_are_no_text_survives() -> None:
    name = b"\xff.xva".decode("utf-8", "surrogateescape")
    assert cli.decode(cli.command(cli.LOAD, name)[4:]).text() == name


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<i", -1),
        struct.pack("<i", 7),
        struct.pack("<i", cli.LONGEST_MESSAGE + 1),
        struct.pack("<iii", 8, 9, 99),
        struct.pack("<iiiii", 16, 9, 4, 0, 0),
        struct.pack("<iiiii", 16, 9, 14, 0, 2**30),
        struct.pack("<iiii", 12, 11, 7, -1),
        struct.pack("<iiii", 12, 9, 0, 1),
    ],
    ids=["negative", "no tag", "huge", "unknown", "overlong", "many texts", "negative chunk", "text beyond the end"],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    decoder = Decoder()
    decoder.feed(raw)
    with pytest.raises(ProtocolError):
        list(decoder.take())


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 404 Not Found\r\nconnect", struct.pack("<27sii", cli.PREFIX, 1, 0)])
def test_a_wrong_greeting_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        cli.check_hello(raw.ljust(cli.HELLO_SIZE) if raw else raw)


@pytest.mark.parametrize(
    "message", [Message(9, 99), Message(9, cli.PRINT), Message(9, cli.PRINT, "x" * (cli.LONGEST_MESSAGE + 1))]
)
def test_what_cannot_be_a_message_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match="message"):
        encode(message)


def test_a_message_of_another_kind_has_not_what_is_asked_for() -> None:
    with pytest.raises(ProtocolError):
        Message(cli.COMMAND, cli.PROMPT).text()
    with pytest.raises(ProtocolError):
        Message(cli.COMMAND, cli.PRINT, "x").number()
