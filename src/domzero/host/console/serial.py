"""One serial line for several viewers: what the machine writes is read once, at once, whoever keeps up with it.

A viewer that reads too slowly loses the oldest of what waits for it; the machine and the other viewers notice nothing.
What viewers type is written in the order in which it came; a machine that does not take it makes them wait.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

PIECE = 64 << 10
HISTORY = 16 << 10
"""How much of the past a new viewer is shown."""
BACKLOG = 256 << 10
"""How much waits for one viewer, unless it wants less."""

QUERIES = re.compile(rb"\x1b\[[?>=]?[0-9;]*[cn]|\x1bZ|\x05|\x1b[P\]][^\x07\x1b]{0,200}\?(?:\x07|\x1b\\)")
"""What a terminal answers by itself (ECMA-48, 8.3.24 and 8.3.35; xterm's control sequences). Shown again to a new
viewer, its terminal would type old answers into whatever runs now."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SerialViewer:
    """One place at a line."""

    def __init__(self, line: SerialLine, past: bytes) -> None:
        self._line = line
        self._waiting = bytearray(past)
        self._news = asyncio.Event()
        self._over = False
        self.backlog = BACKLOG
        """How many bytes may wait."""
        self.skipped = 0
        """How many bytes this viewer has lost."""

    @property
    def waiting(self) -> int:
        """How many bytes wait to be read."""
        return len(self._waiting)

    async def read(self) -> bytes:
        """What the machine wrote since the last time; empty when the line has ended."""
        while not self._waiting:
            if self._over:
                return b""
            self._news.clear()
            await self._news.wait()
        data = bytes(self._waiting[:PIECE])
        del self._waiting[:PIECE]
        return data

    async def expect(self, seconds: float) -> None:
        """Return when there is something to read, or after so many seconds, or at the end."""
        try:
            async with asyncio.timeout(seconds):
                while not self._waiting and not self._over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    async def write(self, data: bytes) -> None:
        """Type. Raises `ConnectionError` when the line has ended."""
        await self._line.write(data)

    def close(self) -> None:
        """Leave; the last one to do so gives up the line."""
        self.end()
        self._line.leave(self)

    def feed(self, data: bytes) -> None:
        """More from the machine."""
        self._waiting += data
        excess = len(self._waiting) - self.backlog
        if excess > 0:
            del self._waiting[:excess]
            self.skipped += excess
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._over = True
        self._news.set()


class SerialLine:
    """The line and its viewers. It connects for the first one and is of no use any more once `ended`."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], log: Path | None, forget: Callable[[], None]) -> None:
        self._connect = connect
        self._log = log
        self._forget = forget
        self._history = bytearray()
        self._viewers: set[SerialViewer] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self.ended = False

    async def join(self) -> SerialViewer:
        """A new viewer. Raises `OSError` when the line cannot be had."""
        async with self._opening:
            if self._writer is None and not self.ended:
                await self._open()
        if self.ended:
            raise ConnectionResetError("the serial line has ended")
        viewer = SerialViewer(self, replayable(bytes(self._history)))
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: SerialViewer) -> None:
        """The viewer is gone."""
        self._viewers.discard(viewer)
        if not self._viewers and not self._opening.locked():
            self._end()

    async def write(self, data: bytes) -> None:
        """Hand bytes to the machine. Raises `ConnectionError` when the line has ended."""
        if self._writer is None or self.ended:
            raise ConnectionResetError("the serial line has ended")
        self._writer.write(data)
        await self._writer.drain()

    async def _open(self) -> None:
        try:
            # Before connecting: what is in the log by then does not come over the line again.
            self._history += _latest(self._log)
            reader, self._writer = await self._connect()
        except BaseException:
            self._end()
            raise
        self._reading = asyncio.get_running_loop().create_task(self._read(reader), name="serial line")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(PIECE):
                self._history += data
                del self._history[:-HISTORY]
                for viewer in self._viewers:
                    viewer.feed(data)
        except ConnectionError:
            return  # the machine is gone: the same end
        finally:
            self._end()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._writer is not None:
            self._writer.transport.abort()
        for viewer in self._viewers:
            viewer.end()
        self._forget()


def replayable(past: bytes) -> bytes:
    """The latest output as a new viewer may be shown it: from the beginning of a line on, without questions."""
    latest = past[-HISTORY:]
    if len(past) >= HISTORY:
        latest = latest[latest.find(b"\n") + 1 :]
    return QUERIES.sub(b"", latest)


def _latest(log: Path | None) -> bytes:
    """The end of the log; nothing where there is none."""
    if log is None:
        return b""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - HISTORY))
            return file.read(HISTORY)
    except OSError:
        return b""
