"""Clients of pages without a network: what they send is bytes, what they are sent is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from domzero.engine.exchange import Arguments, Headers, PeerGoneError
from domzero.idl.types import Ref, Type
from domzero.toolstack.transfer.import_pages import MACHINES, import_machines, import_metadata
from tests.toolstack.vm.world import World

Wait = Callable[[int], Awaitable[None]]
"""Called with the number of bytes that were read so far, before each reading."""


@dataclass
class MemoryPeer:
    """Sends `body` in pieces; goes away after `leaves_after` bytes, if that is not None."""

    body: bytes = b""
    chunked: bool = False
    piece: int = 256 << 10
    leaves_after: int | None = None
    wait: Wait | None = None
    sized: bool = True
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    received: bytearray = field(default_factory=bytearray)
    taken: int = 0

    @property
    def length(self) -> int | None:
        return len(self.body) if self.sized else None

    def header(self, name: str) -> str | None:
        return None

    def begin(self, status: int = 200, headers: Headers = (), length: int | None = None) -> None:
        assert self.status is None
        self.status, self.headers, self.promised = status, dict(headers), length

    async def read(self, limit: int = 1 << 20) -> bytes:
        await asyncio.sleep(0)
        if self.wait is not None:
            await self.wait(self.taken)
        if self.leaves_after is not None and self.taken >= self.leaves_after:
            raise PeerGoneError("the client went away")
        piece = self.body[self.taken : self.taken + min(limit, self.piece)]
        self.taken += len(piece)
        return piece

    async def read_into(self, buffer: memoryview) -> int:
        piece = await self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    async def read_exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = await self.read(size - len(found))
            if not piece:
                raise PeerGoneError("the body ended")
            found += piece
        return found

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.status is not None
        await asyncio.sleep(0)
        self.received += data
        if self.leaves_after is not None and len(self.received) >= self.leaves_after:
            raise PeerGoneError("the client went away")


async def ask(host: World, function: Any, peer: MemoryPeer, result: Type, **query: str) -> Any:
    """What a page's function returns, done under a task as the front does it. Raises `ApiError`."""
    handle = host.stack.tasks.handle("a page", None)
    context = host.stack.contexts.background("a page")
    context.task = handle
    return await host.stack.tasks.carry_out(handle, function(host.stack, context, peer, Arguments(query)), result)


async def import_bytes(host: World, archive: bytes, **query: str) -> tuple[Ref, ...]:
    """The machines that an archive brings."""
    made: tuple[Ref, ...] = await ask(host, import_machines, MemoryPeer(archive), MACHINES, **query)
    return made


async def import_description(host: World, archive: bytes, **query: str) -> tuple[Ref, ...]:
    """The machines that an archive's description brings."""
    made: tuple[Ref, ...] = await ask(host, import_metadata, MemoryPeer(archive), MACHINES, **query)
    return made
