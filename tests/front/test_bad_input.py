"""Hostile and broken clients: each gets the documented answer or a clean close, and never harms another client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domzero.front.limits import Limits
from tests.front.conftest import Serve
from tests.front.toy import Doors, ask, http_request, read_response, request, until, value_of

IMPATIENT = Limits(
    head_idle=0.1,
    head_total=0.3,
    body_idle=0.1,
    body_total=0.3,
    keep_alive=0.2,
    write_stall=0.3,
    linger=1.0,
    handshake=1.0,
    sweep=0.02,
)
"""Clients that do as they should have to shake hands within that time too."""


@pytest.fixture
async def bystander(doors: Doors) -> AsyncIterator[Doors]:
    """The server, and a client that must be served before and after whatever the test does."""
    streams = await doors.plain()
    assert await ask(streams, "toy.echo", "before") == "before"
    yield doors
    assert await ask(streams, "toy.echo", "after") == "after"
    streams[1].close()


async def answer_to(doors: Doors, raw: bytes) -> tuple[int, dict[str, str], bytes, bool]:
    """The first response to some bytes, and whether the connection is closed behind it."""
    reader, writer = await doors.plain()
    writer.write(raw)
    status, headers, body = await read_response(reader)
    closed = headers["connection"] == "close"
    if closed:
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    return status, headers, body, closed


BAD_XML = b"<methodCall><methodName>toy.echo</methodName>"
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<methodCall><methodName>toy.echo</methodName><params><param><value>&b;</value></param></params></methodCall>"
)
DEEP = b"<methodCall><methodName>m</methodName><params><param>" + b"<value><array><data>" * 1000


@pytest.mark.parametrize(
    "raw",
    [
        http_request("POST", "/", BAD_XML),
        http_request("POST", "/", b""),
        http_request("POST", "/RPC2", BOMB),
        http_request("POST", "/", DEEP),
        http_request("POST", "/", b"\xff\xfe\x00"),
        http_request("POST", "/jsonrpc", b"{"),
        http_request("POST", "/jsonrpc", b'{"jsonrpc":"2.0","method":"m","params":[]}'),
        http_request("POST", "/jsonrpc", b'[{"jsonrpc":"2.0","method":"m","params":[],"id":1}]'),
        http_request("POST", "/jsonrpc", b'{"method":"m","params":{"a":1},"id":1}'),
    ],
    ids=["xml", "empty", "bomb", "deep", "bytes", "json", "notification", "batch", "named"],
)
async def test_malformed_bodies(bystander: Doors, raw: bytes) -> None:
    status, headers, body, closed = await answer_to(bystander, raw)
    assert (status, closed) == (500, False)
    assert headers["content-type"].startswith("text/html")
    assert b"Additional information" in body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (http_request("POST", "/nothing", b"x"), 404),
        (http_request("POST", "/yaml", b"x"), 404),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /RPC2 HTTP/1.1\r\n\r\n", 405),
        (b"PUT /x HTTP/1.0\r\n\r\n", 501),
        (b"BREW /pot HTTP/1.1\r\n\r\n", 501),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"hello there\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * 17000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * 17000, 431),
        (b"GET /" + b"x" * 17000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00" * 100, 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", 400),
    ],
)
async def test_refused_requests(bystander: Doors, raw: bytes, status: int) -> None:
    got, _, body, closed = await answer_to(bystander, raw)
    assert (got, closed) == (status, True)
    assert b"<script" not in body


async def test_what_is_repeated_is_escaped(bystander: Doors) -> None:
    for raw in (b"GET /<script>\"'& HTTP/1.1\r\n\r\n", b"GET /%3Cscript%3E HTTP/1.1\r\n\r\n", b"<script> x\r\n\r\n"):
        _, _, body, _ = await answer_to(bystander, raw)
        assert b"<script" not in body


async def test_a_body_too_large_is_refused_before_it_is_read_and_the_client_can_tell(bystander: Doors) -> None:
    """A client that sends everything before it reads must still find the answer, not a reset."""
    for open_ in (bystander.plain, bystander.tls, bystander.local):
        reader, writer = await open_()
        writer.write(http_request("POST", "/", bytes(20_000_000)))
        await writer.drain()
        status, headers, body = await read_response(reader)
        assert (status, headers["connection"]) == (413, "close")
        assert b"4194304" in body
        writer.close()


async def test_the_standard_client_sees_413(bystander: Doors) -> None:
    import xmlrpc.client

    with pytest.raises(xmlrpc.client.ProtocolError) as caught:
        await bystander.proxy_call("https", "toy.echo", "x" * 5_000_000)
    assert caught.value.errcode == 413


async def test_expect_continue(bystander: Doors) -> None:
    reader, writer = await bystander.plain()
    raw = request("toy.echo", "x", headers="Expect: 100-continue\r\n")
    end = raw.index(b"\r\n\r\n") + 4
    for _ in range(2):
        writer.write(raw[:end])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(raw[end:])
        assert (await read_response(reader))[0] == 200
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
    assert (await read_response(reader))[0] == 413
    writer.close()


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"P", b"O"),
        (b"POST / HTTP/1.1\r\nContent-Le", b"n"),
        (b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n", b"<"),
    ],
    ids=["line", "header", "body"],
)
@pytest.mark.parametrize("dripping", [False, True])
async def test_slow_senders(serve: Serve, first: bytes, rest: bytes, dripping: bool) -> None:
    """A sender that stops is told after the idle time; one that drips never exceeds the total time."""
    # A drip may come late on a busy machine, which is not to count as a stop.
    doors = await serve(replace(IMPATIENT, head_idle=20.0, body_idle=20.0) if dripping else IMPATIENT)
    reader, writer = await doors.plain()
    begin = asyncio.get_running_loop().time()
    writer.write(first)

    async def drip() -> None:
        while dripping:
            await asyncio.sleep(0.05)
            writer.write(b"" if writer.is_closing() else rest)

    task = asyncio.create_task(drip())
    status, _, _ = await asyncio.wait_for(read_response(reader), 20)
    took = asyncio.get_running_loop().time() - begin
    assert status == 408
    assert took >= (0.3 if dripping else 0.1)
    task.cancel()
    writer.close()


@pytest.mark.parametrize("served", [0, 1])
async def test_idle_connections_are_closed_without_a_word(serve: Serve, served: int) -> None:
    doors = await serve(IMPATIENT)
    streams = await doors.plain()
    for _ in range(served):
        await ask(streams, "toy.echo", "x")
    assert await asyncio.wait_for(streams[0].read(), 20) == b""
    streams[1].close()


async def test_a_waiting_call_may_take_longer_than_any_idle_time(serve: Serve) -> None:
    doors = await serve(IMPATIENT)
    reader, writer = await doors.plain()
    writer.write(request("toy.wait"))
    await asyncio.sleep(0.6)
    doors.toy.release.set()
    assert value_of((await read_response(reader))[2]) == "waited"
    writer.close()


@pytest.mark.parametrize("door", ["plain", "tls"])
async def test_a_slow_reader_is_cut_off_and_costs_little_memory(serve: Serve, door: str) -> None:
    """It asks a lot and reads nothing: what is kept for it is bounded, and it goes when its time is over."""
    doors = await serve(IMPATIENT)
    reader, writer = await getattr(doors, door)()
    writer.transport.pause_reading()
    writer.write(request("toy.big", "1000000") * 1000)
    await until(lambda: doors.toy.calls)
    await until(lambda: not doors.server.connections)
    assert len(doors.toy.calls) < 20
    writer.transport.abort()
    assert reader.exception() is None


async def test_a_slow_reader_gets_everything_in_the_end(doors: Doors) -> None:
    reader, writer = await doors.plain()
    writer.write(request("toy.big", "1000000") * 20 + request("toy.echo", "end"))
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert len(value_of((await read_response(reader))[2])) == 1_000_000
    assert value_of((await read_response(reader))[2]) == "end"
    writer.close()


async def test_half_closed_clients(serve: Serve) -> None:
    """A client that closes its sending side gets what it asked for, if that comes soon, and then the end."""
    doors = await serve(IMPATIENT)
    reader, writer = await doors.plain()
    writer.write(request("toy.echo", "x") * 100)
    writer.write_eof()
    for _ in range(100):
        assert value_of((await read_response(reader))[2]) == "x"
    assert await reader.read() == b""
    writer.close()

    reader, writer = await doors.plain()
    writer.write(request("toy.wait"))
    writer.write_eof()
    await doors.toy.waiting.wait()
    doors.toy.release.set()
    status, headers, _ = await read_response(reader)
    assert (status, headers["connection"]) == (200, "close")
    assert await reader.read() == b""
    writer.close()
    await until(lambda: not doors.server.connections)


@pytest.mark.parametrize("start", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"])
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_clients_that_leave_in_the_middle(bystander: Doors, start: bytes, how: str) -> None:
    _, writer = await bystander.plain()
    writer.write(start)
    await writer.drain()
    if how == "abort":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    await until(lambda: bystander.server.connections == 1)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 500, bytes(5000)])
async def test_rubbish_on_the_tls_port(serve: Serve, raw: bytes) -> None:
    """No handshake, no connection: it ends with the handshake's time, others are served meanwhile."""
    doors = await serve(IMPATIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.https)
    writer.write(raw)
    assert (await doors.proxy_call("https", "toy.echo", "x"))["Value"] == "x"
    received = await asyncio.wait_for(reader.read(), 20)
    assert b"HTTP" not in received
    writer.close()


