"""Pages that some requests may have without saying who makes them; the others stay as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from domzero.engine.context import Context
from domzero.engine.exchange import Arguments, Page, PageFunction, Peer, collect_pages, serves
from domzero.front.access import Access
from domzero.front.server import Server
from domzero.front.transfers import Transfers
from tests.engine.toy_calls import Toy, make_toy
from tests.front.toy import GRAPH as FRONT_GRAPH
from tests.front.toy import Toy as Calls


def is_open(arguments: Arguments) -> bool:
    return arguments.get("name") == "open"


@serves("GET", "/some", role="pool-admin", label="Toy file", public=is_open)
async def some(context: Context, peer: Peer, arguments: Arguments) -> None:
    body = f"{context.session is not None} {sorted(arguments)}".encode()
    peer.begin(200, length=len(body))
    await peer.write(body)


@serves("GET", "/none", role="read-only", label="Toy secret")
async def none(context: Context, peer: Peer, arguments: Arguments) -> None:
    peer.begin(200, length=0)


@dataclass
class House:
    toy: Toy
    port: int

    async def ask(self, path: str, *headers: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write("\r\n".join((f"GET {path} HTTP/1.0", *headers, "", "")).encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body


def pages() -> list[tuple[Page, PageFunction]]:
    import tests.front.test_public_pages as here

    return collect_pages(here)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    toy = await make_toy(tmp_path)
    engine = toy.engine
    server = Server(Calls(), FRONT_GRAPH)
    access = Access(engine.sessions, engine.door, engine.roles, engine.clock)
    Transfers(access, engine.tasks, engine.contexts).add_to(server.routes, pages())
    yield House(toy, server.listen_http("127.0.0.1", 0))
    await server.stop(grace=0)
    await toy.stop()


async def test_strangers_get_what_is_public_and_nothing_else(house: House) -> None:
    assert await house.ask("/some?name=open") == (200, b"False ['name']")
    for path in ("/some", "/some?name=closed", "/none", "/none?name=open"):
        assert (await house.ask(path))[0] == 401


async def test_a_stranger_ends_nobodys_task(house: House) -> None:
    task = house.toy.engine.tasks.store("of somebody", "", None)
    assert await house.ask(f"/some?name=open&task_id={task}&subtask_of={task}") == (200, b"False ['name']")
    assert house.toy.task(task)["status"] == "pending"


async def test_who_says_who_it_is_must_be_it(house: House) -> None:
    session = await house.toy.root()
    assert await house.ask(f"/some?name=open&session_id={session}") == (200, b"True ['name', 'session_id']")
    for asked, header in (
        ("/some?name=open&session_id=OpaqueRef:no", "X: y"),
        ("/some?name=open", "Authorization: Bearer token"),
        ("/some?name=open", "Cookie: session_id=OpaqueRef:no"),
    ):
        assert (await house.ask(asked, header))[0] == 401
