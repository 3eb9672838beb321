"""Senders that are ahead of what is carried out for them are held up: what is kept for them is bounded."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from domzero.front.limits import Limits
from domzero.front.listeners import KEEP_ALIVE
from domzero.front.routes import RawStream, Request, Response, Routes
from tests.front.conftest import Serve
from tests.front.toy import Doors, ask, http_request, read_response, request, until, value_of

ON_THE_WAY = 4 << 20
"""More than both kernel and server keep for one connection, far less than a flood that nothing holds up."""
ROUNDS = 60
MEBIBYTE = 1 << 20
PROBE = 2
"""The kind of timer after which the kernel asks whether the peer is there."""
USER_HZ = 100
"""Ticks of `/proc` in a second."""


async def pour(line: socket.socket, one: bytes, *, reading: bool) -> int:
    """Send a request again and again: how many bytes the server takes in some turns of the loop that both live in."""
    line.setblocking(False)
    flood = memoryview(one * 2000)
    sent = 0
    for _ in range(ROUNDS):
        try:
            while True:
                sent += line.send(flood[sent % len(one) :])
        except BlockingIOError:
            await asyncio.sleep(0)
        if reading:
            drain(line)
    return sent


def drain(line: socket.socket) -> None:
    try:
        while line.recv(MEBIBYTE):
            pass
    except BlockingIOError:
        return


def connected(doors: Doors) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(doors.unix))
    return line


def timer_of(local: int, remote: int) -> tuple[int, int]:
    """Kind and remaining time of the timer of a connection's end, by its ports. Source: proc(5), /proc/net/tcp."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = f":{local:04X}", f":{remote:04X}"
    # The kernel may show one twice when others come and go while the table is read.
    timer = next(row[5] for row in rows if row[1].endswith(ports[0]) and row[2].endswith(ports[1]))
    kind, left = timer.split(":")
    return int(kind, 16), int(left, 16)


async def test_requests_ahead_of_their_answers_wait_with_the_sender(doors: Doors) -> None:
    """Everything it sends is a good request, and it reads every answer; it only asks faster than it is answered."""
    one = request("toy.echo", "x")
    with connected(doors) as line:
        sent = await pour(line, one, reading=True)
        assert doors.toy.calls
        assert sent - len(doors.toy.calls) * len(one) < ON_THE_WAY
    streams = await doors.plain()
    assert await ask(streams, "toy.echo", "after") == "after"
    streams[1].close()


async def test_a_burst_ahead_is_answered_whole_and_in_order(doors: Doors) -> None:
    reader, writer = await doors.local()
    writer.write(b"".join(request("toy.echo", f"{number:05} {'x' * 500}") for number in range(1000)))
    for number in range(1000):
        assert value_of((await read_response(reader))[2]).startswith(f"{number:05} ")
    writer.close()


async def test_who_does_not_read_a_page_is_not_read_from(serve: Serve) -> None:
    async def page(request: Request) -> Response:
        return Response(body=bytes(8 * MEBIBYTE))

    routes = Routes()
    routes.page("GET", "/page", page)
    doors = await serve(routes=routes)
    with connected(doors) as line:
        line.sendall(http_request("GET", "/page", b""))
        await asyncio.sleep(0.05)
        assert await pour(line, request("toy.echo", "x"), reading=False) < ON_THE_WAY
        assert doors.toy.calls == []


async def test_a_connection_that_was_held_up_is_handed_over_all_the_same(serve: Serve) -> None:
    async def count(request: Request, stream: RawStream) -> None:
        size = 0
        while piece := await stream.reader.read(MEBIBYTE):
            size += len(piece)
        stream.writer.write(str(size).encode())
        await stream.writer.drain()

    routes = Routes()
    routes.raw("PUT", "/count", count)
    doors = await serve(routes=routes)
    reader, writer = await doors.local()
    writer.write(request("toy.wait") + b"PUT /count HTTP/1.0\r\n\r\n" + bytes(3 * MEBIBYTE))
    await doors.toy.waiting.wait()
    await asyncio.sleep(0.05)
    doors.toy.release.set()
    assert value_of((await read_response(reader))[2]) == "waited"
    writer.write_eof()
    assert await reader.read() == str(3 * MEBIBYTE).encode()
    writer.close()


async def test_large_bodies_share_what_there_is(serve: Serve) -> None:
    doors = await serve(Limits(bodies_size=5 * MEBIBYTE))
    body = request("toy.echo", "x" * 2 * MEBIBYTE)
    first, second, third = [await doors.plain() for _ in range(3)]
    for _, writer in (first, second):
        writer.write(body[:-1])
    await asyncio.sleep(0.1)
    third[1].write(body[:300])
    assert (await read_response(third[0]))[0] == 503
    third[1].close()
    small = await doors.plain()
    assert await ask(small, "toy.echo", "x" * 60_000) == "x" * 60_000, "small ones are taken all the same"
    for reader, writer in (first, second):
        writer.write(body[-1:])
        assert (await read_response(reader))[0] == 200
    assert await ask(small, "toy.echo", "x" * 2 * MEBIBYTE) == "x" * 2 * MEBIBYTE, "there is room again"
    first[1].write(body[:-1])
    second[1].write(body[:-1])
    await asyncio.sleep(0.1)
    first[1].transport.abort()
    await until(lambda: doors.server.connections == 2)
    assert await ask(small, "toy.echo", "x" * 2 * MEBIBYTE) == "x" * 2 * MEBIBYTE, "who left needs nothing any more"
    for _, writer in (second, small):
        writer.close()


@pytest.mark.parametrize("door", ["plain", "tls"])
async def test_the_kernel_notices_peers_that_are_gone(doors: Doors, door: str) -> None:
    """A machine without power says no goodbye: a call that waits for events would keep its connection for ever."""
    reader, writer = await getattr(doors, door)()
    writer.write(request("toy.wait"))
    await doors.toy.waiting.wait()
    ends = [writer.get_extra_info(name)[1] for name in ("peername", "sockname")]
    await until(lambda: timer_of(*ends)[0] == PROBE)
    seconds = next(value for _, option, value in KEEP_ALIVE if option == socket.TCP_KEEPIDLE)
    assert timer_of(*ends)[1] <= seconds * USER_HZ
    doors.toy.release.set()
    assert value_of((await read_response(reader))[2]) == "waited"
    writer.close()
