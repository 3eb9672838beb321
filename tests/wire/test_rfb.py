"""RFB, both sides: against each other, against the letter of the RFC, and against rubbish."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.rfb import TRUE_COLOUR, Key, PixelFormat, Rectangle, RfbError, RfbServer, UpdateRequest
from domzero.wire.rfb_picture import PictureReader

PALETTE = ((0, 0, 0), (255, 0, 0), (255, 255, 255))
PIXELS = bytes(at % 3 for at in range(6 * 4))


def server(version: bytes = b"RFB 003.008\n") -> RfbServer:
    """One whose handshake is over."""
    server = RfbServer(6, 4, "toy", PALETTE)
    server.receive(version)
    if version not in (b"RFB 003.003\n", b"RFB 003.005\n"):
        server.receive(b"\x01")
    server.receive(b"\x00")
    assert server.is_running
    server.output()
    return server


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (b"RFB 003.003\n", b"\0\0\0\x01"),
        (b"RFB 003.005\n", b"\0\0\0\x01"),
        (b"RFB 003.007\n", b"\x01\x01"),
        (b"RFB 003.008\n", b"\x01\x01\0\0\0\0"),
        (b"RFB 003.889\n", b"\x01\x01\0\0\0\0"),
        (b"RFB 004.001\n", b"\x01\x01\0\0\0\0"),
    ],
)
def test_versions(version: bytes, said: bytes) -> None:
    server = RfbServer(6, 4, "toy", PALETTE)
    output = server.output()
    for byte in version:
        server.receive(bytes((byte,)))
    if said.startswith(b"\x01"):
        server.receive(b"\x01")
    server.receive(b"\x01")
    init = struct.pack(">HH", 6, 4) + TRUE_COLOUR.packed() + b"\0\0\0\x03toy"
    assert output + server.output() == b"RFB 003.008\n" + said + init


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n", b"RFB 003.008 ", b"RFB 002.000\n", b"RFB xxx.yyy\n"])
def test_others_are_refused(rubbish: bytes) -> None:
    with pytest.raises(RfbError):
        RfbServer(6, 4, "toy", PALETTE).receive(rubbish)


def test_only_what_was_offered_can_be_chosen() -> None:
    server = RfbServer(6, 4, "toy", PALETTE)
    server.receive(b"RFB 003.008\n")
    with pytest.raises(RfbError):
        server.receive(b"\x02")


def test_messages() -> None:
    sent = (
        struct.pack(">BxHii", 2, 2, 0, -239)
        + struct.pack(">BBHHHH", 3, 1, 1, 2, 3, 4)
        + struct.pack(">B?xxI", 4, True, 0xFF0D)
        + struct.pack(">BBHH", 5, 1, 10, 20)
        + struct.pack(">B3xI", 6, 5) + b"paste"
        + struct.pack(">B?xxI", 4, False, 0x61)
    )  # fmt: skip
    expected = [UpdateRequest(True, 1, 2, 3, 4), Key(True, 0xFF0D), Key(False, 0x61)]
    assert server().receive(sent) == expected
    piecemeal = server()
    assert [message for byte in sent for message in piecemeal.receive(bytes((byte,)))] == expected


@pytest.mark.parametrize(
    "message",
    [
        b"\x01",
        b"\xff",
        struct.pack(">B3xI", 6, 1 << 30),
        b"\0\0\0\0" + struct.pack(">BBBBHHHBBB3x", 24, 24, 0, 1, 255, 255, 255, 0, 8, 16),
        b"\0\0\0\0" + struct.pack(">BBBBHHHBBB3x", 8, 8, 0, 1, 7, 7, 3, 0, 200, 6),
    ],
)
def test_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(RfbError):
        server().receive(message)


@pytest.mark.parametrize(
    ("format", "red"),
    [
        (PixelFormat(32, 24, False, True, (255, 255, 255), (16, 8, 0)), b"\0\0\xff\0"),
        (PixelFormat(32, 24, True, True, (255, 255, 255), (16, 8, 0)), b"\0\xff\0\0"),
        (PixelFormat(16, 16, False, True, (31, 63, 31), (11, 5, 0)), b"\0\xf8"),
        (PixelFormat(8, 8, False, True, (7, 7, 3), (0, 3, 6)), b"\x07"),
        (PixelFormat(8, 8, False, False, (0, 0, 0), (0, 0, 0)), b"\x01"),
    ],
)
def test_formats_of_pixels(format: PixelFormat, red: bytes) -> None:
    viewed = server()
    viewed.receive(b"\0\0\0\0" + format.packed())
    colours = viewed.output()
    assert bool(colours) is not format.true_colour
    viewed.send([Rectangle(2, 1, 1, 1, b"\x01")])
    assert viewed.output() == struct.pack(">BxHHHHHi", 0, 1, 2, 1, 1, 1, 0) + red


def test_a_viewer_that_changes_its_mind_without_end_costs_nothing() -> None:
    """Each of these messages asks for all the palette's colours, and to have them made into pixels."""
    viewed = RfbServer(6, 4, "toy", [(0, 0, 0)] * 256)
    viewed.receive(b"RFB 003.003\n\x01")
    viewed.output()
    viewed.receive((b"\0\0\0\0" + PixelFormat(8, 8, False, False, (0, 0, 0), (0, 0, 0)).packed()) * 3000)
    assert len(viewed.output()) == 6 + 6 * 256
    assert viewed.output() == b""


