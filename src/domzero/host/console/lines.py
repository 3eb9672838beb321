"""Connects viewers with consoles.

A screen takes each viewer's connection itself. A serial line takes one connection only, which all its viewers share.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from domzero.host.console.serial import SerialLine, SerialViewer

if TYPE_CHECKING:
    from domzero.host.console.text_screen import TextScreen

PIECE = 64 << 10
"""The most that is read at a time, and twice of which waits for a viewer before QEMU has to."""
CONNECT_SECONDS = 5.0


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
        return await self._reader.read(PIECE)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()


class Lines:
    """All consoles of this host that somebody looks at. Used inside one event loop."""

    def __init__(self) -> None:
        self._serial: dict[Path, SerialLine] = {}
        self._text: dict[Path, TextScreen] = {}

    async def screen(self, socket: Path) -> Line:
        """A viewer's own connection to an RFB server. Raises `OSError` when nothing answers there."""
        return SocketLine(*await connect(socket))

    async def text(self, socket: Path, log: Path | None, title: str) -> Line:
        """A serial line shown as a screen, by RFB. Raises as `serial` does."""
        # What most hosts are never asked for, and start sooner without.
        from domzero.host.console.text_screen import TextScreen

        screen = self._text.get(socket)
        if screen is None:
            place = await self.serial(socket, log)
            screen = self._text.get(socket)
            if screen is None:
                screen = self._text[socket] = TextScreen(place, title, lambda: self._forget_text(socket))
            else:  # somebody else was quicker
                place.close()
        return screen.join()

    async def serial(self, socket: Path, log: Path | None) -> SerialViewer:
        """A place at a serial line. It begins with the latest of what the machine wrote before.

        `log` is where that is read when nobody looks yet. Raises `OSError` when nothing answers.
        """
        line = self._serial.get(socket)
        if line is None or line.ended:
            line = self._serial[socket] = SerialLine(lambda: connect(socket), log, lambda: self._forget(socket))
        return await line.join()

    def _forget_text(self, socket: Path) -> None:
        screen = self._text.get(socket)
        if screen is not None and screen.ended:
            del self._text[socket]

    def _forget(self, socket: Path) -> None:
        line = self._serial.get(socket)
        if line is not None and line.ended:
            del self._serial[socket]


async def connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket within a few seconds. Raises `OSError`."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_unix_connection(str(socket), limit=PIECE)
