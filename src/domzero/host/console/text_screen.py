"""A text console shown as a screen: several viewers by RFB, one terminal, one place at the serial line.

On a host it runs in a process of its own (`terminal_program`): what a guest writes is parsed nowhere else.

The terminal is fed at a bounded pace: a guest that writes more than anybody can read costs little, and what cannot be
shown in time is left out.
"""

from __future__ import annotations

import asyncio

from domzero.host.console.glyphs import HEIGHT, WIDTH
from domzero.host.console.keys import CONTROL, META, typed
from domzero.host.console.line import Line
from domzero.host.console.terminal import COLUMNS, LINES, PALETTE, Terminal
from domzero.wire.rfb import Key, RfbError, RfbServer, UpdateRequest

PIECE = 1024
"""Fed to the terminal at a time: a few milliseconds of work."""
SHARE = 0.2
"""Of a processor that a guest may keep busy by writing."""
FRAME = 0.06
"""Seconds between two pictures for one viewer."""
UNSENT_KEYS = 4096
"""Bytes that may wait for a guest that takes none; more are dropped, as a keyboard's buffer does."""


class TextScreen:
    """The terminal of one serial line, until that ends or nobody wants it any more (`close`)."""

    def __init__(self, serial: Line, title: str, past: int) -> None:
        """`past` is how many of the line's next bytes were written before anybody looked."""
        self._serial = serial
        self._title = title
        self._viewers: set[TextViewer] = set()
        self._keys = bytearray()
        self._has_keys = asyncio.Event()
        self._past = past
        self._is_current = asyncio.Event()
        self.terminal = Terminal(self.type)
        self.ended = False
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._tasks = [loop.create_task(self._show()), loop.create_task(self._send_keys())]

    def join(self) -> TextViewer:
        """A new viewer."""
        viewer = TextViewer(self, self._title)
        self._viewers.add(viewer)
        if self.ended:
            viewer.end()
        return viewer

    def leave(self, viewer: TextViewer) -> None:
        """The viewer is gone."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Put the terminal away."""
        self._end()
        for task in self._tasks:
            task.cancel()

    async def current(self) -> None:
        """Return when what the machine wrote before anybody looked is on the terminal."""
        await self._is_current.wait()

    def type(self, data: bytes) -> None:
        """Send to the guest, when it takes it."""
        if len(self._keys) + len(data) <= UNSENT_KEYS:
            self._keys += data
            self._has_keys.set()

    async def _show(self) -> None:
        try:
            if not self._past:
                self._is_current.set()
            while data := await self._serial.read():
                for at in range(0, len(data), PIECE):
                    begun = self._now()
                    piece = data[at : at + PIECE]
                    changed = self.terminal.feed(piece)
                    for viewer in self._viewers:
                        viewer.note(changed)
                    # The past is short, and somebody waits for it.
                    await asyncio.sleep(0 if self._past > 0 else (self._now() - begun) * (1 / SHARE - 1))
                    self._digested(len(piece))
        finally:
            self._end()

    def _digested(self, count: int) -> None:
        self._past -= count
        if self._past <= 0:
            self._is_current.set()

    async def _send_keys(self) -> None:
        while await self._has_keys.wait():
            data = bytes(self._keys)
            self._keys.clear()
            self._has_keys.clear()
            try:
                await self._serial.write(data)
            except ConnectionError:
                return  # the guest has ended; so does the reading

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._is_current.set()
        self._serial.close()
        for viewer in self._viewers:
            viewer.end()


class TextViewer:
    """One viewer: bytes of RFB in and out; see `host.console.line.Line`."""

    def __init__(self, screen: TextScreen, title: str) -> None:
        self._screen = screen
        self._server = RfbServer(COLUMNS * WIDTH, LINES * HEIGHT, title, PALETTE)
        self._stale = set(range(LINES))
        self._wanted = False
        self._held: set[int] = set()
        self._news = asyncio.Event()
        self._over = False
        self._next_frame = 0.0

    async def read(self) -> bytes:
        """What the viewer is to be sent next; empty when the console has ended."""
        while True:
            self._news.clear()
            if output := self._server.output():
                return output
            if self._over:
                return b""
            if self._wanted and self._stale:
                await self._screen.current()
                await self._pace()
                self._server.send([self._screen.terminal.line(number) for number in sorted(self._stale)])
                self._stale.clear()
                self._wanted = False
                continue
            await self._news.wait()

    async def write(self, data: bytes) -> None:
        """Take what the viewer sent. Raises `ConnectionError` when it is no RFB."""
        try:
            messages = self._server.receive(data)
        except RfbError as error:
            raise ConnectionAbortedError(str(error)) from error
        for message in messages:
            if isinstance(message, Key):
                self._press(message)
            elif isinstance(message, UpdateRequest):
                self._wanted = True
                if not message.incremental:
                    self._stale = set(range(LINES))
        self._news.set()

    def close(self) -> None:
        """Leave."""
        self.end()
        self._screen.leave(self)

    def note(self, changed: set[int]) -> None:
        """These lines look different."""
        self._stale |= changed
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._over = True
        self._news.set()

    def _press(self, key: Key) -> None:
        if key.symbol in CONTROL or key.symbol in META:
            (self._held.add if key.down else self._held.discard)(key.symbol)
        elif key.down:
            self._screen.type(
                typed(
                    key.symbol,
                    control=bool(self._held & CONTROL),
                    meta=bool(self._held & META),
                    application=self._screen.terminal.is_application_cursor,
                )
            )

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_frame:
            await asyncio.sleep(self._next_frame - now)
        self._next_frame = max(now, self._next_frame) + FRAME