def test_colours_come_before_what_is_painted_with_them() -> None:
    viewed = server()
    for format in (PixelFormat(8, 8, False, False, (0, 0, 0), (0, 0, 0)), TRUE_COLOUR):
        viewed.receive(b"\0\0\0\0" + format.packed())
        viewed.send([Rectangle(0, 0, 1, 1, b"\x01")])
    told = struct.pack(">BxHH", 1, 0, 3) + struct.pack(">9H", *(level * 257 for colour in PALETTE for level in colour))
    painted = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 1, 1, 0)
    assert viewed.output() == told + painted + b"\x01" + painted + b"\0\0\xff\0"


def test_a_picture() -> None:
    viewed, reader = RfbServer(6, 4, "toy", PALETTE), PictureReader()
    for _ in range(10):
        for message in viewed.receive(reader.output()):
            assert message == UpdateRequest(False, 0, 0, 6, 4)
            viewed.ring()
            viewed.send([Rectangle(0, 0, 6, 1, PIXELS[:6]), Rectangle(0, 1, 6, 3, PIXELS[6:])])
        for byte in viewed.output():
            reader.receive(bytes((byte,)))
    assert reader.picture is not None
    assert (reader.picture.width, reader.picture.height) == (6, 4)
    assert reader.picture.pixels == b"".join(bytes(PALETTE[index]) + b"\0" for index in PIXELS)


AGREED = b"RFB 003.008\n\x01\x01\0\0\0\0"


@pytest.mark.parametrize(
    "said",
    [
        b"RFB 003.003\n",
        b"RFB 003.008\n\0",
        b"RFB 003.008\n\x01\x02",
        b"RFB 003.008\n\x01\x01\0\0\0\x01",
        AGREED + struct.pack(">HH16xI", 60000, 60000, 0),
        AGREED + struct.pack(">HH16xI", 0, 5, 0),
        AGREED + struct.pack(">HH16xI", 5, 5, 1 << 31),
        AGREED + struct.pack(">HH16xI", 5, 5, 0) + struct.pack(">BxHHHHHi", 0, 1, 4, 4, 2, 2, 0),
        AGREED + struct.pack(">HH16xI", 5, 5, 0) + struct.pack(">BxHHHHHi", 0, 1, 0, 0, 5, 5, 7),
        AGREED + struct.pack(">HH16xI", 5, 5, 0) + b"\x09",
    ],
)
def test_servers_that_are_not_believed(said: bytes) -> None:
    with pytest.raises(RfbError):
        PictureReader().receive(said)


@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_rubbish_for_a_server(pieces: list[bytes], greeted: bool) -> None:
    viewed = server() if greeted else RfbServer(6, 4, "toy", PALETTE)
    try:
        for piece in pieces:
            viewed.receive(piece)
            viewed.output()
    except RfbError:
        return


@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_rubbish_for_a_reader(pieces: list[bytes], greeted: bool) -> None:
    reader = PictureReader()
    try:
        if greeted:
            reader.receive(AGREED + struct.pack(">HH16xI", 5, 5, 0))
        for piece in pieces:
            reader.receive(piece)
            assert len(reader.output()) < 1 << 16
    except RfbError:
        return
