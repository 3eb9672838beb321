"""The codec of xenstore messages, with hand-written bytes and with garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire import xenstore as wire
from domzero.wire.xenstore import (
    Access,
    Decoder,
    FramingError,
    Message,
    Operation,
    Permission,
    XenstoreError,
    ancestors,
    encode,
)

MESSAGES = st.lists(
    st.builds(
        Message,
        st.integers(0, 0xFFFF),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=200),
    ),
    max_size=8,
)


def test_a_message_is_four_words_and_a_payload() -> None:
    assert encode(Operation.READ, 7, 9, b"/a\0") == struct.pack("=IIII", 2, 7, 9, 3) + b"/a\0"


@given(MESSAGES, st.lists(st.integers(0, 2000)))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[Message], cuts: list[int]) -> None:
    stream = b"".join(encode(*message) for message in messages)
    decoder, found, begin = Decoder(), [], 0
    for end in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]:
        decoder.feed(stream[begin:end])
        begin = end
        while (message := decoder.next()) is not None:
            found.append(message)
    assert found == messages
    assert decoder.waiting == 0


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_garbage_is_cut_or_refused_and_never_more_than_was_sent(pieces: list[bytes]) -> None:
    decoder, taken = Decoder(), 0
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (message := decoder.next()) is not None:
                assert len(message.payload) <= wire.PAYLOAD_MAX
                taken += wire.HEADER_SIZE + len(message.payload)
            assert decoder.waiting < wire.HEADER_SIZE + wire.PAYLOAD_MAX
    except FramingError:
        with pytest.raises(FramingError):
            decoder.next()
        return
    assert taken + decoder.waiting == sum(map(len, pieces))


def test_a_longer_message_than_may_be_is_refused_before_it_has_come() -> None:
    decoder = Decoder()
    decoder.feed(struct.pack("=IIII", 2, 0, 0, wire.PAYLOAD_MAX + 1))
    with pytest.raises(FramingError):
        decoder.next()


def test_a_payload_that_cannot_be_sent_is_an_error_of_the_protocol() -> None:
    assert len(encode(Operation.READ, 0, 0, bytes(wire.PAYLOAD_MAX))) == wire.HEADER_SIZE + wire.PAYLOAD_MAX
    with pytest.raises(XenstoreError, match="E2BIG"):
        encode(Operation.READ, 0, 0, bytes(wire.PAYLOAD_MAX + 1))


@pytest.mark.parametrize("payload", [b"", b"a", b"a\0b", b"a\0b\0"])
def test_what_is_not_one_string_is_invalid(payload: bytes) -> None:
    with pytest.raises(XenstoreError, match="EINVAL"):
        wire.text(payload)


def test_strings_are_told_apart_by_what_ends_them() -> None:
    assert wire.text(b"\0") == b""
    assert wire.texts(b"a\0\0", 2) == [b"a", b""]
    assert wire.text_and_rest(b"/a\0va\0lue") == (b"/a", b"va\0lue")
    for payload in (b"a\0b", b"a\0", b"a\0b\0c\0", b""):
        with pytest.raises(XenstoreError, match="EINVAL"):
            wire.texts(payload, 2)
    with pytest.raises(XenstoreError, match="EINVAL"):
        wire.text_and_rest(b"no end")


@pytest.mark.parametrize(
    ("given_path", "meant"),
    [
        (b"/", "/"),
        (b"/a", "/a"),
        (b"/a-b_C9/@x", "/a-b_C9/@x"),
        (b"data/x", "/local/domain/3/data/x"),
        (b"/" + b"p" * 3071, "/" + "p" * 3071),
    ],
)
def test_paths(given_path: bytes, meant: str) -> None:
    assert wire.absolute(given_path, wire.home(3)) == meant


@pytest.mark.parametrize(
    "path",
    [
        b"", b"//", b"/a/", b"/a//b", b"a/", b"/a b", b"/a\xff", b"/a\n", b"/\xc3\xa9", b"/a.b", b"/..", b"@a", b"a//b",
        b"/" + b"p" * 3072, b"p" * 2049,
    ],
)  # fmt: skip
def test_paths_that_cannot_be(path: bytes) -> None:
    with pytest.raises(XenstoreError, match="EINVAL"):
        wire.absolute(path, wire.home(3))


@given(st.binary(max_size=40))
def test_a_path_that_is_accepted_is_made_of_what_is_permitted(path: bytes) -> None:
    try:
        found = wire.absolute(path, wire.home(3))
    except XenstoreError:
        return
    assert found == "/" or all(name and name.replace("-", "a").replace("_", "a").replace("@", "a").isalnum()
                               for name in found[1:].split("/"))  # fmt: skip
    assert found.isascii()


def test_ancestors_are_all_above_and_the_path_itself() -> None:
    assert ancestors("/") == ["/"]
    assert ancestors("/a") == ["/", "/a"]
    assert ancestors("/a/bc/d") == ["/", "/a", "/a/bc", "/a/bc/d"]
    assert ancestors("@releaseDomain")[-1] == "@releaseDomain"


def test_permissions_are_a_letter_and_a_domain() -> None:
    permissions = (Permission(0, Access.NONE), Permission(5, Access.BOTH), Permission(32751, Access.WRITE))
    assert wire.encode_permissions(permissions) == b"n0\0b5\0w32751\0"
    assert wire.decode_permissions([b"n0", b"b5", b"w32751"]) == permissions


@pytest.mark.parametrize(
    "parts", [[], [b""], [b"n"], [b"x1"], [b"n-1"], [b"n1 "], [b"r32752"], [b"r999999"], [b"n1", b""]]
)
def test_permissions_that_cannot_be(parts: list[bytes]) -> None:
    with pytest.raises(XenstoreError, match="EINVAL"):
        wire.decode_permissions(parts)


@pytest.mark.parametrize("domid", [b"", b"-1", b"1.5", b"x", b"32752", b"99999999999999999999999", b" 1"])
def test_domains_that_cannot_be(domid: bytes) -> None:
    with pytest.raises(XenstoreError, match="EINVAL"):
        wire.domain_id(domid)
