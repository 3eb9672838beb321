"""The connection to an NBD server that says nothing, rubbish, too much, or goes away."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest

from domzero.host.contents.nbd import Connection
from domzero.host.contents.protocol import ContentError
from tests.wire.test_nbd import ACCEPTED, DATA, GREETING, chunk, part

OPENED = GREETING + ACCEPTED


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


async def opened(pair: Pair) -> Connection:
    pair[1].sendall(OPENED)
    connection = Connection(pair[0], 20)
    assert (await connection.open("disk")).size == 1 << 40
    await asyncio.get_running_loop().sock_recv(pair[1], 1000)
    return connection


@pytest.mark.parametrize(
    ("stream", "patience", "said"),
    [(b"", 0.1, "not open within"), (b"rubbish" * 5, 20, "no NBD server"), (OPENED[:-1], 0.1, "not open within")],
)
async def test_handshakes(stream: bytes, patience: float, said: str, pair: Pair) -> None:
    pair[1].sendall(stream)
    connection = Connection(pair[0], patience)
    with pytest.raises(ContentError, match=said):
        await connection.open("disk")
    connection.close()


async def test_it_goes_away_in_the_handshake(pair: Pair) -> None:
    pair[1].sendall(GREETING)
    pair[1].shutdown(socket.SHUT_WR)
    connection = Connection(pair[0], 20)
    with pytest.raises(ContentError, match="ended before the disk was open"):
        await connection.open("disk")
    connection.close()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda peer: peer.close(), "lost"),
        (lambda peer: peer.sendall(bytes(100)), "no reply"),
        (lambda peer: peer.sendall(chunk(1, DATA, part(0, b"x" * 11))), "nobody asked for"),
        (lambda peer: peer.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 5, 1, 1 << 31)), "nobody asked for"),
        (lambda peer: peer.sendall(chunk(1, DATA, part(0, b"x" * 9))[:-1]), "did not answer"),
    ],
)
async def test_replies(act: Callable[[socket.socket], None], said: str, pair: Pair) -> None:
    """Everybody who waits is told, and so is everybody who comes later."""
    connection = await opened(pair)
    if said == "did not answer":
        connection._patience = 0.2
    waiting: list[Awaitable[object]] = [connection.read(0, 10), connection.write(5, b"x"), connection.extents(0, 512)]
    tasks = [asyncio.ensure_future(each) for each in waiting]
    await asyncio.sleep(0.01)
    act(pair[1])
    for task in tasks:
        with pytest.raises(ContentError, match=said):
            await task
    with pytest.raises(ContentError, match=said):
        await connection.flush()
    connection.close()


async def test_a_server_that_takes_little_at_a_time(pair: Pair) -> None:
    """What does not fit into the socket is sent later, in order."""
    connection = await opened(pair)
    block = bytes(range(256)) * 8192
    writes = [asyncio.ensure_future(connection.write(n, block)) for n in range(4)]
    received, loop = bytearray(), asyncio.get_running_loop()
    while len(received) < 4 * (28 + len(block)):
        received += await loop.sock_recv(pair[1], 100_000)
    for n in range(4):
        request = received[n * (28 + len(block)) :][: 28 + len(block)]
        assert request[:28] == struct.pack(">IHHQQI", 0x25609513, 0, 1, n + 1, n, len(block))
        assert request[28:] == block
        pair[1].sendall(struct.pack(">IIQ", 0x67446698, 0, n + 1))
    await asyncio.gather(*writes)
    connection.close()
