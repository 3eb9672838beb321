"""asyncio's stream protocol, from which large bodies are taken without being copied twice on the way."""

from __future__ import annotations

import asyncio

from domzero.front.hub import Hub, Member

STREAM_BUFFER = 256 << 10
"""Half of what is read ahead of a raw handler before the sender has to wait."""
SPARE = 64 << 10
"""Bytes that are taken at once while nobody waits."""
GATHERING = 0.01
"""Seconds after the first bytes in which more are taken, as long as there is room: to wake somebody costs more."""


class Intake(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Feeds `reader`, unless somebody waits in `receive`, tells the hub when the connection ends."""

    def __init__(self, hub: Hub, member: Member) -> None:
        self.reader = asyncio.StreamReader(STREAM_BUFFER, hub.loop)
        super().__init__(self.reader, loop=hub.loop)
        self._loop = hub.loop
        self._hub = hub
        self._member = member
        self._spare = memoryview(bytearray(SPARE))
        self._room: memoryview | None = None
        """Where to put what arrives, while somebody waits for it and there is room."""
        self._arrived: asyncio.Future[None] | None = None
        self._filled = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._unread = 0
        """Bytes that went to the reader before `receive` was called."""
        self._ended = False

    async def receive(self, into: memoryview) -> int:
        """How many bytes came, at least one; none at the end. Raises what ended the connection.

        What comes within `GATHERING` of the first byte is waited for, as far as there is room for it.
        The sender is held up between two calls, so that the reader is of no use after the first one.
        """
        if self._unread <= 0 and not self._ended and await self._fill(into):
            return self._filled
        data = await self.reader.read(len(into))
        self._unread -= len(data)
        into[: len(data)] = data
        return len(data)

    async def _fill(self, into: memoryview) -> bool:
        """Whether anything arrived before the end. What arrives while this is cancelled is not lost."""
        arrived = self._arrived = self._loop.create_future()
        self._room, self._filled = into, 0
        complete = False
        self._line.resume_reading()
        try:
            await arrived
            complete = True
        finally:
            self._room = self._arrived = None
            if self._gathering is not None:
                self._gathering.cancel()
                self._gathering = None
            self._line.pause_reading()
            if self._filled and not complete:
                self.feed(into[: self._filled])
        return self._filled > 0

    def feed(self, data: bytes | memoryview) -> None:
        """Give the reader bytes that are there already."""
        self._unread += len(data)
        self.reader.feed_data(data)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._line = transport
        super().connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the transport names it
        return self._spare if self._room is None else self._room

    def buffer_updated(self, nbytes: int) -> None:
        if self._room is None:
            self.feed(self._spare[:nbytes])
            return
        self._filled += nbytes
        if len(self._room) > nbytes:
            self._room = self._room[nbytes:]
            if self._gathering is None:
                self._gathering = self._loop.call_later(GATHERING, self._enough)
        else:
            self._enough()

    def _enough(self) -> None:
        self._room = None
        self._line.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        super().connection_lost(exc)
        self._wake()
        self._hub.leave(self._member)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
