"""A console as one has it who looks at it."""

from __future__ import annotations

import asyncio
from typing import Protocol

PIECE = 64 << 10
"""The most that is read at a time, and twice of which waits for a viewer before QEMU has to."""


class Line(Protocol):
    """A console as one viewer has it."""

    async def read(self) -> bytes:
        """What comes next; empty at the end. Raises `OSError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand something to the machine; returns when more may follow. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Leave. May be called twice."""
        ...


class SocketLine:
    """A connection of one's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """See `Line`."""
        return await self._reader.read(PIECE)

    async def write(self, data: bytes) -> None:
        """See `Line`."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """See `Line`."""
        self._writer.transport.abort()
