"""The host's side of the protocol, on a pair of streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domzero.wire import cli
from domzero.wire.cli import Decoder, Message, ProtocolError
from domzero.xe.errors import CommandError

BLOCK = 64 << 10
MOST_UPLOADED = 32 << 20
"""A file that a command reads whole may have at most this many bytes."""
LONGEST_LINE = 64 << 10
"""An answer to a prompt may have at most this many bytes."""
LONGEST_MESSAGE = 64
"""Bytes of a client's message: none holds more than a number. What a file holds comes outside of messages."""
WRITE_STALL = 60.0
"""Seconds for which a client may read nothing before it is cut off, as long as nobody knows who it is."""
READING_STALL = 24 * 3600.0
"""The same once it has logged in: somebody may be at the first page of a long list. It holds no more than one who is
asked a question and does not answer."""
TURN = 16
"""How many messages are sent before others get their turn."""
READ_AHEAD = 16
"""How many messages are kept that nobody asked for yet."""


class Conversation:
    """Shows and asks. Everything that comes is read by `receive`, which must run for as long as the conversation.

    Asking raises `ProtocolError` or `ConnectionError` when the client does not keep to the protocol, or is gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stall: float = WRITE_STALL) -> None:
        self.stall = stall
        self._reader = reader
        self._writer = writer
        self._sent = 0
        self._asking = False
        self._arrived: asyncio.Queue[Message | bytes | Exception] = asyncio.Queue(READ_AHEAD)

    async def receive(self) -> None:
        """Read what the client sends; return when it is gone, or no longer makes sense."""
        decoder = Decoder(LONGEST_MESSAGE)
        try:
            while data := await self._reader.read(BLOCK):
                decoder.feed(data)
                for item in decoder.take():
                    if self._arrived.full() and not self._asking:
                        # Waiting for somebody to ask would mean not to notice when the client leaves.
                        raise ProtocolError("the client says more than it was asked")
                    await self._arrived.put(item)
            problem: Exception = ConnectionError("the client has gone")
        except (ProtocolError, ConnectionError) as error:
            problem = error
        if self._arrived.full():
            self._arrived.get_nowait()
        self._arrived.put_nowait(problem)

    async def show(self, text: str) -> None:
        """Print a text and end the line."""
        await self._send(cli.command(cli.PRINT, text))

    async def complain(self, text: str) -> None:
        """Print a text on standard error, as it is."""
        await self._send(cli.command(cli.PRINT_STDERR, text))

    async def fail(self, code: str, params: Sequence[str]) -> None:
        """Show an error by its code."""
        await self._send(cli.command(cli.ERROR, code, tuple(params)))

    async def tell(self, text: str) -> None:
        """Say what the host is at, to somebody who wants to know."""
        await self._send(cli.command(cli.DEBUG, text))

    async def exit(self, code: int) -> None:
        """Have the client end."""
        await self._send(cli.command(cli.EXIT, code))

    async def ask(self) -> str:
        """A line that the person types."""
        with self._question():
            await self._send(cli.command(cli.PROMPT))
            return (await self._blob(LONGEST_LINE, "The answer is too long")).decode("utf-8", "replace")

    async def load(self, name: str) -> bytes:
        """What a file of the client's machine holds. Raises `CommandError` when it cannot be read or is too large."""
        with self._question():
            await self._send(cli.command(cli.LOAD, name))
            if not await self._verdict():
                raise CommandError(f"The file {name} could not be read")
            return await self._blob(MOST_UPLOADED, f"The file {name} is too large")

    async def put(self, name: str, path: str) -> bool:
        """Have the client send a file to a page of this host; whether that worked."""
        with self._question():
            await self._send(cli.command(cli.HTTP_PUT, name, path))
            return await self._verdict()

    async def fetch(self, name: str, path: str) -> bool:
        """Have the client write a page of this host to a file; whether that worked."""
        with self._question():
            await self._send(cli.command(cli.HTTP_GET, name, path))
            return await self._verdict()

    async def connect(self, path: str) -> bool:
        """Have the client join its terminal to a stream of this host; whether that worked."""
        with self._question():
            await self._send(cli.command(cli.HTTP_CONNECT, path))
            return await self._verdict()

    @contextmanager
    def _question(self) -> Iterator[None]:
        """While something is asked for, whatever comes is taken, however much it is."""
        self._asking = True
        try:
            yield
        finally:
            self._asking = False

    async def _send(self, message: bytes) -> None:
        self._writer.write(message)
        try:
            async with asyncio.timeout(self.stall):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the client reads nothing of what it is sent") from None
        self._sent += 1
        if self._sent % TURN == 0:
            # Draining waits for slow readers only; a long list must not keep everybody else from their turn.
            await asyncio.sleep(0)

    async def _next(self) -> Message | bytes:
        item = await self._arrived.get()
        if isinstance(item, Exception):
            # Whoever asks again is to hear it too.
            self._arrived.put_nowait(item)
            raise item
        return item

    async def _verdict(self) -> bool:
        """Whether the client did what it was told; one that is still at it says so."""
        while True:
            item = await self._next()
            if isinstance(item, bytes) or item.kind != cli.RESPONSE:
                raise ProtocolError(f"a response was due, and {item!r:.80} came")
            if item.tag != cli.WAIT:
                return item.tag == cli.OK

    async def _blob(self, limit: int, complaint: str) -> bytes:
        """A blob. One that is too long is read to its end before `CommandError` is raised."""
        kept, size = bytearray(), 0
        while True:
            item = await self._next()
            if isinstance(item, bytes):
                size += len(item)
                if size <= limit:
                    kept += item
            elif item.kind != cli.BLOB:
                raise ProtocolError(f"a blob was due, and {item!r:.80} came")
            elif item.tag == cli.END:
                break
        if size > limit:
            raise CommandError(complaint)
        return bytes(kept)