@pytest.mark.slow
async def test_half_open_handshakes_do_not_use_up_the_door(serve: Serve) -> None:
    """Many more than the door admits; a client that shakes hands is served meanwhile, and one that is idle stays."""
    doors = await serve(Limits(tcp_connections=4, handshake=1.0, sweep=0.02))
    idle = await doors.tls()
    assert await ask(idle, "toy.echo", "x") == "x"
    opened = [await asyncio.open_connection("127.0.0.1", doors.https) for _ in range(20)]
    assert (await doors.proxy_call("https", "toy.echo", "x"))["Value"] == "x"
    for reader, writer in opened:
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    assert await ask(idle, "toy.echo", "still here") == "still here"
    idle[1].close()


async def test_silent_connections_make_room_before_idle_ones(serve: Serve) -> None:
    doors = await serve(Limits(tcp_connections=3))
    idle = await doors.plain()
    assert await ask(idle, "toy.echo", "x") == "x"
    silent = [await doors.plain() for _ in range(10)]
    assert (await doors.proxy_call("http", "toy.echo", "x"))["Value"] == "x"
    assert await ask(idle, "toy.echo", "still here") == "still here"
    for _, writer in [idle, *silent]:
        writer.close()


async def test_too_many_connections(serve: Serve) -> None:
    """With every connection busy, one more is told 503; those that were there go on."""
    doors = await serve(Limits(tcp_connections=3))
    busy = [await doors.plain() for _ in range(3)]
    for _, writer in busy:
        writer.write(request("toy.wait"))
    await until(lambda: len(doors.toy.calls) == 3)
    reader, writer = await doors.plain()
    assert (await read_response(reader))[0] == 503
    writer.close()
    assert (await doors.proxy_call("unix", "toy.echo", "x"))["Value"] == "x", "each door has its own limit"
    doors.toy.release.set()
    for reader, writer in busy:
        assert value_of((await read_response(reader))[2]) == "waited"
        writer.close()


