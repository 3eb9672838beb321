"""Doors for callers from outside that are closed and opened again while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from domzero.engine.calls import Origin
from domzero.front.remote import RemoteDoors
from tests.front.toy import Doors, Toy, ask, read_response, request


class GuardedToy(Toy):
    """A dispatcher that can be told to look at calls."""

    guard: Callable[[str, Origin], None] | None = None


def remote(doors: Doors) -> RemoteDoors:
    return RemoteDoors(doors.server, GuardedToy())


async def test_closed_doors_let_only_local_callers_in(doors: Doors) -> None:
    idle, local = await doors.tls(), await doors.local()
    assert await ask(idle, "toy.echo", "before") == "before"
    assert await ask(local, "toy.echo", "before") == "before"
    handle = remote(doors)
    await handle.close()
    await handle.close()
    for connect in (doors.tls, doors.plain):
        with pytest.raises(ConnectionRefusedError):
            await connect()
    assert await idle[0].read() == b""
    assert await ask(local, "toy.echo", "still") == "still"
    await handle.open()
    await handle.open()
    for connect in (doors.tls, doors.plain):
        streams = await connect()
        assert await ask(streams, "toy.echo", "again") == "again"
        assert await ask(streams, "toy.echo", "and again") == "and again"
        streams[1].close()
    for streams in (idle, local):
        streams[1].close()


async def test_a_call_under_way_is_answered_and_then_the_connection_ends(doors: Doors) -> None:
    reader, writer = await doors.tls()
    writer.write(request("toy.work"))
    await doors.toy.waiting.wait()
    await remote(doors).close()
    doors.toy.release.set()
    status, headers, _ = await read_response(reader)
    assert (status, headers.get("connection")) == (200, "close")
    assert await reader.read() == b""
    writer.close()


async def test_a_door_that_somebody_else_took(doors: Doors) -> None:
    handle = remote(doors)
    await handle.close()
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", doors.http)
    with pytest.raises(OSError, match="cannot listen"):
        await handle.open()
    taken.close()
    await taken.wait_closed()
    await handle.open()
    streams = await doors.plain()
    assert await ask(streams, "toy.echo", "x") == "x"
    streams[1].close()


async def test_callers_are_known_by_both_addresses(doors: Doors) -> None:
    await doors.proxy_call("https", "toy.echo", "x")
    await doors.proxy_call("unix", "toy.echo", "x")
    origins = [origin for _, _, origin in doors.toy.calls]
    assert origins == [Origin("127.0.0.1", own="127.0.0.1"), Origin("local", local=True)]


async def test_a_witness_is_told_of_each_call(doors: Doors) -> None:
    toy = GuardedToy()
    seen: list[Origin] = []
    handle = RemoteDoors(doors.server, toy)
    handle.watch(seen.append)
    assert toy.guard is not None
    toy.guard("toy.echo", Origin("192.0.2.1"))
    assert seen == [Origin("192.0.2.1")]
    handle.watch(None)
    assert toy.guard is None
