"""The server's side of WebSockets against the library's own client, and against rubbish."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from domzero.wire.http import HttpError, parse_head
from domzero.wire.websocket import GOING_AWAY, LARGEST_MESSAGE, WebSocket

HEAD = (
    b"GET /console?ref=x HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Cookie: session_id=secret\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def opened(extra: bytes = b"") -> WebSocket:
    socket = WebSocket(parse_head(HEAD + extra + b"\r\n"))
    socket.output()
    return socket


def masked(opcode: int, data: bytes, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin=fin).serialize(mask=True)


def test_the_handshake_of_the_rfc() -> None:
    answer = WebSocket(parse_head(HEAD + b"\r\n")).output()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer, "RFC 6455, section 1.3"
    assert b"Sec-WebSocket-Protocol" not in answer


@pytest.mark.parametrize("offered", ["binary", "base64, binary", "base64", "chat"])
def test_subprotocols(offered: str) -> None:
    answer = WebSocket(parse_head(HEAD + f"Sec-WebSocket-Protocol: {offered}\r\n\r\n".encode())).output()
    assert (b"Sec-WebSocket-Protocol: binary\r\n" in answer) is ("binary" in offered)


def test_a_conversation_with_another_implementation() -> None:
    client = ClientProtocol(parse_uri("wss://here/console?ref=x"), subprotocols=[Subprotocol("binary")])
    client.send_request(client.connect())
    server = WebSocket(parse_head(b"".join(client.data_to_send())))
    client.receive_data(server.output())
    client.events_received()
    client.send_binary(b"first ")
    client.send_text(b"second ")
    client.send_binary(b"third", fin=False)
    client.send_continuation(b" and fourth", fin=True)
    assert server.receive(b"".join(client.data_to_send())) == b"first second third and fourth"
    server.send(b"x" * 100_000)
    server.close(GOING_AWAY)
    client.receive_data(server.output())
    events = client.events_received()
    assert isinstance(events[0], Frame)
    assert events[0].data == b"x" * 100_000
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == GOING_AWAY


def test_piece_by_piece() -> None:
    socket = opened()
    received = b"".join(
        socket.receive(bytes((byte,))) for byte in masked(2, b"hello") + masked(9, b"?") + masked(1, b"!")
    )
    assert received == b"hello!"
    assert socket.output() == b"\x8a\x01?"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\x05hello", 1002),
        (b"\xf2" + masked(2, b"x")[1:], 1002),
        (b"\x83" + masked(2, b"x")[1:], 1002),
        (masked(0, b"x"), 1002),
        (b"\x89\xfe\x01\x00" + bytes(4 + 256), 1002),
        (b"\x82\xff" + struct.pack(">Q", LARGEST_MESSAGE + 1) + b"mask", 1009),
    ],
    ids=["unmasked", "reserved bits", "unknown kind", "nothing to continue", "long control", "too long"],
)
def test_frames_that_are_none(sent: bytes, code: int) -> None:
    socket = opened()
    assert socket.receive(sent) == b""
    assert socket.over
    assert struct.pack(">H", code) in socket.output()
    assert socket.receive(masked(2, b"more")) == b"", "nothing counts after that"


def test_the_end_of_the_connection() -> None:
    socket = opened()
    assert socket.receive(b"") == b""
    assert socket.over
    socket.close(GOING_AWAY)
    socket.output()


@pytest.mark.parametrize("missing", [b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Connection"])
def test_handshakes_that_are_none(missing: bytes) -> None:
    lines = [line for line in HEAD.split(b"\r\n") if not line.startswith(missing)]
    with pytest.raises(HttpError, match="400"):
        WebSocket(parse_head(b"\r\n".join(lines) + b"\r\n"))


def test_http_1_0_has_no_web_sockets() -> None:
    with pytest.raises(HttpError, match="400"):
        WebSocket(parse_head(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n"))


NAMES = ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
         "Sec-WebSocket-Extensions", "Origin", "Host"]  # fmt: skip
SAID = st.one_of(
    st.sampled_from(
        ["websocket", "Upgrade", "13", "binary", "dGhlIHNhbXBsZSBub25jZQ==", "permessage-deflate", '"', ","]
    ),
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=8),
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(NAMES), SAID), max_size=8), st.booleans())
def test_handshakes_of_rubbish_are_answered_or_refused(headers: list[tuple[str, str]], framed: bool) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
    try:
        answer = WebSocket(parse_head((HEAD if framed else b"GET / HTTP/1.1\r\n") + lines + b"\r\n")).output()
    except HttpError as error:
        answer = b"%d" % error.status
    assert answer.startswith((b"400", b"HTTP/1.1 101 "))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_rubbish(pieces: list[bytes]) -> None:
    socket = opened()
    for piece in pieces:
        socket.receive(piece)
        socket.output()
    socket.close(GOING_AWAY)
    socket.output()
