"""NBD's client side against the letter of proto.md, written down here a second time, and against servers that lie."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.nbd import (
    CHUNK_LIMIT,
    LENGTH_LIMIT,
    RANGE_LIMIT,
    Command,
    Export,
    ExportFlag,
    Handshake,
    NbdError,
    Request,
    Transmission,
)

GREETING = b"NBDMAGICIHAVEOPT\0\x03"
DONE, DATA, HOLE, STATUS, ERROR = 1, 1, 2, 5, 0x8001


def option(number: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x0003E889045565A9, number, kind, len(data)) + data


ACCEPTED = (
    option(8, 1)
    + option(10, 4, b"\0\0\0\x07base:allocation")
    + option(10, 1)
    + option(7, 3, struct.pack(">HQH", 0, 1 << 40, 0x6D))
    + option(7, 3, struct.pack(">H3I", 3, 1, 4096, 1 << 25))
    + option(7, 1)
)


def chunk(cookie: int, kind: int, data: bytes = b"", flags: int = DONE) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data)) + data


def simple(cookie: int, error: int = 0) -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie)


def part(offset: int, data: bytes) -> bytes:
    return struct.pack(">Q", offset) + data


def said(text: bytes, error: int = 5) -> bytes:
    return struct.pack(">IH", error, len(text)) + text


def feed(transmission: Transmission, data: bytes) -> list[int]:
    """What is finished by these bytes; the last of them must end a part."""
    finished: list[int] = []
    rest = memoryview(data)
    while rest:
        wanted = transmission.wanted
        taken = min(len(wanted), len(rest))
        if taken < len(wanted):
            return finished
        wanted[:] = rest[:taken]
        rest = rest[taken:]
        cookie = transmission.filled()
        if cookie is not None:
            finished.append(cookie)
    return finished


def asked(command: Command, offset: int = 0, length: int = 0) -> tuple[Transmission, int, Request]:
    transmission = Transmission(Export(1 << 40, ExportFlag(0), 7))
    cookie, request, _ = transmission.request(command, offset, length)
    return transmission, cookie, request


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_handshake(size: int) -> None:
    handshake, sent = Handshake("disk"), b""
    stream = GREETING + ACCEPTED
    for start in range(0, len(stream), size):
        sent += handshake.receive(stream[start : start + size])
    assert handshake.export == Export(1 << 40, ExportFlag(0x6D), 7)
    assert ExportFlag.SEND_FLUSH in handshake.export.flags
    assert ExportFlag.READ_ONLY not in handshake.export.flags
    assert sent == (
        b"\0\0\0\x03"
        + b"IHAVEOPT\0\0\0\x08\0\0\0\0"
        + b"IHAVEOPT\0\0\0\x0a\0\0\0\x1f\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation"
        + b"IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x04disk\0\0"
    )


def test_a_server_that_cannot_tell_of_allocation() -> None:
    handshake = Handshake("disk")
    handshake.receive(GREETING + option(8, 1) + option(10, 1) + option(7, 3, struct.pack(">HQH", 0, 9, 1)))
    handshake.receive(option(7, 1))
    assert handshake.export == Export(9, ExportFlag(1), None)


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53" + bytes(16),
        GREETING[:-1] + b"\0",
        GREETING + option(8, (1 << 31) + 1, b"no structured replies"),
        GREETING + option(8, 3),
        GREETING + option(7, 1),
        GREETING + option(8, 1) + option(10, 1) + option(7, (1 << 31) + 6),
        GREETING + option(8, 1) + option(10, 1) + option(7, 1),
        GREETING + option(8, 1) + option(10, 1) + option(7, 3, struct.pack(">HQH", 0, 1 << 63, 0)),
        GREETING + option(8, 1) + option(10, 1) + option(7, 3, b"\0\0\0"),
        GREETING + option(8, 1) + b"".join([option(10, 4, b"\0\0\0\x09other")] * 65),
        GREETING + option(8, 1) + struct.pack(">QIII", 0x0003E889045565A9, 10, 4, 1 << 30),
        GREETING + ACCEPTED + b"more",
    ],
)
def test_handshakes_that_are_refused(stream: bytes) -> None:
    with pytest.raises(NbdError):
        Handshake("disk").receive(stream)


def test_the_heads_of_requests() -> None:
    transmission = Transmission(Export(1 << 40, ExportFlag(0), 7))
    for number, command in enumerate(Command, 1):
        cookie, _, head = transmission.request(command, 1 << 33, 512)
        assert cookie == number
        assert head == b"\x25\x60\x95\x13\0\0" + bytes((0, command)) + struct.pack(">QQI", number, 1 << 33, 512)
    for command, length in ((Command.READ, LENGTH_LIMIT + 1), (Command.WRITE, -1), (Command.TRIM, RANGE_LIMIT + 1)):
        with pytest.raises(ValueError, match="cannot be about"):
            transmission.request(command, 0, length)


def test_a_read_in_parts_and_out_of_order() -> None:
    transmission, cookie, request = asked(Command.READ, 1000, 10)
    other, second, _ = transmission.request(Command.READ, 0, 1)
    assert feed(transmission, chunk(cookie, DATA, part(1006, b"6789"), 0)) == []
    assert feed(transmission, chunk(other, DATA, part(0, b"x"))) == [other]
    assert second.data == b"x"
    assert feed(transmission, chunk(cookie, HOLE, struct.pack(">QI", 1003, 3), 0)) == []
    assert feed(transmission, chunk(cookie, DATA, part(1000, b"012"), 0)) == []
    assert feed(transmission, chunk(cookie, 0)) == [cookie]
    assert bytes(request.data) == b"012\0\0\x006789"
    assert request.error == 0


def test_writes_are_answered_simply_or_not() -> None:
    for reply in (simple(1), chunk(1, 0)):
        transmission, cookie, request = asked(Command.WRITE, 5, 5)
        assert feed(transmission, reply) == [cookie]
        assert request.error == 0


def test_extents() -> None:
    transmission, cookie, request = asked(Command.BLOCK_STATUS, 0, 4096)
    assert feed(transmission, chunk(1, STATUS, struct.pack(">5I", 7, 512, 0, 1 << 20, 3))) == [cookie]
    assert request.extents == [(512, 0), (1 << 20, 3)]


def test_errors() -> None:
    for command in (Command.READ, Command.WRITE, Command.BLOCK_STATUS):
        transmission, cookie, request = asked(command, 0, 512)
        assert feed(transmission, chunk(1, ERROR, said(b"no room", 28))) == [cookie]
        assert (request.error, request.message) == (28, "no room")
        transmission, cookie, request = asked(command, 0, 512)
        assert feed(transmission, simple(1, 5)) == [cookie]
        assert request.error == 5
    transmission, cookie, request = asked(Command.READ, 0, 512)
    stream = chunk(1, 0x8002, said(b"", 0) + bytes(8), 0) + chunk(1, 0)
    assert feed(transmission, stream) == [cookie]
    assert request.error == 5


def test_a_disconnect_is_not_answered() -> None:
    transmission, _, _ = asked(Command.DISCONNECT)
    with pytest.raises(NbdError):
        feed(transmission, simple(1))


@pytest.mark.parametrize(
    ("command", "stream"),
    [
        (Command.READ, b"rubbish rubbish rubbish"),
        (Command.READ, simple(1)),
        (Command.READ, chunk(2, DATA, part(1000, b"0123456789"))),
        (Command.READ, chunk(1, DATA, part(999, b"0123456789"))),
        (Command.READ, chunk(1, DATA, part(1001, b"0123456789"))),
        (Command.READ, chunk(1, DATA, part(1000, b"012345678"))),
        (Command.READ, chunk(1, DATA, part(1000, b""))),
        (Command.READ, chunk(1, DATA, b"short")),
        (Command.READ, struct.pack(">IHHQIQ", 0x668E33EF, 1, 1, 1, 0xFFFFFFFF, 1000)),
        (Command.READ, chunk(1, 0)),
        (Command.READ, chunk(1, 0, b"x")),
        (Command.READ, chunk(1, 77)),
        (Command.READ, chunk(1, STATUS, bytes(12))),
        (Command.READ, chunk(1, HOLE, struct.pack(">QI", 1000, 11))),
        (Command.READ, chunk(1, HOLE, struct.pack(">QI", 1000, 0))),
        (Command.READ, chunk(1, DATA, part(1000, b"01234"), 0) + chunk(1, DATA, part(1003, b"34567"))),
        (Command.READ, chunk(1, DATA, part(1000, b"x"), 0) * 11),
        (Command.READ, chunk(1, ERROR, b"\0\0\0\x05")),
        (Command.READ, chunk(1, ERROR, b"\0\0\0\x05\0\x09short")),
        (Command.READ, struct.pack(">IHHQI", 0x668E33EF, 1, ERROR, 1, CHUNK_LIMIT + 1)),
        (Command.WRITE, chunk(1, DATA, part(1000, b"0123456789"))),
        (Command.BLOCK_STATUS, simple(1)),
        (Command.BLOCK_STATUS, chunk(1, 0)),
        (Command.BLOCK_STATUS, chunk(1, STATUS, struct.pack(">3I", 8, 512, 0))),
        (Command.BLOCK_STATUS, chunk(1, STATUS, struct.pack(">3I", 7, 0, 0))),
        (Command.BLOCK_STATUS, chunk(1, STATUS, b"\0\0\0\x07")),
        (Command.BLOCK_STATUS, chunk(1, STATUS, struct.pack(">4I", 7, 512, 0, 1))),
        (Command.BLOCK_STATUS, chunk(1, STATUS, struct.pack(">3I", 7, 512, 0), 0) * 2),
        (Command.FLUSH, simple(1) + simple(1)),
    ],
)
def test_replies_that_are_refused(command: Command, stream: bytes) -> None:
    transmission, _, _ = asked(command, 1000, 0 if command is Command.FLUSH else 10)
    with pytest.raises(NbdError):
        feed(transmission, stream)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_rubbish_in_the_handshake(rubbish: bytes, good: int) -> None:
    """It is waited for, taken or refused; nothing else."""
    handshake = Handshake("disk")
    try:
        handshake.receive((GREETING + ACCEPTED)[:good] + rubbish)
    except NbdError:
        assert handshake.export is None or rubbish


CHUNKS = st.builds(
    chunk,
    st.integers(0, 3),
    st.sampled_from([0, DATA, HOLE, STATUS, ERROR, 0x8002, 99]),
    st.one_of(
        st.binary(max_size=40),
        st.builds(part, st.integers(990, 1020), st.binary(max_size=20)),
        st.builds(
            lambda offset, length: struct.pack(">QI", offset, length), st.integers(990, 1020), st.integers(0, 12)
        ),
        st.builds(lambda *numbers: struct.pack(">3I", *numbers), st.just(7), st.integers(0, 99), st.integers(0, 3)),
        st.builds(said, st.binary(max_size=9), st.integers(0, 200)),
    ),
    st.integers(0, 1),
)


@given(st.lists(st.one_of(CHUNKS, st.binary(max_size=30), st.builds(simple, st.integers(0, 3), st.integers(0, 9)))))
def test_rubbish_after_it(replies: list[bytes]) -> None:
    """What is finished without an error is whole; everything else is waited for or refused."""
    transmission, _, read = asked(Command.READ, 1000, 10)
    _, write, _ = transmission.request(Command.WRITE, 0, 10)
    _, status, _ = transmission.request(Command.BLOCK_STATUS, 0, 10)
    finished = []
    with suppress(NbdError):
        for reply in replies:
            finished += feed(transmission, reply)
    assert len(set(finished)) == len(finished)
    assert len(read.data) == 10
    for cookie, request in ((1, read), (2, write), (3, status)):
        if cookie in finished and not request.error:
            assert request.command is not Command.READ or sum(end - start for start, end in request.covered) == 10
            assert request.command is not Command.BLOCK_STATUS or request.extents
