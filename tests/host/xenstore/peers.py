"""The other end of a connection, byte by byte, and a server for it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from domzero.host.clock import Clock, SystemClock
from domzero.host.xenstore.limits import DEFAULT, Limits
from domzero.host.xenstore.server import XenstoreServer
from domzero.host.xenstore.store import Store
from domzero.wire.xenstore import Decoder, Message, Operation, encode

PATIENCE = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells. Raises `TimeoutError`."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - parts under test tell nobody
            await asyncio.sleep(0.001)


class Peer:
    """One connection to the store."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.events: list[tuple[bytes, bytes]] = []
        self._decoder = Decoder()
        self._numbers = itertools.count(1)

    def send(self, operation: int, payload: bytes, transaction: int = 0) -> int:
        """Ask; the number of the request."""
        number = next(self._numbers)
        self.writer.write(encode(operation, number, transaction, payload))
        return number

    async def message(self) -> Message:
        """The next message. Raises `EOFError` when there is none."""
        async with asyncio.timeout(PATIENCE):
            while (message := self._decoder.next()) is None:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._decoder.feed(data)
        return message

    async def event(self) -> tuple[bytes, bytes]:
        """The next watch event that came or comes: path and token."""
        while not self.events:
            self._keep(await self.message())
        return self.events.pop(0)

    async def answer(self, number: int) -> Message:
        """The reply to a request; events before it are kept."""
        while (message := await self.message()).operation == Operation.WATCH_EVENT:
            self._keep(message)
        assert message.request == number
        return message

    async def ask(self, operation: int, payload: bytes = b"\0", transaction: int = 0) -> bytes:
        """A request's answer; an error's name where it is refused."""
        message = await self.answer(self.send(operation, payload, transaction))
        assert message.operation in (operation, Operation.ERROR)
        assert message.transaction == transaction
        return message.payload

    async def is_closed(self) -> bool:
        """Whether nothing but the end comes."""
        try:
            await self.message()
        except (EOFError, ConnectionError):
            return True
        return False

    def _keep(self, message: Message) -> None:
        assert (message.operation, message.request, message.transaction) == (Operation.WATCH_EVENT, 0, 0)
        path, token, end = message.payload.split(b"\0")
        assert end == b""
        self.events.append((path, token))


class Host:
    """A store that is served; domains 1, 2 and 3 are there."""

    def __init__(self, directory: Path, clock: Clock, limits: Limits) -> None:
        self.store = Store(clock.monotonic, limits)
        self.server = XenstoreServer(self.store, clock)
        self._directory = directory
        self._peers: list[Peer] = []
        for domid in (1, 2, 3):
            self.store.introduce(domid)

    async def path(self, domid: int = 0) -> Path:
        """A domain's socket, which listens from now on."""
        path = self._directory / f"s{domid}"
        if not path.exists():
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(path))
            await self.server.serve(listening, domid)
        return path

    async def peer(self, domid: int = 0) -> Peer:
        """Another connection of a domain."""
        return await self.peer_of(await self.path(domid))

    async def peer_of(self, path: Path) -> Peer:
        """A connection to any socket, closed with the others."""
        connected = socket.socket(socket.AF_UNIX)
        # A server with a short queue makes one wait, which asyncio's own connecting takes for success.
        await asyncio.to_thread(connected.connect, str(path))
        peer = Peer(*await asyncio.open_unix_connection(sock=connected))
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        self.server.close()
        for peer in self._peers:
            peer.writer.close()
            await asyncio.gather(peer.writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def host(directory: Path, clock: Clock | None = None, limits: Limits = DEFAULT) -> AsyncIterator[Host]:
    """A store, served until the end of the block."""
    serving = Host(directory, clock or SystemClock(), limits)
    try:
        yield serving
    finally:
        await serving.close()
