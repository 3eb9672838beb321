"""Pages: routing, whole and streamed answers, and what goes wrong in them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from domzero.front.limits import Limits
from domzero.front.routes import RawStream, Request, Response, Routes
from domzero.wire.http import HttpError
from tests.front.conftest import Serve
from tests.front.toy import Doors, ask, http_request, read_response, until


async def named(request: Request) -> Response:
    """Says what it was asked."""
    text = f"{request.head.method} {request.head.path} {request.head.arguments()} {request.body.decode()}"
    return Response(200, text.encode(), (("content-type", "text/plain"),))


async def pieces(count: int, size: int = 100_000) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


async def export(request: Request) -> Response:
    count = int(request.head.arguments()["count"])
    known = "length" in request.head.arguments()
    return Response(
        200, pieces(count), (("content-type", "application/octet-stream"),), 100_000 * count if known else None
    )


async def broken(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        raise ZeroDivisionError

    return Response(200, body(), length=1000)


async def refuse(request: Request) -> Response:
    raise HttpError(401, "Who <are> you?", (("www-authenticate", 'Basic realm="export"'),))


async def crash(request: Request) -> Response:
    raise ZeroDivisionError


def table() -> Routes:
    routes = Routes()
    routes.page("GET", "/", named)
    routes.page("GET", "/export", export)
    routes.page("GET", "/export/deep", named)
    routes.page("GET", "/broken", broken)
    routes.page("GET", "/refuse", refuse)
    routes.page("GET", "/crash", crash)
    routes.page("PUT", "/blob", named)
    return routes


async def get(doors: Doors, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    reader, writer = await doors.plain()
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    response = await read_response(reader)
    writer.close()
    return response


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", b"GET / {} "),
        ("/file/in/it?a=b+c", b"GET /file/in/it {'a': 'b c'} "),
        ("/export/deep/er", b"GET /export/deep/er {} "),
        ("/exporter", b"GET /exporter {} "),
        ("/RPC2", b"GET /RPC2 {} "),
    ],
)
async def test_the_longest_prefix_counts(serve: Serve, target: str, expected: bytes) -> None:
    status, headers, body = await get(await serve(routes=table()), target)
    assert (status, body) == (200, expected)
    assert headers["content-type"] == "text/plain"
    assert headers["cache-control"] == "no-cache, no-store"


async def test_pages_and_calls_share_a_connection(serve: Serve) -> None:
    streams = await (await serve(routes=table())).plain()
    reader, writer = streams
    for _ in range(3):
        assert await ask(streams, "toy.echo", "x") == "x"
        writer.write(http_request("PUT", "/blob?n=1", b"body") * 2)
        for _ in range(2):
            assert (await read_response(reader))[2] == b"PUT /blob {'n': '1'} body"
    writer.close()


@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [("PUT", "/export", 405, "get"), ("DELETE", "/blob", 501, None), ("PUT", "/x", 405, "get")],
)
async def test_wrong_methods(serve: Serve, method: str, target: str, status: int, allow: str | None) -> None:
    got, headers, _ = await get(await serve(routes=table()), target, method)
    assert (got, headers.get("allow")) == (status, allow)


async def test_head_is_not_for_raw_handlers(serve: Serve) -> None:
    async def raw(request: Request, stream: RawStream) -> None:
        stream.respond(200)

    routes = Routes()
    routes.raw("GET", "/console", raw)
    assert (await get(await serve(routes=routes), "/console", "HEAD"))[0] == 405


async def test_head_gets_no_body(serve: Serve) -> None:
    reader, writer = await (await serve(routes=table())).plain()
    writer.write(b"HEAD /file HTTP/1.1\r\n\r\nHEAD /export?count=1&length=1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 14\r\n" in head
    assert b"content-length: 100000\r\n" in await reader.readuntil(b"\r\n\r\n")
    assert (await read_response(reader))[2] == b"GET / {} "
    writer.close()


@pytest.mark.parametrize("door", ["plain", "tls", "local"])
async def test_streams(serve: Serve, door: str) -> None:
    doors = await serve(routes=table())
    reader, writer = await getattr(doors, door)()
    writer.write(b"GET /export?count=30&length=1 HTTP/1.1\r\n\r\nGET /export?count=30 HTTP/1.1\r\n\r\n")
    expected = b"".join([piece async for piece in pieces(30)])
    _, headers, body = await read_response(reader)
    assert (headers["connection"], body) == ("keep-alive", expected)
    _, headers, _ = await read_response(reader)
    assert (headers["connection"], await reader.read()) == ("close", expected)
    writer.close()


async def test_a_stream_waits_for_its_reader(serve: Serve) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield bytes(1_000_000)

    async def page(request: Request) -> Response:
        return Response(200, body())

    routes = Routes()
    routes.page("GET", "/", page)
    doors = await serve(Limits(write_stall=0.3, sweep=0.02), routes)
    with socket.create_connection(("127.0.0.1", doors.http)) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: sent)
        await until(lambda: not doors.server.connections)
    assert sent < 20


async def test_what_goes_wrong_in_pages(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    doors = await serve(routes=table())
    status, headers, body = await get(doors, "/refuse")
    assert (status, headers["www-authenticate"]) == (401, 'basic realm="export"')
    assert b"Who &lt;are&gt; you?" in body
    assert (await get(doors, "/crash"))[0] == 500
    assert "failed unexpectedly" in caplog.text
    reader, writer = await doors.plain()
    writer.write(b"GET /broken HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b"begin", "a stream that breaks ends the connection"
    writer.close()


async def test_a_page_is_cancelled_with_its_client(serve: Serve) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def page(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    routes = Routes()
    routes.page("GET", "/wait", page)
    doors = await serve(Limits(linger=0.05, sweep=0.01), routes)
    _, writer = await doors.plain()
    writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
    await begun.wait()
    writer.close()
    await asyncio.wait_for(cancelled.wait(), 20)


async def test_a_route_exists_once() -> None:
    async def raw(request: Request, stream: RawStream) -> None:
        return

    routes = table()
    with pytest.raises(ValueError, match="already"):
        routes.page("GET", "/export", named)
    with pytest.raises(ValueError, match="already"):
        routes.raw("GET", "/export", raw)
