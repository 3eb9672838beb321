"""Guests' ports as QEMU offers them: Unix sockets, one client at a time, whose other end is a device in the guest.

QEMU listens and the daemon connects, so a port outlives the daemon: the guest sees it closed and opened again. What
comes from a guest goes to a connection of the store that was made for its domain, which bounds and paces it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from domzero.host.clock import Clock
from domzero.host.xenstore.connection import Connection
from domzero.host.xenstore.server import XenstoreServer

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds until a port that was closed, for whatever reason, is opened again."""


class PortSockets:
    """Implements `GuestPorts`. `close` comes before the end of the server."""

    def __init__(self, server: XenstoreServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._served: dict[int, dict[Path, asyncio.Task[None]]] = {}
        self._open: dict[tuple[int, Path], _Stream] = {}

    def join(self, domid: int, socket: Path) -> None:
        ports = self._served.setdefault(domid, {})
        if socket not in ports:
            loop = asyncio.get_running_loop()
            ports[socket] = loop.create_task(self._serve(domid, socket), name=f"{socket.name} of domain {domid}")

    def closing(self, domid: int, socket: Path) -> Callable[[], None]:
        stream = self._open.get((domid, socket))
        heard = stream.heard if stream is not None else 0

        def forget() -> None:
            if stream is not None and stream.heard == heard and not stream.ended.is_set():
                stream.begin_anew()

        return forget

    def release(self, domid: int) -> None:
        for serving in self._served.pop(domid, {}).values():
            serving.cancel()

    async def close(self) -> None:
        """Let go of all ports."""
        serving = [task for ports in self._served.values() for task in ports.values()]
        self._served.clear()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, domid: int, socket: Path) -> None:
        while await self._connected(domid, socket):
            await self._clock.sleep(RETRY)

    async def _connected(self, domid: int, socket: Path) -> bool:
        """Serve one connection to its end. Whether there may be another one: not where the socket is gone."""
        connection = self._server.connection(domid)
        stream = _Stream(connection)
        try:
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: stream, str(socket))
        except OSError as error:
            connection.connection_lost(None)
            log.debug("the port of domain %d cannot be reached: %s", domid, error)
            return not isinstance(error, FileNotFoundError)
        except asyncio.CancelledError:
            connection.connection_lost(None)
            raise
        self._open[domid, socket] = stream
        try:
            await stream.ended.wait()
        finally:
            del self._open[domid, socket]
            transport.abort()
        return True


class _Stream(asyncio.BufferedProtocol):
    """Hands everything on to a connection, and tells when it is over."""

    def __init__(self, connection: Connection) -> None:
        self.ended = asyncio.Event()
        self.heard = 0
        """How often something has come."""
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._connection.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += 1
        self._connection.buffer_updated(nbytes)

    def begin_anew(self) -> None:
        """Another program is at the other end."""
        self._connection.begin_anew()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self.ended.set()
