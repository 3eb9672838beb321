"""The screens and serial lines of simulated domains: real sockets, so that what leads to them can be tested."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from domzero.wire.rfb import Rectangle, RfbError, RfbServer, UpdateRequest

WIDTH, HEIGHT = 320, 200
BARS = ((255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0))
PIECE = 4096

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class _Pair:
    screen: Path
    serial: Path
    servers: list[asyncio.Server] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


class SimConsoles:
    """Sockets by domain, each made when somebody asks for it first: most simulated domains are never looked at."""

    def __init__(self) -> None:
        self._pairs: dict[int, _Pair] = {}
        self._directory: Path | None = None
        self._making = asyncio.Lock()

    async def of(self, domid: int, uuid: str) -> tuple[Path, Path]:
        """The sockets of a domain's screen and serial line."""
        async with self._making:
            pair = self._pairs.get(domid) or await self._make(domid, uuid)
        return pair.screen, pair.serial

    def end(self, domid: int) -> None:
        """The domain is gone, and with it whoever looks."""
        pair = self._pairs.pop(domid, None)
        if pair is None:
            return
        for server in pair.servers:
            server.close()
        for writer in pair.writers:
            writer.transport.abort()
        pair.screen.unlink(missing_ok=True)
        pair.serial.unlink(missing_ok=True)

    def close(self) -> None:
        """Serve nobody any more."""
        for domid in list(self._pairs):
            self.end(domid)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def _make(self, domid: int, uuid: str) -> _Pair:
        if self._directory is None:
            # A short path: a socket's may have 107 bytes (unix(7)).
            self._directory = Path(tempfile.mkdtemp(prefix="domzero-sim-"))
        pair = _Pair(self._directory / f"{domid}.screen", self._directory / f"{domid}.serial")
        banner = f"simulated machine {uuid}\r\n".encode()

        async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _show_bars(reader, writer, f"simulated machine {uuid}")

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await echo(reader, writer, banner)

        for path, serve in ((pair.screen, show), (pair.serial, talk)):
            server = await asyncio.start_unix_server(_tracked(pair, serve), str(path))
            pair.servers.append(server)
        self._pairs[domid] = pair
        return pair


def _tracked(pair: _Pair, serve: Serve) -> Serve:
    """The same, known while it goes on, and ending quietly with its peer."""

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair.writers.add(writer)
        try:
            await serve(reader, writer)
        except (OSError, RfbError):
            return
        finally:
            pair.writers.discard(writer)
            writer.close()

    return tracked


async def _show_bars(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    server = RfbServer(WIDTH, HEIGHT, name, BARS)
    line = bytes(x * len(BARS) // WIDTH for x in range(WIDTH))
    data = b""
    while True:
        wanted = [message for message in server.receive(data) if isinstance(message, UpdateRequest)]
        # Nothing ever changes, so a viewer that wants to hear of changes waits for ever.
        if any(not message.incremental for message in wanted):
            server.send([Rectangle(0, 0, WIDTH, HEIGHT, line * HEIGHT)])
        writer.write(server.output())
        await writer.drain()
        if not (data := await reader.read(PIECE)):
            return


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, banner: bytes) -> None:
    """Say something, then whatever is typed. Raises `OSError` when the peer is gone."""
    data = banner
    while data:
        writer.write(data)
        await writer.drain()
        data = (await reader.read(PIECE)).replace(b"\r", b"\r\n")
