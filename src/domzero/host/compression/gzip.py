"""gzip by zlib, which leaves other threads alone while it works.

What is compressed becomes one member of gzip for each MiB, since members do not depend on one another: as many are made
at the same time as there are processors. Every program that reads gzip reads members in a row (RFC 1952, section 2.2).
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from domzero.finish import finish, in_thread
from domzero.host.compression.ending import end
from domzero.host.compression.protocol import Receive, Send
from domzero.wire.xva.inflate import Inflater

BLOCK = 1 << 20
LEVEL = 1
"""Twice as fast as any higher one, for a twentieth more bytes."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@asynccontextmanager
async def compressing(send: Send, workers: int) -> AsyncIterator[Send]:
    """See `Compression.compressing`."""
    with ThreadPoolExecutor(workers, "gzip") as pool:
        writer = _Writer(send, pool, workers)
        try:
            yield writer.write
            await writer.end()
        finally:
            await finish(writer.drop())


class _Writer:
    def __init__(self, send: Send, pool: ThreadPoolExecutor, workers: int) -> None:
        self._send = send
        self._pool = pool
        self._most = workers + 1
        self._block = bytearray()
        self._members: deque[asyncio.Future[bytes]] = deque()
        self._begun = False

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            taken = BLOCK - len(self._block)
            self._block += view[:taken]
            view = view[taken:]
            if len(self._block) == BLOCK:
                await self._compress()

    async def end(self) -> None:
        """Send what is left. Nothing at all becomes a member without content."""
        if self._block or not self._begun:
            await self._compress()
        while self._members:
            await self._send(await self._members.popleft())

    async def drop(self) -> None:
        """Return when no thread is at work any more."""
        for member in self._members:
            member.cancel()
        if self._members:
            await asyncio.wait(self._members)

    async def _compress(self) -> None:
        block, self._block, self._begun = self._block, bytearray(), True
        self._members.append(asyncio.get_running_loop().run_in_executor(self._pool, _member, block))
        if len(self._members) > self._most:
            await self._send(await self._members.popleft())


def _member(block: bytearray) -> bytes:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return deflater.compress(block) + deflater.flush()


@asynccontextmanager
async def decompressing(receive: Receive) -> AsyncIterator[Receive]:
    """See `Compression.decompressing`. One piece is decompressed while the one before is looked at."""
    reader = _Reader(receive)
    ahead = asyncio.create_task(reader.next())

    async def next_piece() -> bytes:
        nonlocal ahead
        piece = await ahead
        if piece:
            ahead = asyncio.create_task(reader.next())
        return piece

    try:
        yield next_piece
    finally:
        await end(ahead)


class _Reader:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._inflater = Inflater()
        self._pieces: Iterator[bytes] = iter(())

    async def next(self) -> bytes:
        while True:
            if piece := await in_thread(_some, self._pieces):
                return piece
            if not (data := await self._receive()):
                self._inflater.finish()
                return b""
            self._pieces = self._inflater.feed(data)


def _some(pieces: Iterator[bytes]) -> bytes:
    """A few pieces as one, so that a thread is worth its while: less than two blocks."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= BLOCK:
            break
    return taken[0] if len(taken) == 1 else b"".join(taken)
