"""Where connections come from: listening sockets, and streams that somebody else opened."""

from __future__ import annotations

import asyncio
import socket

from domzero.host.clock import Clock
from domzero.host.xenstore.connection import Connection, Turns
from domzero.host.xenstore.store import Store


class XenstoreServer:
    """Serves one store until it is closed.

    A socket is for the host itself (domid 0, trusted with everything) or for one domain, and stays so.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turns = Turns()
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Connection, None] = {}

    async def serve(self, listening: socket.socket, domid: int = 0) -> None:
        """Accept connections on a socket that listens; it is closed with the server."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(lambda: self.connection(domid), sock=listening))

    def connection(self, domid: int) -> Connection:
        """What takes one stream of a domain's, such as its end of a virtio-serial port: a protocol of asyncio's."""
        connection = Connection(self._store, self._clock, domid, self._turns, self._gone)
        self._connections[connection] = None
        return connection

    def close(self) -> None:
        """Accept no more and cut all connections. What they had committed stays."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.end()

    def _gone(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
