"""The other end of a serial line."""

from __future__ import annotations

import asyncio
from pathlib import Path


class Machine:
    """A machine's end of the line; like QEMU it takes one connection at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.here = asyncio.Event()
        self.gone = asyncio.Event()
        self.server: asyncio.Server

    async def open(self) -> None:
        self.server = await asyncio.start_unix_server(self.accept, str(self.path), limit=1 << 16)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.reader, self.writer = reader, writer
        self.here.set()
        try:
            await self.gone.wait()
        finally:
            writer.close()

    async def say(self, data: bytes) -> None:
        await self.here.wait()
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.gone.set()
        self.server.close()
