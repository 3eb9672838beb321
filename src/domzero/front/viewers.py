"""Those who look at a console: over a connection that was handed over, bare or wrapped in a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Protocol

from domzero.front.routes import RawStream
from domzero.wire.http import RequestHead
from domzero.wire.websocket import GOING_AWAY, WebSocket

PIECE = 64 << 10
GOODBYE = 2.0
"""Seconds that what was written last may take on its way out."""


class Viewer(Protocol):
    """A connected viewer."""

    async def read(self) -> bytes:
        """What it sent; empty when it has gone. Raises `OSError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; returns when more may follow. Raises `OSError`."""
        ...

    async def close(self) -> None:
        """Say goodbye and hang up; one that does not listen is cut off after some seconds."""
        ...


class StreamViewer:
    """Bytes as they are."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return await self._stream.reader.read(PIECE)

    async def write(self, data: bytes) -> None:
        self._stream.writer.write(data)
        await self._stream.writer.drain()

    async def close(self) -> None:
        writer = self._stream.writer
        writer.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()


class SocketViewer:
    """Bytes in a WebSocket's messages."""

    def __init__(self, stream: RawStream, head: RequestHead) -> None:
        """Answers the handshake. Raises `HttpError` 400 when it is none."""
        self._socket = WebSocket(head)
        self._stream = stream
        self._bare = StreamViewer(stream)
        stream.writer.write(self._socket.output())

    async def read(self) -> bytes:
        while not self._socket.over:
            data = self._socket.receive(received := await self._bare.read())
            await self._flush()
            if data or not received:
                return data
        return b""

    async def write(self, data: bytes) -> None:
        self._socket.send(data)
        await self._flush()

    async def close(self) -> None:
        self._socket.close(GOING_AWAY)
        self._stream.writer.write(self._socket.output())
        await self._bare.close()

    async def _flush(self) -> None:
        if output := self._socket.output():
            await self._bare.write(output)
