"""Bodies that go straight to where they are wanted: nothing is lost, doubled or taken out of order."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest

from domzero.front.routes import RawStream, Request, Routes
from tests.front.conftest import Serve
from tests.front.toy import Doors

Open = Callable[[Doors], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
EVERY_DOOR = pytest.mark.parametrize("open_", [Doors.plain, Doors.tls, Doors.local], ids=["plain", "tls", "unix"])
SIZE = 3 << 20


async def impatient(request: Request, stream: RawStream) -> None:
    """Takes the body in pieces of odd sizes, gives up waiting now and then, and answers with its digest."""
    stream.respond(200)
    chance, digest, total = random.Random(request.head.content_length), hashlib.sha256(), 0
    buffer = memoryview(bytearray(1 << 20))
    while total < (request.head.content_length or 0):
        size = chance.choice([1, 1000, 70_000, 1 << 20])
        try:
            async with asyncio.timeout(chance.choice([0, 0.0001, 10])):
                count = await stream.receive(buffer[:size])
        except TimeoutError:
            continue
        if not count:
            break
        digest.update(buffer[:count])
        total += count
    stream.writer.write(f"{total} {digest.hexdigest()}".encode())


def routes() -> Routes:
    table = Routes()
    table.raw("PUT", "/impatient", impatient)
    return table


@EVERY_DOOR
async def test_nothing_is_lost_when_somebody_gives_up_waiting(serve: Serve, open_: Open) -> None:
    body = random.Random(1).randbytes(SIZE)
    reader, writer = await open_(await serve(routes=routes()))
    writer.write(f"PUT /impatient HTTP/1.0\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    for start in range(0, SIZE, 200_000):
        writer.write(body[start : start + 200_000])
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.endswith(f"{SIZE} {hashlib.sha256(body).hexdigest()}".encode())
    writer.close()


async def test_the_end_is_noticed_while_waiting(serve: Serve) -> None:
    reader, writer = await (await serve(routes=routes())).plain()
    writer.write(b"PUT /impatient HTTP/1.0\r\nContent-Length: 1000\r\n\r\nonly this")
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.endswith(f"9 {hashlib.sha256(b'only this').hexdigest()}".encode())
    writer.close()


async def gathering(request: Request, stream: RawStream) -> None:
    """Says how many bytes each piece had that it was given."""
    stream.respond(200)
    buffer, total = memoryview(bytearray(1 << 20)), 0
    while total < (request.head.content_length or 0):
        count = await stream.receive(buffer)
        total += count
        stream.writer.write(f"{count} ".encode())
    stream.writer.write(b"that is all")


@EVERY_DOOR
async def test_what_comes_in_a_hurry_is_given_at_once(serve: Serve, open_: Open) -> None:
    """Far fewer pieces than the network has: a large body costs one waking for a megabyte, not for a record of TLS."""
    table = Routes()
    table.raw("PUT", "/gathering", gathering)
    reader, writer = await open_(await serve(routes=table))
    writer.write(b"PUT /gathering HTTP/1.0\r\nContent-Length: 8000001\r\n\r\n" + bytes(8_000_000))
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200" in head
        pieces = [int(await reader.readuntil(b" "))]
        while sum(pieces) < 8_000_000:
            pieces.append(int(await reader.readuntil(b" ")))
        writer.write(b"x")
        pieces.append(int(await reader.readuntil(b" ")))
        assert await reader.read() == b"that is all"
    assert pieces[-1] == 1, "the last byte is given though more would have had room"
    assert sum(pieces) == 8_000_001
    assert max(pieces) > 256 << 10, "more than the transport takes from the network at a time"
    writer.close()
