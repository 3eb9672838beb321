"""The host's xenstore by itself, with sockets for domains: `python -m bench.xenstore_server DIRECTORY DOMAINS`.

In the directory are `host`, a socket for each domain (`1` and so on), and `echo`, which sends back what it gets.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from bench.processes import READY
from domzero.host.clock import SystemClock
from domzero.host.xenstore.service import xenstore


class Echo(asyncio.BufferedProtocol):
    """The bare base: asyncio and a protocol that does nothing."""

    _piece = bytearray(16_384)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, _: int) -> bytearray:
        return self._piece

    def buffer_updated(self, count: int) -> None:
        self._transport.write(bytes(self._piece[:count]))


async def serve(directory: Path, domains: int) -> None:
    """Serve for ever."""
    async with xenstore(directory / "journal", SystemClock()) as service:
        await service.server.serve(listening(directory / "host"))
        for domid in range(1, domains + 1):
            service.local.introduce(domid)
            await service.server.serve(listening(directory / str(domid)), domid)
        await asyncio.get_running_loop().create_unix_server(Echo, directory / "echo")
        print(READY, flush=True)
        await service.keep()


def listening(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.bind(str(path))
    return opened


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
