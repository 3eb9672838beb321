"""Guests' ports as sockets: whose they are, and what a guest cannot do to them. QEMU's part is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.guest_port.sockets import RETRY, PortSockets
from domzero.wire.xenstore import Operation
from tests.host.xenstore.peers import Host, Peer, host, until


class Guest:
    """The far ends of one socket, one after the other, as QEMU's listening socket has them."""

    def __init__(self) -> None:
        self._coming: asyncio.Queue[Peer] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def listen(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._comes, str(path))

    async def _comes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._coming.put(Peer(reader, writer))

    async def peer(self) -> Peer:
        """The next connection that the host makes."""
        async with asyncio.timeout(10):
            return await self._coming.get()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def serving(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Host]:
    async with host(tmp_path, clock) as serving:
        yield serving


@pytest.fixture
async def ports(serving: Host, clock: ManualClock) -> AsyncIterator[PortSockets]:
    ports = PortSockets(serving.server, clock)
    yield ports
    await ports.close()


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    guest = Guest()
    await guest.listen(tmp_path / "guest.sock")
    yield guest
    await guest.close()


async def test_a_port_is_its_domains(ports: PortSockets, guest: Guest, tmp_path: Path) -> None:
    ports.join(2, tmp_path / "guest.sock")
    ports.join(2, tmp_path / "guest.sock")
    peer = await guest.peer()
    assert await peer.ask(Operation.GET_DOMAIN_PATH, b"2\0") == b"/local/domain/2\0"
    assert await peer.ask(Operation.WRITE, b"/local/domain/1/x\0v") == b"EACCES\0"
    assert await peer.ask(Operation.INTRODUCE, b"9\0001\0001\0") == b"EACCES\0"
    ports.release(2)
    assert await peer.is_closed()


async def test_who_breaks_the_protocol_begins_anew(
    ports: PortSockets, guest: Guest, tmp_path: Path, clock: ManualClock
) -> None:
    ports.join(1, tmp_path / "guest.sock")
    for _ in range(3):
        peer = await guest.peer()
        peer.writer.write(b"\xff" * 64)
        assert await peer.is_closed()
        await clock.advance(RETRY)
    assert await (await guest.peer()).ask(Operation.DIRECTORY, b"/\0") != b"EINVAL\0"


async def test_another_program_at_the_same_port(
    ports: PortSockets, guest: Guest, tmp_path: Path, serving: Host
) -> None:
    path = tmp_path / "guest.sock"
    ports.join(1, path)
    peer = await guest.peer()
    await peer.ask(Operation.WATCH, b"/local\0t\0")
    await peer.ask(Operation.TRANSACTION_START)
    peer.writer.write(b"half a head")
    await asyncio.sleep(0.01)
    domain = serving.store.domains[1]
    assert (domain.watches, domain.transactions) == (1, 1)
    forget = ports.closing(1, path)
    peer.writer.write(b"er")
    await asyncio.sleep(0.01)
    forget()
    assert (domain.watches, domain.transactions) == (1, 1), "somebody has the port"
    ports.closing(1, path)()
    assert (domain.watches, domain.transactions) == (0, 0)
    peer.events.clear()
    assert await peer.ask(Operation.READ, b"/local/none\0") in (b"ENOENT\0", b"EACCES\0")
    ports.closing(3, path)()  # whom nobody knows


async def test_a_port_that_is_gone(ports: PortSockets, tmp_path: Path, serving: Host, clock: ManualClock) -> None:
    ports.join(1, tmp_path / "nothing")
    await until(lambda: not serving.server._connections)
    await clock.advance(10 * RETRY)
    assert not serving.store.domains[1].connections


async def test_a_domain_that_the_store_does_not_know(
    ports: PortSockets, guest: Guest, tmp_path: Path, serving: Host, clock: ManualClock
) -> None:
    ports.join(7, tmp_path / "guest.sock")
    assert await (await guest.peer()).is_closed()
    serving.store.introduce(7)
    await clock.advance(RETRY)
    assert await (await guest.peer()).ask(Operation.GET_DOMAIN_PATH, b"7\0") == b"/local/domain/7\0"
