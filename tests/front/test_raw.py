"""Raw connections on every door: the requests of XenServer's clients that no HTTP library takes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import pytest

from domzero.front.routes import RawStream, Request, Routes
from tests.front.conftest import Serve
from tests.front.toy import Doors, ask, client_context, read_response, request, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[Doors], Awaitable[Streams]]
EVERY_DOOR = pytest.mark.parametrize("open_", [Doors.plain, Doors.tls, Doors.local], ids=["plain", "tls", "unix"])


async def console(request: Request, stream: RawStream) -> None:
    """Speaks first, as RFB does, then echoes in capitals."""
    if request.head.arguments().get("session_id") != "good":
        stream.respond(401, (("www-authenticate", 'Basic realm="console"'),), length=0)
        return
    stream.respond(200)
    stream.writer.write(b"RFB 003.008\n")
    while data := await stream.reader.read(1000):
        stream.writer.write(data.upper())
        await stream.writer.drain()


async def take(request: Request, stream: RawStream) -> None:
    """Answers before the body, as /import does, and takes the body to its end; the last line says how much came."""
    stream.respond(200, (("content-type", "text/plain"),))
    await stream.writer.drain()
    total = 0
    length = request.head.content_length
    while length is None or total < length:
        data = await stream.reader.read(1 << 20)
        if not data:
            break
        total += len(data)
    RECEIVED.append(total)


RECEIVED: list[int] = []


async def cli(request: Request, stream: RawStream) -> None:
    """Answers without any HTTP, as the xe protocol does."""
    body = await stream.reader.readexactly(request.head.content_length or 0)
    stream.writer.write(b"XenSource thin CLI protocol" + bytes(8) + body[::-1])


def routes() -> Routes:
    table = Routes()
    table.raw("CONNECT", "/console", console)
    table.raw("PUT", "/import", take)
    table.raw("POST", "/cli", cli)
    return table


@EVERY_DOOR
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("host", ["", "Host: toy\r\n"])
async def test_connect_with_a_path(serve: Serve, open_: Open, version: str, host: str) -> None:
    reader, writer = await open_(await serve(routes=routes()))
    head = f"CONNECT /console?ref=OpaqueRef:1&session_id=good HTTP/{version}\r\n{host}\r\n"
    writer.write(head.encode() + b"early bird ")
    assert (await read_response(reader))[0] == 200
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.write(b"and more")
    assert await reader.readexactly(19) == b"EARLY BIRD AND MORE"
    writer.close()


@EVERY_DOOR
async def test_connect_refused_by_its_handler(serve: Serve, open_: Open) -> None:
    reader, writer = await open_(await serve(routes=routes()))
    writer.write(b"CONNECT /console?ref=OpaqueRef:1 HTTP/1.0\r\n\r\n")
    status, headers, _ = await read_response(reader)
    assert status == 401
    assert headers["www-authenticate"] == 'basic realm="console"'
    assert await reader.read() == b""
    writer.close()


@EVERY_DOOR
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_put_without_a_length_ends_with_the_stream(serve: Serve, open_: Open, size: int) -> None:
    RECEIVED.clear()
    reader, writer = await open_(await serve(routes=routes()))
    writer.write(b"PUT /import?task_id=OpaqueRef:1 HTTP/1.0\r\nCookie: session_id=x\r\n\r\n" + bytes(size))
    assert (await read_response(reader))[0] == 200, "the answer comes before the body ends"
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    await until(lambda: RECEIVED)
    assert [size] == RECEIVED


@EVERY_DOOR
async def test_put_with_a_length_after_other_calls(serve: Serve, open_: Open) -> None:
    RECEIVED.clear()
    streams = await open_(await serve(routes=routes()))
    assert await ask(streams, "toy.echo", "first") == "first"
    streams[1].write(request("toy.echo", "second") + b"PUT /import HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert (await read_response(streams[0]))[0] == 200
    status, headers, _ = await read_response(streams[0])
    assert (status, headers["connection"]) == (200, "close")
    assert await streams[0].read() == b""
    assert RECEIVED == [5]
    streams[1].close()


@EVERY_DOOR
async def test_the_xe_protocol_gets_no_http(serve: Serve, open_: Open) -> None:
    reader, writer = await open_(await serve(routes=routes()))
    writer.write(b"POST /cli HTTP/1.0\r\nContent-length: 3\r\nUser-agent: xe-cli/Unix/0.2\r\n\r\nabc")
    assert await reader.read() == b"XenSource thin CLI protocol" + bytes(8) + b"cba"
    writer.close()


async def test_a_slow_raw_handler_stops_the_sender(serve: Serve) -> None:
    """What is read ahead of a handler is bounded."""
    begin = asyncio.Event()
    table = Routes()

    async def later(request: Request, stream: RawStream) -> None:
        await begin.wait()
        await take(request, stream)

    table.raw("PUT", "/import", later)
    RECEIVED.clear()
    doors = await serve(routes=table)
    _, writer = await doors.plain()
    writer.write(b"PUT /import HTTP/1.0\r\n\r\n" + bytes(64 << 20))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.3)
    begin.set()
    await writer.drain()
    writer.write_eof()
    await until(lambda: RECEIVED)
    assert RECEIVED == [64 << 20]
    writer.close()


async def test_a_raw_handler_that_fails_costs_only_its_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    table = Routes()

    async def fail(request: Request, stream: RawStream) -> None:
        raise ZeroDivisionError

    table.raw("CONNECT", "/console", fail)
    doors = await serve(routes=table)
    reader, writer = await doors.plain()
    writer.write(b"CONNECT /console HTTP/1.0\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    assert "failed unexpectedly" in caplog.text
    assert (await doors.proxy_call("http", "toy.echo", "x"))["Value"] == "x"


async def test_connect_from_a_plain_tls_client(serve: Serve) -> None:
    """The same with blocking sockets, as the guide's console programs do it."""
    doors = await serve(routes=routes())

    def run() -> bytes:
        import socket

        with socket.create_connection(("127.0.0.1", doors.https)) as plain:
            context = client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with context.wrap_socket(plain) as secure:
                secure.sendall(b"CONNECT /console?session_id=good HTTP/1.0\r\n\r\n")
                received = b""
                while b"RFB" not in received:
                    received += secure.recv(1000)
                return received

    assert (await asyncio.to_thread(run)).startswith(b"HTTP/1.1 200 OK\r\n")
