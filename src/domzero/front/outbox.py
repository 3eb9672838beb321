"""The writing half of a connection: answers leave in order, large ones bit by bit, and slow readers are noticed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from math import inf

SLICE = 256 << 10
"""How much of a large answer is handed to the transport at a time; the rest waits without being copied. The pieces of
`get_all_records` are the records' own bytes, so even for many slow readers it costs little memory."""


class Outbox:
    """Bytes on their way out. `writable` turns false while the peer reads too slowly for what was written."""

    __slots__ = ("_backlog", "_closing", "_drained", "stalled_since", "transport", "writable")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.writable = True
        self.stalled_since = inf
        self._backlog: deque[bytes | memoryview] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def empty(self) -> bool:
        """Whether everything was handed to the transport."""
        return not self._backlog

    def write(self, data: bytes) -> None:
        """Send behind all that was written before."""
        if self.writable and not self._backlog and len(data) <= SLICE:
            self.transport.write(data)
        elif data:
            self.write_all((data,))

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """The same for many pieces."""
        self._backlog.extend(pieces)
        self._pump()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._closing = True
        if not self._backlog:
            self.transport.close()

    def paused(self, now: float) -> None:
        """The transport has enough for now."""
        self.writable = False
        self.stalled_since = now

    def resumed(self) -> None:
        """The transport takes more."""
        self.writable = True
        self.stalled_since = inf
        self._pump()
        if self.writable and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def lost(self) -> None:
        """The connection is gone; whoever waits is told."""
        self._backlog.clear()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client is gone"))

    async def drain(self) -> None:
        """Wait until the peer has read enough. Raises `ConnectionResetError` when it is gone."""
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self.writable and not self._backlog:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            await self._drained
        finally:
            self._drained = None

    def _pump(self) -> None:
        while self._backlog and self.writable:
            self.transport.write(self._next_slice())
        if self._closing and not self._backlog:
            # Not at once: a transport that is closed from within `resume_writing` ends its connection twice.
            asyncio.get_running_loop().call_soon(self.transport.close)

    def _next_slice(self) -> bytes | memoryview:
        first = self._backlog.popleft()
        if len(first) > SLICE:
            view = memoryview(first)
            self._backlog.appendleft(view[SLICE:])
            return view[:SLICE]
        group, size = [first], len(first)
        while self._backlog and (size := size + len(self._backlog[0])) <= SLICE:
            group.append(self._backlog.popleft())
        return b"".join(group)
