"""Connects viewers with consoles.

A screen takes each viewer's connection itself. A serial line takes one connection only, which all its viewers share. On
the host's own console everybody has a terminal of their own: nobody is to find, or to see, what another logged in to.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from domzero.host.console.line import PIECE, Line, SocketLine
from domzero.host.console.serial import SerialLine, SerialViewer, Streams
from domzero.host.console.terminals import ShownTerminal, Terminals

CONNECT_SECONDS = 5.0
FIRST_WORDS = 2.0
"""Seconds that the host's own terminal may take to say something before it is shown as a screen."""


class HostTerminal(Protocol):
    """Text terminals of the host itself."""

    async def open(self, kind: str) -> Streams:
        """A new one, for nobody else. `kind` is what programs on it find in `TERM`. Raises `OSError`.

        It ends when the connection is aborted, and the connection with it.
        """
        ...

    async def close(self) -> None:
        """End them all."""
        ...


class Lines:
    """All consoles of this host that somebody looks at. Used inside one event loop."""

    def __init__(self, host: HostTerminal | None = None, terminals: Terminals | None = None) -> None:
        """`host` is None where nobody may see the host's own console; `terminals` None where text is made up by us."""
        self._host = host
        self._terminals = terminals or Terminals(None)
        self._serial: dict[Path, SerialLine] = {}
        self._text: dict[Path, ShownTerminal] = {}

    async def screen(self, socket: Path) -> Line:
        """A viewer's own connection to an RFB server. Raises `OSError` when nothing answers there."""
        return SocketLine(*await connect(socket))

    async def text(self, socket: Path, log: Path | None, title: str) -> Line:
        """A serial line shown as a screen, by RFB. Raises as `serial` does."""
        shown = self._text.get(socket)
        if shown is None or shown.ended:
            place = await self.serial(socket, log)
            started = await self._terminals.show(place, title, lambda: self._forget_text(socket))
            shown = self._text.get(socket)
            if shown is None or shown.ended:
                shown = self._text[socket] = started
            else:  # somebody else was quicker
                started.close()
        return await shown.join()

    async def serial(self, socket: Path, log: Path | None) -> SerialViewer:
        """A place at a serial line. It begins with the latest of what the machine wrote before.

        `log` is where that is read when nobody looks yet. Raises `OSError` when nothing answers.
        """
        line = self._serial.get(socket)
        if line is None or line.ended:
            line = self._serial[socket] = SerialLine(lambda: connect(socket), log, lambda: self._forget(socket))
        return await line.join()

    async def host(self, title: str | None) -> Line:
        """A terminal of the host itself: its text, or with a title that as a screen. Raises `OSError`."""
        if self._host is None:
            raise ConnectionRefusedError("nobody may see this host's console")
        terminal, kind = self._host, "vt220" if title is None else "linux"
        place = await SerialLine(lambda: terminal.open(kind), None, _nobody_shares).join()
        if title is None:
            return place
        await place.expect(FIRST_WORDS)
        return await (await self._terminals.show(place, title, _nobody_shares)).join()

    def _forget_text(self, socket: Path) -> None:
        shown = self._text.get(socket)
        if shown is not None and shown.ended:
            del self._text[socket]

    def _forget(self, socket: Path) -> None:
        line = self._serial.get(socket)
        if line is not None and line.ended:
            del self._serial[socket]


def _nobody_shares() -> None:
    """There is nothing to forget of what only its one viewer knows."""


async def connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket within a few seconds. Raises `OSError`."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_unix_connection(str(socket), limit=PIECE)
