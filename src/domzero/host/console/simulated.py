"""The console of a simulated host: says whose it is, and echoes."""

from __future__ import annotations

import asyncio
import socket

from domzero.host.console.serial import Streams
from domzero.host.hypervisor.sim.consoles import echo

BANNER = b"simulated host\r\n"


class SimulatedTerminal:
    """Implements `HostTerminal`."""

    def __init__(self) -> None:
        self._sessions: set[asyncio.Task[None]] = set()

    async def open(self, kind: str) -> Streams:  # noqa: ARG002 - nothing reads its TERM
        """See `HostTerminal`."""
        theirs, ours = socket.socketpair()
        task = asyncio.get_running_loop().create_task(_serve(ours), name="simulated host's console")
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        return await asyncio.open_unix_connection(sock=theirs)

    async def close(self) -> None:
        """See `HostTerminal`."""
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)


async def _serve(connection: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        await echo(reader, writer, BANNER)
    except OSError:
        return  # the viewer is gone
    finally:
        writer.transport.abort()