async def test_an_idle_connection_makes_room(serve: Serve) -> None:
    doors = await serve(Limits(tcp_connections=2))
    first, second = await doors.plain(), await doors.plain()
    for streams in (first, second):
        await ask(streams, "toy.echo", "x")
    third = await doors.plain()
    assert await ask(third, "toy.echo", "third") == "third"
    assert await first[0].read() == b""
    assert await ask(second, "toy.echo", "second") == "second"
    for _, writer in (first, second, third):
        writer.close()


async def test_a_flood_of_refused_connections_is_bounded(serve: Serve) -> None:
    doors = await serve(Limits(tcp_connections=1, refusals=5))
    _, busy = await doors.plain()
    busy.write(request("toy.wait"))
    await doors.toy.waiting.wait()
    opened = [await doors.plain() for _ in range(50)]
    told = 0
    for reader, writer in opened:
        try:
            told += b"503" in await reader.readline()
        except ConnectionResetError:
            continue
        finally:
            writer.close()
    assert 1 <= told <= 6
    busy.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=300), framed=st.booleans())
async def test_random_bytes(doors: Doors, raw: bytes, framed: bool) -> None:
    """Whatever is sent, the connection ends or answers in HTTP, and nothing is logged as a defect."""
    reader, writer = await doors.plain()
    writer.write(http_request("POST", "/", raw) if framed else raw)
    writer.write_eof()
    received = await asyncio.wait_for(reader.read(), 30)
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    writer.close()
